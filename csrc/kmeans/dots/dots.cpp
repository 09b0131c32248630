// SPDX-License-Identifier: Apache-2.0
#include "kmeans/dots/dots.h"

namespace ddkern::kmeans {
namespace {

const IsaTable<DotsOps> table = {{
    &dots_base,
#if defined(DDKERN_HAVE_AVX2)
    &dots_avx2,
#else
    nullptr,
#endif
#if defined(DDKERN_HAVE_AVX512)
    &dots_avx512,
#else
    nullptr,
#endif
#if defined(DDKERN_HAVE_AVX512VNNI)
    &dots_avx512vnni,
#else
    nullptr,
#endif
#if defined(DDKERN_HAVE_AVX512BF16)
    &dots_avx512bf16,
#else
    nullptr,
#endif
}};

}  // namespace

const DotsOps& dots_ops(Isa isa) { return table[isa]; }

}  // namespace ddkern::kmeans
