// SPDX-License-Identifier: Apache-2.0
#include "kmeans/distance/distance.h"

namespace ddkern::kmeans {
namespace {

const IsaTable<DistanceOps> table = {{
    &distance_base,
#if defined(DDKERN_HAVE_AVX2)
    &distance_avx2,
#else
    nullptr,
#endif
#if defined(DDKERN_HAVE_AVX512)
    &distance_avx512,
#else
    nullptr,
#endif
    nullptr,  // nothing here gains from products of bytes
    nullptr,  // or of bfloat16
}};

}  // namespace

const DistanceOps& distance_ops(Isa isa) { return table[isa]; }

}  // namespace ddkern::kmeans
