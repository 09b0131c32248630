// SPDX-License-Identifier: Apache-2.0
#include "core/rows.h"

#include <cstring>
#include <type_traits>

#include "core/error.h"

namespace ddkern {
namespace {

struct Half {
  std::uint16_t bits;
};
struct Bfloat {
  std::uint16_t bits;
};

float to_float(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Branch-free, so that the compiler can vectorise it without F16C: shift the exponent into place
// and let one exact multiplication rebias it; that handles denormals too. Inf and NaN are put back
// last.
float widen(Half half) {
  const std::uint32_t magnitude = (half.bits & 0x7fffu) << 13;
  std::uint32_t bits;
  const float rebiased = to_float(magnitude) * 0x1p112f;
  std::memcpy(&bits, &rebiased, sizeof(bits));
  bits = magnitude >= 0x0f800000u ? (magnitude | 0x7f800000u) : bits;
  return to_float(bits | (static_cast<std::uint32_t>(half.bits & 0x8000u) << 16));
}
float widen(Bfloat bfloat) { return to_float(static_cast<std::uint32_t>(bfloat.bits) << 16); }
template <class S>
S widen(S value) {
  return value;
}

template <class S, class T>
void convert_row(const char* start, const std::int64_t* offsets, bool contiguous, std::int64_t n,
                 T* out) {
  if (contiguous) {
    for (std::int64_t j = 0; j < n; ++j) {
      S value;
      std::memcpy(&value, start + j * static_cast<std::int64_t>(sizeof(S)), sizeof(S));
      out[j] = static_cast<T>(widen(value));
    }
    return;
  }
  for (std::int64_t j = 0; j < n; ++j) {
    S value;
    std::memcpy(&value, start + offsets[j], sizeof(S));
    out[j] = static_cast<T>(widen(value));
  }
}

}  // namespace

std::int64_t item_size(DType dtype) {
  switch (dtype) {
    case DType::boolean:
    case DType::i8:
    case DType::u8: return 1;
    case DType::f16:
    case DType::bf16:
    case DType::i16:
    case DType::u16: return 2;
    case DType::f32:
    case DType::i32:
    case DType::u32: return 4;
    case DType::f64:
    case DType::i64:
    case DType::u64: return 8;
  }
  throw InvalidArgument("unknown dtype");
}

template <class T>
RowReader<T>::RowReader(const RowSource& source) : source_(source), contiguous_(true) {
  const std::int64_t size = item_size(source.dtype);
  for (std::int64_t j = 0; j < source.n_features(); ++j) {
    if (source.feature_offsets_in_bytes[j] != j * size) contiguous_ = false;
  }
  const auto aligned = [](std::int64_t value) {
    return value % static_cast<std::int64_t>(alignof(T)) == 0;
  };
  in_place_ = contiguous_ &&
              source.dtype == (std::is_same<T, float>::value ? DType::f32 : DType::f64) &&
              aligned(reinterpret_cast<std::intptr_t>(source.data)) &&
              aligned(source.outer_stride_in_bytes) && aligned(source.inner_stride_in_bytes);
}

template <class T>
void RowReader<T>::convert(const char* start, T* out) const {
  const std::int64_t* offsets = source_.feature_offsets_in_bytes.data();
  const std::int64_t n = source_.n_features();
  switch (source_.dtype) {
    case DType::f16: return convert_row<Half>(start, offsets, contiguous_, n, out);
    case DType::bf16: return convert_row<Bfloat>(start, offsets, contiguous_, n, out);
    case DType::f32: return convert_row<float>(start, offsets, contiguous_, n, out);
    case DType::f64: return convert_row<double>(start, offsets, contiguous_, n, out);
    case DType::boolean:
    case DType::u8: return convert_row<std::uint8_t>(start, offsets, contiguous_, n, out);
    case DType::i8: return convert_row<std::int8_t>(start, offsets, contiguous_, n, out);
    case DType::i16: return convert_row<std::int16_t>(start, offsets, contiguous_, n, out);
    case DType::u16: return convert_row<std::uint16_t>(start, offsets, contiguous_, n, out);
    case DType::i32: return convert_row<std::int32_t>(start, offsets, contiguous_, n, out);
    case DType::u32: return convert_row<std::uint32_t>(start, offsets, contiguous_, n, out);
    case DType::i64: return convert_row<std::int64_t>(start, offsets, contiguous_, n, out);
    case DType::u64: return convert_row<std::uint64_t>(start, offsets, contiguous_, n, out);
  }
  throw InvalidArgument("unknown dtype");
}

template <class T>
std::int64_t RowReader<T>::find_inexact(const std::int64_t* rows, std::int64_t begin,
                                        std::int64_t end) const {
  if (source_.dtype != DType::i64 && source_.dtype != DType::u64) return -1;
  constexpr std::int64_t kLimit = std::int64_t{1} << 53;
  for (std::int64_t i = begin; i < end; ++i) {
    const std::int64_t r = rows != nullptr ? rows[i] : i;
    for (std::int64_t offset : source_.feature_offsets_in_bytes) {
      std::int64_t value;
      std::memcpy(&value, address(r) + offset, sizeof(value));
      // As a signed number a huge unsigned one is negative and far below -2^53, or above 2^53.
      const bool huge_unsigned = source_.dtype == DType::u64 && value < 0;
      if (huge_unsigned || value > kLimit || value < -kLimit) return r;
    }
  }
  return -1;
}

template class RowReader<float>;
template class RowReader<double>;

}  // namespace ddkern
