// SPDX-License-Identifier: Apache-2.0
#include "matching/mmd/mmd.inl.h"

namespace ddkern::matching {
extern const MmdOps mmd_avx2 = {pack, sum, pull};
}
