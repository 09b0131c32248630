// SPDX-License-Identifier: Apache-2.0
#include "matching/update/update.h"

namespace ddkern::matching {
namespace {

const IsaTable<UpdateOps> table = {{
    &update_base,
#if defined(DDKERN_HAVE_AVX2)
    &update_avx2,
#else
    nullptr,
#endif
#if defined(DDKERN_HAVE_AVX512)
    &update_avx512,
#else
    nullptr,
#endif
    nullptr,  // the loops wait for memory: nothing here gains from products of bytes
    nullptr,  // or of bfloat16
}};

}  // namespace

const UpdateOps& update_ops(Isa isa) { return table[isa]; }

}  // namespace ddkern::matching
