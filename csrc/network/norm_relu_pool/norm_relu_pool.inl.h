// SPDX-License-Identifier: Apache-2.0
// The body of norm_relu_pool. Internal linkage only.
#pragma once

#include "core/simd/bfloat16.h"
#include "network/norm_relu_pool/norm_relu_pool.h"

namespace {

using namespace ddkern::simd;
using ddkern::Bfloat16;
using ddkern::network::NormReluPoolBackward;
using ddkern::network::NormReluPoolForward;

// 2 * kPairs registers of neighbouring channels; where not kWhole, only the first n of them exist.
// Two registers hold the even and the odd channels of a pair (core/simd/bfloat16.h), or the lower
// and the upper half of it: values a channel and values a pixel of one type go together.
template <class T, int kPairs, bool kWhole>
struct Channels {
  static constexpr int kRegisters = 2 * kPairs;
  static constexpr int kSize = kRegisters * kFloats;
  int n = kSize;

  std::size_t bytes(std::size_t item) const { return item * static_cast<std::size_t>(n); }

  void load_pixel(const T* from, floats (&v)[kRegisters]) const {
    if constexpr (kWhole) {
      take_apart(from, v);
    } else {
      alignas(64) T copy[kSize] = {};
      std::memcpy(copy, from, bytes(sizeof(T)));
      take_apart(copy, v);
    }
  }
  void store_pixel(const floats (&v)[kRegisters], T* to) const {
    if constexpr (kWhole) {
      put_together(v, to);
    } else {
      alignas(64) T copy[kSize];
      put_together(v, copy);
      std::memcpy(to, copy, bytes(sizeof(T)));
    }
  }
  // float32 values, one a channel, in the registers that pixels put their channels in.
  void load_each(const float* from, floats (&v)[kRegisters]) const {
    alignas(64) float copy[kSize] = {};
    std::memcpy(copy, from, bytes(sizeof(float)));
    for (int p = 0; p < kPairs; ++p) {
      const float* at = copy + 2 * p * kFloats;
      if constexpr (sizeof(T) == sizeof(Bfloat16)) {
        deinterleave(at, v[2 * p], v[2 * p + 1]);
      } else {
        v[2 * p] = load<floats>(at);
        v[2 * p + 1] = load<floats>(at + kFloats);
      }
    }
  }
  void store_each(const floats (&v)[kRegisters], float* to) const {
    alignas(64) float copy[kSize];
    for (int p = 0; p < kPairs; ++p) {
      float* at = copy + 2 * p * kFloats;
      if constexpr (sizeof(T) == sizeof(Bfloat16)) {
        interleave(v[2 * p], v[2 * p + 1], at);
      } else {
        store(at, v[2 * p]);
        store(at + kFloats, v[2 * p + 1]);
      }
    }
    std::memcpy(to, copy, bytes(sizeof(float)));
  }

