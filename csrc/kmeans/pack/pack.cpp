// SPDX-License-Identifier: Apache-2.0
#include "kmeans/pack/pack.h"

namespace ddkern::kmeans {
namespace {

const IsaTable<PackTable> table = {{
    &pack_base,
#if defined(DDKERN_HAVE_AVX2)
    &pack_avx2,
#else
    nullptr,
#endif
#if defined(DDKERN_HAVE_AVX512)
    &pack_avx512,
#else
    nullptr,
#endif
#if defined(DDKERN_HAVE_AVX512VNNI)
    &pack_avx512vnni,
#else
    nullptr,
#endif
#if defined(DDKERN_HAVE_AVX512BF16)
    &pack_avx512bf16,
#else
    nullptr,
#endif
}};

}  // namespace

template <>
const PackOps<float>& pack_ops<float>(Isa isa) {
  return table[isa].f32;
}
template <>
const PackOps<double>& pack_ops<double>(Isa isa) {
  return table[isa].f64;
}

}  // namespace ddkern::kmeans
