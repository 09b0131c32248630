// SPDX-License-Identifier: Apache-2.0
#include "matching/cosine/cosine.inl.h"

namespace ddkern::matching {
extern const CosineTable cosine_avx512 = {{products<float>, combine<float>},
                                          {products<Bfloat16>, combine<Bfloat16>}};
}
