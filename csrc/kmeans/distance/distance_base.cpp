// SPDX-License-Identifier: Apache-2.0
#include "kmeans/distance/distance.inl.h"

namespace ddkern::kmeans {
extern const DistanceOps distance_base = {
    sq_distance<float>,     sq_distance<double>,     quick,       sq_norm,
    centred_sq_norm<float>, centred_sq_norm<double>, kQuickChains};
}
