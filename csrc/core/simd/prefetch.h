// SPDX-License-Identifier: Apache-2.0
// Rows that will be needed next, fetched into the second cache while others are worked on.
// Internal linkage only.
//
// Kernels go through many rows at once, a few features at a time. DRAM answers that order at half
// its speed (measured: 11 against 22 GB/s); it wants rows from end to end. So the rows of one step
// are fetched during the step before, in their own order.
#pragma once

#include <cstdint>

#include "core/simd/vector.h"

namespace ddkern {

// `rows` [n_rows] pointers to n_bytes each; n_rows may be 0.
struct RowsAhead {
  const void* const* rows = nullptr;
  int n_rows = 0;
  std::int64_t n_bytes = 0;
};

namespace simd {
namespace {

// Where the cache line of an address begins. NumPy's large arrays start 16 bytes into one, so that
// every row reaches into one more than its length says.
DDKERN_SIMD_INLINE const char* line_of(const char* at) {
  return at - reinterpret_cast<std::uintptr_t>(at) % 64;
}

class Prefetcher {
 public:
  explicit Prefetcher(const RowsAhead& ahead) : ahead_(ahead) { begin_row(); }
  void fetch(int n_lines) {
    for (int i = 0; i < n_lines && at_ < end_; ++i) {
      __builtin_prefetch(at_, 0, 2);
      at_ += 64;
      if (at_ >= end_) begin_row();
    }
  }

 private:
  void begin_row() {
    while (row_ < ahead_.n_rows) {
      const auto* const row = static_cast<const char*>(ahead_.rows[row_++]);
      end_ = row + ahead_.n_bytes;
      // Rows side by side share a line, which was fetched with the row before.
      const char* const line = line_of(row);
      if (line + 64 != at_) at_ = line;
      if (at_ < end_) return;
    }
  }
  const RowsAhead ahead_;
  int row_ = 0;
  const char *at_ = nullptr, *end_ = nullptr;
};

}  // namespace
}  // namespace simd
}  // namespace ddkern
