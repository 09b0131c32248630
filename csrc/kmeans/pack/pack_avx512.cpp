// SPDX-License-Identifier: Apache-2.0
#include "kmeans/pack/pack.inl.h"
#include "kmeans/pack/transpose_avx512.h"

namespace ddkern::kmeans {
extern const PackTable pack_avx512 = {
    {survey<float>, small_integers<float>, pack_block<Avx512, float>, pack_column<float>, nullptr,
     nullptr, nullptr},
    {survey<double>, small_integers<double>, pack_block<Avx512, double>, pack_column<double>,
     nullptr, nullptr, nullptr}};
}
