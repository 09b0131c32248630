// SPDX-License-Identifier: Apache-2.0
#include "matching/segment_mean/segment_mean.h"

namespace ddkern::matching {
namespace {

const IsaTable<SegmentMeanOps> table = {{
    &segment_mean_base,
#if defined(DDKERN_HAVE_AVX2)
    &segment_mean_avx2,
#else
    nullptr,
#endif
#if defined(DDKERN_HAVE_AVX512)
    &segment_mean_avx512,
#else
    nullptr,
#endif
    nullptr,  // the loops wait for memory: nothing here gains from products of bytes
    nullptr,  // or of bfloat16
}};

}  // namespace

const SegmentMeanOps& segment_mean_ops(Isa isa) { return table[isa]; }

}  // namespace ddkern::matching
