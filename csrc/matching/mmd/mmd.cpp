// SPDX-License-Identifier: Apache-2.0
#include "matching/mmd/mmd.h"

namespace ddkern::matching {
namespace {

const IsaTable<MmdOps> table = {{
    &mmd_base,
#if defined(DDKERN_HAVE_AVX2)
    &mmd_avx2,
#else
    nullptr,
#endif
#if defined(DDKERN_HAVE_AVX512)
    &mmd_avx512,
#else
    nullptr,
#endif
    nullptr,  // all is float64: nothing here gains from products of bytes
    nullptr,  // or of bfloat16
}};

}  // namespace

const MmdOps& mmd_ops(Isa isa) { return table[isa]; }

}  // namespace ddkern::matching
