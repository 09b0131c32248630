// SPDX-License-Identifier: Apache-2.0
#include "kmeans/shortlist/shortlist.h"

namespace ddkern::kmeans {
namespace {

const IsaTable<ShortlistOps> table = {{
    &shortlist_base,
#if defined(DDKERN_HAVE_AVX2)
    &shortlist_avx2,
#else
    nullptr,
#endif
#if defined(DDKERN_HAVE_AVX512)
    &shortlist_avx512,
#else
    nullptr,
#endif
    nullptr,  // nothing here gains from products of bytes
    nullptr,  // or of bfloat16
}};

}  // namespace

const ShortlistOps& shortlist_ops(Isa isa) { return table[isa]; }

}  // namespace ddkern::kmeans
