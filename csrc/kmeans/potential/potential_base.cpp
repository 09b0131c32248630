// SPDX-License-Identifier: Apache-2.0
#include "kmeans/potential/potential.inl.h"

namespace ddkern::kmeans {
extern const PotentialOps potential_base = {potential, screen};
}
