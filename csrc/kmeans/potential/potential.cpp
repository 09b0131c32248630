// SPDX-License-Identifier: Apache-2.0
#include "kmeans/potential/potential.h"

namespace ddkern::kmeans {
namespace {

const IsaTable<PotentialOps> table = {{
    &potential_base,
#if defined(DDKERN_HAVE_AVX2)
    &potential_avx2,
#else
    nullptr,
#endif
#if defined(DDKERN_HAVE_AVX512)
    &potential_avx512,
#else
    nullptr,
#endif
    nullptr,  // nothing here gains from products of bytes
    nullptr,  // or of bfloat16
}};

}  // namespace

const PotentialOps& potential_ops(Isa isa) { return table[isa]; }

}  // namespace ddkern::kmeans
