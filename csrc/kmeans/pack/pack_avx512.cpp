// SPDX-License-Identifier: Apache-2.0
#include "kmeans/pack/pack.inl.h"
#include "kmeans/pack/transpose_avx512.h"

namespace {

struct Avx512 {
  static constexpr bool kHasBf16 = false;
  static constexpr int kTile = 16;
  static void transpose(const std::uint32_t* from, int from_stride, std::uint32_t* to,
                        int to_stride) {
    transpose_16x16(from, from_stride, to, to_stride);
  }
};

}  // namespace

namespace ddkern::kmeans {
extern const PackTable pack_avx512 = {
    {survey<float>, small_integers<float>, pack_block<Avx512, float>, pack_column<float>, nullptr,
     nullptr, nullptr},
    {survey<double>, small_integers<double>, pack_block<Avx512, double>, pack_column<double>,
     nullptr, nullptr, nullptr}};
}
