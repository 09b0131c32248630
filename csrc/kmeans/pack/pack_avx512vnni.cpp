// SPDX-License-Identifier: Apache-2.0
#include "kmeans/pack/pack.inl.h"
#include "kmeans/pack/pack_bytes_avx512vnni.h"
#include "kmeans/pack/transpose_avx512.h"

namespace ddkern::kmeans {
extern const PackTable pack_avx512vnni = {
    {survey<float>, small_integers<float>, pack_block<Avx512, float>, pack_column<float>,
     pack_bytes<float>, pack_column_bytes<float>, chain_rows<float>},
    {survey<double>, small_integers<double>, pack_block<Avx512, double>, pack_column<double>,
     pack_bytes<double>, pack_column_bytes<double>, chain_rows<double>}};
}
