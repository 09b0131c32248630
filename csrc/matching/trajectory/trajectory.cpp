// SPDX-License-Identifier: Apache-2.0
#include "matching/trajectory/trajectory.h"

namespace ddkern::matching {
namespace {

const IsaTable<TrajectoryTable> table = {{
    &trajectory_base,
#if defined(DDKERN_HAVE_AVX2)
    &trajectory_avx2,
#else
    nullptr,
#endif
#if defined(DDKERN_HAVE_AVX512)
    &trajectory_avx512,
#else
    nullptr,
#endif
    nullptr,  // the loops wait for memory: nothing here gains from products of bytes
    nullptr,  // or of bfloat16
}};

}  // namespace

template <>
const TrajectoryOps<float>& trajectory_ops<float>(Isa isa) {
  return table[isa].f32;
}
template <>
const TrajectoryOps<Bfloat16>& trajectory_ops<Bfloat16>(Isa isa) {
  return table[isa].bf16;
}

}  // namespace ddkern::matching
