// SPDX-License-Identifier: Apache-2.0
// AVX512-VNNI: float32 as in AVX-512, and products of bytes at four times its rate.
#include "kmeans/dots/dots.inl.h"
#include "kmeans/dots/dots_bytes_avx512vnni.h"
#include "kmeans/dots/lanes_avx512.h"

namespace {

void chain_f32(const DotsArgs& args) noexcept { dot_tile<Avx512>(args); }
void chain_norms(const float* points, std::int64_t n_features, float* out) noexcept {
  norms_of_block<Avx512>(points, n_features, out);
}

}  // namespace

namespace ddkern::kmeans {
extern const DotsOps dots_avx512vnni = {chain_f32, chain_norms, chain_f32,
                                        nullptr,   1.0,         fast_bytes};
}
