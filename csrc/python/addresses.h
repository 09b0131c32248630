// SPDX-License-Identifier: Apache-2.0
// Device memory as Python names it: addresses and sizes (ddkern/kernel_calls.py).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/error.h"

namespace ddkern::python {

using Addresses = std::vector<std::uintptr_t>;
using Sizes = std::vector<std::int64_t>;

template <class V>
V* pointer(std::uintptr_t address) {
  return reinterpret_cast<V*>(address);
}

// sizes: one a tensor.
template <class Items>
void check_count(const Items& items, const Sizes& sizes, const char* name) {
  if (items.size() != sizes.size()) {
    throw InvalidArgument(std::string(name) +
                          " has another number of entries than there are tensors");
  }
}

}  // namespace ddkern::python
