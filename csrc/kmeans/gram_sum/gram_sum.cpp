// SPDX-License-Identifier: Apache-2.0
#include "kmeans/gram_sum/gram_sum.h"

namespace ddkern::kmeans {
namespace {

const IsaTable<GramSumOps> table = {{
    &gram_sum_base,
#if defined(DDKERN_HAVE_AVX2)
    &gram_sum_avx2,
#else
    nullptr,
#endif
#if defined(DDKERN_HAVE_AVX512)
    &gram_sum_avx512,
#else
    nullptr,
#endif
    nullptr,  // nothing here gains from products of bytes
    nullptr,  // or of bfloat16
}};

}  // namespace

const GramSumOps& gram_sum_ops(Isa isa) { return table[isa]; }

}  // namespace ddkern::kmeans
