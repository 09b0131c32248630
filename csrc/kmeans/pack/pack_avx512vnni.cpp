// SPDX-License-Identifier: Apache-2.0
#include "kmeans/pack/pack.inl.h"
#include "kmeans/pack/pack_bytes_avx512vnni.h"
#include "kmeans/pack/transpose_avx512.h"

namespace {

struct Vnni {
  static constexpr bool kHasBf16 = false;
  static constexpr int kTile = 16;
  static void transpose(const std::uint32_t* from, int from_stride, std::uint32_t* to,
                        int to_stride) {
    transpose_16x16(from, from_stride, to, to_stride);
  }
};

}  // namespace

namespace ddkern::kmeans {
extern const PackTable pack_avx512vnni = {
    {survey<float>, small_integers<float>, pack_block<Vnni, float>, pack_column<float>,
     pack_bytes<float>, pack_column_bytes<float>, chain_rows<float>},
    {survey<double>, small_integers<double>, pack_block<Vnni, double>, pack_column<double>,
     pack_bytes<double>, pack_column_bytes<double>, chain_rows<double>}};
}