 private:
  static void take_apart(const float* from, floats (&v)[kRegisters]) {
    for (int r = 0; r < kRegisters; ++r) v[r] = load<floats>(from + r * kFloats);
  }
  static void take_apart(const Bfloat16* from, floats (&v)[kRegisters]) {
    for (int p = 0; p < kPairs; ++p) {
      widen_bfloat16(from + 2 * p * kFloats, v[2 * p], v[2 * p + 1]);
    }
  }
  static void put_together(const floats (&v)[kRegisters], float* to) {
    for (int r = 0; r < kRegisters; ++r) store(to + r * kFloats, v[r]);
  }
  static void put_together(const floats (&v)[kRegisters], Bfloat16* to) {
    for (int p = 0; p < kPairs; ++p) {
      narrow_to_bfloat16(v[2 * p], v[2 * p + 1], to + 2 * p * kFloats);
    }
  }
};

// max(v, 0), where NaN stays NaN.
inline floats rectify(const floats& v) {
#if defined(__AVX512F__)
  return (floats)_mm512_max_ps(_mm512_setzero_ps(), (__m512)v);
#else
  const floats zero = {};
  return zero > v ? zero : v;
#endif
}

// g where rectify(z) has the slope 1: not where z <= 0, and NaN passes.
inline floats pass(const floats& z, const floats& g) {
#if defined(__AVX512F__)
  return (floats)_mm512_maskz_mov_ps(
      _mm512_cmp_ps_mask((__m512)z, _mm512_setzero_ps(), _CMP_NLE_UQ), (__m512)g);
#else
  const floats zero = {};
  return z <= zero ? zero : g;
#endif
}

template <class T, class C>
inline void forward_channels(const NormReluPoolForward<T>& args, std::int64_t first, const C& own) {
  constexpr int kRegisters = C::kRegisters;
  const auto [h, w, c] = args.shape;
  const T* const x = args.x + first;
  const std::int64_t row = w * c;
  const auto n_pixels = static_cast<float>(h * w);

  floats mean[kRegisters] = {};
  for (std::int64_t i = 0; i < h; ++i) {
    floats sum[kRegisters] = {}, a[kRegisters], b[kRegisters];
    const T* at = x + i * row;
    std::int64_t j = 0;
    for (; j + 2 <= w; j += 2, at += 2 * c) {
      own.load_pixel(at, a);
      own.load_pixel(at + c, b);
      for (int r = 0; r < kRegisters; ++r) sum[r] += a[r] + b[r];
    }
    if (j < w) {
      own.load_pixel(at, a);
      for (int r = 0; r < kRegisters; ++r) sum[r] += a[r];
    }
    for (int r = 0; r < kRegisters; ++r) mean[r] += sum[r];
  }
  for (int r = 0; r < kRegisters; ++r) mean[r] /= n_pixels;

  floats drift[kRegisters] = {}, squares[kRegisters] = {};
  for (std::int64_t i = 0; i < h; ++i) {
    floats sum[kRegisters] = {}, sum_sq[kRegisters] = {}, a[kRegisters], b[kRegisters];
    const T* at = x + i * row;
    std::int64_t j = 0;
    for (; j + 2 <= w; j += 2, at += 2 * c) {
      own.load_pixel(at, a);
      own.load_pixel(at + c, b);
      for (int r = 0; r < kRegisters; ++r) {
        const floats d = a[r] - mean[r], e = b[r] - mean[r];
        sum[r] += d + e;
        sum_sq[r] += d * d + e * e;
      }
    }
    if (j < w) {
      own.load_pixel(at, a);
      for (int r = 0; r < kRegisters; ++r) {
        const floats d = a[r] - mean[r];
        sum[r] += d;
        sum_sq[r] += d * d;
      }
    }
    for (int r = 0; r < kRegisters; ++r) {
      drift[r] += sum[r];
      squares[r] += sum_sq[r];
    }
  }

  floats scale[kRegisters], bias[kRegisters], rstd[kRegisters];
  own.load_each(args.weight + first, scale);
  own.load_each(args.bias + first, bias);
  for (int r = 0; r < kRegisters; ++r) {
    const floats off = drift[r] / n_pixels;
    // Rounding may leave a constant plane a little below 0, which has no root.
    const floats variance = rectify((squares[r] - drift[r] * off) / n_pixels);
    mean[r] += off;
    rstd[r] = 1.0f / square_root(variance + args.eps);
    scale[r] *= rstd[r];
  }
  own.store_each(mean, args.mean + first);
  own.store_each(rstd, args.rstd + first);

  T* out = args.out + first;
  for (std::int64_t i = 0; i + 2 <= h; i += 2) {
    const T* at = x + i * row;
    for (std::int64_t j = 0; j + 2 <= w; j += 2, at += 2 * c, out += c) {
      floats sum[kRegisters], left[kRegisters], right[kRegisters];
      for (int k = 0; k < 2; ++k) {
        own.load_pixel(at + k * row, left);
        own.load_pixel(at + k * row + c, right);
        for (int r = 0; r < kRegisters; ++r) {
          const floats pair = rectify((left[r] - mean[r]) * scale[r] + bias[r]) +
                              rectify((right[r] - mean[r]) * scale[r] + bias[r]);
          sum[r] = k == 0 ? pair : (sum[r] + pair) * 0.25f;
        }
      }
      own.store_pixel(sum, out);
    }
  }
}

template <class T, class C>
inline void backward_channels(const NormReluPoolBackward<T>& args, std::int64_t first,
                              const C& own) {
  constexpr int kRegisters = C::kRegisters;
  const auto [h, w, c] = args.shape;
  const T* const x = args.x + first;
  const std::int64_t row = w * c;
  const auto n_pixels = static_cast<float>(h * w);

  floats mean[kRegisters], rstd[kRegisters], scale[kRegisters], bias[kRegisters];
  own.load_each(args.mean + first, mean);
  own.load_each(args.rstd + first, rstd);
  own.load_each(args.weight + first, scale);
  own.load_each(args.bias + first, bias);
  for (int r = 0; r < kRegisters; ++r) scale[r] *= rstd[r];

  floats sum_g[kRegisters] = {}, sum_gd[kRegisters] = {};
  const T* grad_out = args.grad_out + first;
  for (std::int64_t i = 0; i + 2 <= h; i += 2) {
    const T* at = x + i * row;
    floats row_g[kRegisters] = {}, row_gd[kRegisters] = {};
    for (std::int64_t j = 0; j + 2 <= w; j += 2, at += 2 * c, grad_out += c) {
      floats g[kRegisters], left[kRegisters], right[kRegisters];
      own.load_pixel(grad_out, g);
      for (int r = 0; r < kRegisters; ++r) g[r] *= 0.25f;
      for (int k = 0; k < 2; ++k) {
        own.load_pixel(at + k * row, left);
        own.load_pixel(at + k * row + c, right);
        for (int r = 0; r < kRegisters; ++r) {
          const floats d = left[r] - mean[r], e = right[r] - mean[r];
          const floats of_d = pass(d * scale[r] + bias[r], g[r]);
          const floats of_e = pass(e * scale[r] + bias[r], g[r]);
          row_g[r] += of_d + of_e;
          row_gd[r] += of_d * d + of_e * e;
        }
      }
    }
    for (int r = 0; r < kRegisters; ++r) {
      sum_g[r] += row_g[r];
      sum_gd[r] += row_gd[r];
    }
  }
  floats mean_g[kRegisters], slope[kRegisters];
  for (int r = 0; r < kRegisters; ++r) {
    sum_gd[r] *= rstd[r];
    mean_g[r] = sum_g[r] / n_pixels;
    slope[r] = rstd[r] * (sum_gd[r] / n_pixels);
  }
  own.store_each(sum_gd, args.sum_gu + first);
  own.store_each(sum_g, args.sum_g + first);
  if (args.grad_x == nullptr) return;

  T* const grad_x = args.grad_x + first;
  grad_out = args.grad_out + first;
  // Pixel `at`, where g has come back through pooling.
  const auto put = [&](std::int64_t at, const floats(&g)[kRegisters]) {
    floats v[kRegisters];
    own.load_pixel(x + at, v);
    for (int r = 0; r < kRegisters; ++r) {
      const floats d = v[r] - mean[r];
      const floats passed = pass(d * scale[r] + bias[r], g[r]);
      v[r] = ((passed - mean_g[r]) - d * slope[r]) * scale[r];
    }
    own.store_pixel(v, grad_x + at);
  };
  const floats none[kRegisters] = {};
  std::int64_t i = 0;
  for (; i + 2 <= h; i += 2) {
    std::int64_t at = i * row, j = 0;
    for (; j + 2 <= w; j += 2, at += 2 * c, grad_out += c) {
      floats g[kRegisters];
      own.load_pixel(grad_out, g);
      for (int r = 0; r < kRegisters; ++r) g[r] *= 0.25f;
      put(at, g);
      put(at + c, g);
      put(at + row, g);
      put(at + row + c, g);
    }
    if (j < w) {
      put(at, none);
      put(at + row, none);
    }
  }
  if (i < h) {
    for (std::int64_t j = 0; j < w; ++j) put(i * row + j * c, none);
  }
}

// run(first, channels) for [begin, end) in blocks: 4 registers at a time, then 2.
template <class T, class Run>
inline void for_channels(std::int64_t begin, std::int64_t end, const Run& run) {
  const Channels<T, 2, true> four;
  const Channels<T, 1, true> two;
  for (; begin + four.kSize <= end; begin += four.kSize) run(begin, four);
  for (; begin + two.kSize <= end; begin += two.kSize) run(begin, two);
  if (begin < end) run(begin, Channels<T, 1, false>{static_cast<int>(end - begin)});
}

template <class T>
void forward(const NormReluPoolForward<T>& args) noexcept {
  for_channels<T>(args.begin, args.end,
                  [&](std::int64_t first, const auto& own) { forward_channels(args, first, own); });
}

template <class T>
void backward(const NormReluPoolBackward<T>& args) noexcept {
  for_channels<T>(args.begin, args.end, [&](std::int64_t first, const auto& own) {
    backward_channels(args, first, own);
  });
}

}  // namespace
