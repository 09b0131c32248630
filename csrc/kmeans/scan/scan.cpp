// SPDX-License-Identifier: Apache-2.0
#include "kmeans/scan/scan.h"

namespace ddkern::kmeans {
namespace {

const IsaTable<ScanOps> table = {{
    &scan_base,
#if defined(DDKERN_HAVE_AVX2)
    &scan_avx2,
#else
    nullptr,
#endif
#if defined(DDKERN_HAVE_AVX512)
    &scan_avx512,
#else
    nullptr,
#endif
    nullptr,  // nothing here gains from products of bytes
    nullptr,  // or of bfloat16
}};

}  // namespace

const ScanOps& scan_ops(Isa isa) { return table[isa]; }

}  // namespace ddkern::kmeans
