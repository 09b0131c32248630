// SPDX-License-Identifier: Apache-2.0
// bfloat16 as it is stored: the upper half of a float32.
#pragma once

#include <cstdint>

namespace ddkern {

struct Bfloat16 {
  std::uint16_t bits;
};

}  // namespace ddkern
