// SPDX-License-Identifier: Apache-2.0
#include "network/norm_relu_pool/norm_relu_pool.h"

namespace ddkern::network {
namespace {

const IsaTable<NormReluPoolTable> table = {{
    &norm_relu_pool_base,
#if defined(DDKERN_HAVE_AVX2)
    &norm_relu_pool_avx2,
#else
    nullptr,
#endif
#if defined(DDKERN_HAVE_AVX512)
    &norm_relu_pool_avx512,
#else
    nullptr,
#endif
    nullptr,  // nothing here gains from products of bytes
    nullptr,  // the conversion of avx512bf16 would lose denormals, and the loops wait for memory
}};

}  // namespace

template <>
const NormReluPoolOps<float>& norm_relu_pool_ops<float>(Isa isa) {
  return table[isa].f32;
}
template <>
const NormReluPoolOps<Bfloat16>& norm_relu_pool_ops<Bfloat16>(Isa isa) {
  return table[isa].bf16;
}

}  // namespace ddkern::network
