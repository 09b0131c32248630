// SPDX-License-Identifier: Apache-2.0
#include "matching/segment_mean/segment_mean.inl.h"

namespace ddkern::matching {
extern const SegmentMeanOps segment_mean_avx2 = {means};
}
