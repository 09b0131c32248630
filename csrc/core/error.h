// SPDX-License-Identifier: Apache-2.0
// Exception types that cross into Python. std::bad_alloc becomes MemoryError by itself.
#pragma once

#include <stdexcept>
#include <string>

namespace ddkern {

// A value the caller passed cannot be used. Python sees ValueError.
struct InvalidArgument : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// The work was given up because another thread asked for it. Never leaves the library: the thread
// that asked rethrows its own exception instead.
struct Cancelled : std::exception {
  const char* what() const noexcept override { return "cancelled"; }
};

}  // namespace ddkern
