// SPDX-License-Identifier: Apache-2.0
#include "kmeans/scan/scan.inl.h"

namespace ddkern::kmeans {
extern const ScanOps scan_avx2 = {scan};
}
