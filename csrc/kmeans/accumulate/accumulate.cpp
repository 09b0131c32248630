// SPDX-License-Identifier: Apache-2.0
#include "kmeans/accumulate/accumulate.h"

namespace ddkern::kmeans {
namespace {

const IsaTable<AccumulateTable> table = {{
    &accumulate_base,
#if defined(DDKERN_HAVE_AVX2)
    &accumulate_avx2,
#else
    nullptr,
#endif
#if defined(DDKERN_HAVE_AVX512)
    &accumulate_avx512,
#else
    nullptr,
#endif
    nullptr,  // nothing here gains from products of bytes
    nullptr,  // or of bfloat16
}};

}  // namespace

template <>
const AccumulateOps<float>& accumulate_ops<float>(Isa isa) {
  return table[isa].f32;
}
template <>
const AccumulateOps<double>& accumulate_ops<double>(Isa isa) {
  return table[isa].f64;
}

}  // namespace ddkern::kmeans
