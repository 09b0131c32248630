// SPDX-License-Identifier: Apache-2.0
#include "network/norm_relu_pool/norm_relu_pool.inl.h"

namespace ddkern::network {
extern const NormReluPoolTable norm_relu_pool_avx512 = {{forward<float>, backward<float>},
                                                        {forward<Bfloat16>, backward<Bfloat16>}};
}
