// SPDX-License-Identifier: Apache-2.0
// Rows of the caller's array: any accepted dtype and any strides, read one row at a time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ddkern {

enum class DType { f16, bf16, f32, f64, boolean, i8, u8, i16, u16, i32, u32, i64, u64 };

std::int64_t item_size(DType dtype);

// The caller's array, seen as rows of n_features values. Row r lies at
// data + (r / n_inner) * outer_stride + (r % n_inner) * inner_stride.
struct RowSource {
  const char* data;
  DType dtype;
  std::int64_t n_rows;
  std::int64_t n_inner;
  std::int64_t outer_stride_in_bytes;
  std::int64_t inner_stride_in_bytes;
  std::vector<std::int64_t> feature_offsets_in_bytes;  // [n_features]
  std::int64_t n_features() const {
    return static_cast<std::int64_t>(feature_offsets_in_bytes.size());
  }
};

// Reads rows as T, exactly. T is float, or double for the dtypes float cannot hold.
template <class T>
class RowReader {
 public:
  explicit RowReader(const RowSource& source);

  std::int64_t n_features() const { return source_.n_features(); }

  // True when rows can be used where they lie, without conversion.
  bool in_place() const { return in_place_; }

  // Row r, in place where possible, otherwise converted into scratch [n_features].
  const T* row(std::int64_t r, T* scratch) const {
    const char* start = address(r);
    if (in_place_) return reinterpret_cast<const T*>(start);
    convert(start, scratch);
    return scratch;
  }

  // The first row of [begin, end) of `rows` (or begin.. themselves when null) whose value T cannot
  // hold (64-bit integers beyond 2^53), or -1.
  std::int64_t find_inexact(const std::int64_t* rows, std::int64_t begin, std::int64_t end) const;

 private:
  const char* address(std::int64_t r) const {
    return source_.data + (r / source_.n_inner) * source_.outer_stride_in_bytes +
           (r % source_.n_inner) * source_.inner_stride_in_bytes;
  }
  void convert(const char* start, T* out) const;

  const RowSource& source_;
  bool in_place_;
  bool contiguous_;
};

}  // namespace ddkern
