// SPDX-License-Identifier: Apache-2.0
#include "matching/trajectory/trajectory.inl.h"

namespace ddkern::matching {
extern const TrajectoryTable trajectory_avx2 = {
    {sums<float>, absolute<float>, difference<float>},
    {sums<Bfloat16>, absolute<Bfloat16>, difference<Bfloat16>}};
}
