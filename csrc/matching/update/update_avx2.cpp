// SPDX-License-Identifier: Apache-2.0
#include "matching/update/update.inl.h"

namespace ddkern::matching {
extern const UpdateOps update_avx2 = {linear, momentum, ascent, squares};
}
