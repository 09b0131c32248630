// SPDX-License-Identifier: Apache-2.0
#include "kmeans/accumulate/accumulate.inl.h"

namespace ddkern::kmeans {
extern const AccumulateTable accumulate_avx512 = {{add<float>, finish<float>},
                                                  {add<double>, finish<double>}};
}
