// SPDX-License-Identifier: Apache-2.0
#include "matching/cosine/cosine.h"

namespace ddkern::matching {
namespace {

const IsaTable<CosineTable> table = {{
    &cosine_base,
#if defined(DDKERN_HAVE_AVX2)
    &cosine_avx2,
#else
    nullptr,
#endif
#if defined(DDKERN_HAVE_AVX512)
    &cosine_avx512,
#else
    nullptr,
#endif
    nullptr,  // the loops wait for memory: nothing here gains from products of bytes
    nullptr,  // or of bfloat16
}};

}  // namespace

template <>
const CosineOps<float>& cosine_ops<float>(Isa isa) {
  return table[isa].f32;
}
template <>
const CosineOps<Bfloat16>& cosine_ops<Bfloat16>(Isa isa) {
  return table[isa].bf16;
}

}  // namespace ddkern::matching
