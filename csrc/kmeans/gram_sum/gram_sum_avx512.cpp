// SPDX-License-Identifier: Apache-2.0
#include "kmeans/gram_sum/gram_sum.inl.h"

namespace ddkern::kmeans {
extern const GramSumOps gram_sum_avx512 = {add, products};
}
