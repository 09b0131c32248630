// SPDX-License-Identifier: Apache-2.0
#include "kmeans/shortlist/shortlist.inl.h"

namespace ddkern::kmeans {
extern const ShortlistOps shortlist_base = {by_margin, by_product, list};
}
