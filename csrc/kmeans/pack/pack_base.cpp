// SPDX-License-Identifier: Apache-2.0
#include "kmeans/pack/pack.inl.h"

namespace {

struct Base {
  static constexpr bool kHasBf16 = false;
  static constexpr int kTile = 4;
  static void transpose(const std::uint32_t* from, int from_stride, std::uint32_t* to,
                        int to_stride) {
    for (int i = 0; i < kTile; ++i) {
      for (int j = 0; j < kTile; ++j) to[j * to_stride + i] = from[i * from_stride + j];
    }
  }
};

}  // namespace

namespace ddkern::kmeans {
extern const PackTable pack_base = {
    {survey<float>, small_integers<float>, pack_block<Base, float>, pack_column<float>, nullptr,
     nullptr, nullptr},
    {survey<double>, small_integers<double>, pack_block<Base, double>, pack_column<double>, nullptr,
     nullptr, nullptr}};
}
