// SPDX-License-Identifier: Apache-2.0
// Products of bytes, four a lane and instruction, for the files of dots whose level has VNNI.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kmeans/block.h"
#include "kmeans/dots/dots.h"

namespace {

using ddkern::kmeans::ByteDotsArgs;
using ddkern::kmeans::ByteRun;
using ddkern::kmeans::kBlockPoints;

// GCC 12 copies the accumulators of the intrinsic around in every iteration, at half the speed.
inline void add_byte_products(__m512i& sum, __m512i points, __m512i column) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(points), "v"(column));
}

// 2 x kWidth integer accumulators fill the registers, so the floating-point sums over runs live in
// `out`, which stays in L1.
template <int kWidth>
inline void byte_dot_columns(const ByteDotsArgs& args) {
  const auto* points = static_cast<const std::uint32_t*>(args.points);
  const std::uint32_t* column_at[kWidth];
#pragma GCC unroll 16
  for (int c = 0; c < kWidth; ++c) {
    column_at[c] = static_cast<const std::uint32_t*>(args.columns[c]);
  }
  for (std::int64_t r = 0; r < args.n_runs; ++r) {
    const ByteRun run = args.runs[r];
    __m512i sums[kWidth][2];
#pragma GCC unroll 16
    for (int c = 0; c < kWidth; ++c) {
      sums[c][0] = sums[c][1] = _mm512_set1_epi32(static_cast<int>(column_at[c][args.n_runs + r]));
    }
    const std::uint32_t* point = points + run.point_word * kBlockPoints;
    for (std::int64_t w = 0; w < run.n_words; ++w, point += kBlockPoints) {
      const __m512i left = _mm512_loadu_si512(point), right = _mm512_loadu_si512(point + 16);
#pragma GCC unroll 16
      for (int c = 0; c < kWidth; ++c) {
        const __m512i column =
            _mm512_set1_epi32(static_cast<int>(column_at[c][run.column_word + w]));
        add_byte_products(sums[c][0], left, column);
        add_byte_products(sums[c][1], right, column);
      }
    }
#pragma GCC unroll 16
    for (int c = 0; c < kWidth; ++c) {
      float scale;
      std::memcpy(&scale, column_at[c] + r, sizeof(scale));
      float* out = args.out + args.rows[c] * kBlockPoints;
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        const __m512 sum = _mm512_cvtepi32_ps(sums[c][v]);
        const __m512 before = r == 0 ? _mm512_setzero_ps() : _mm512_loadu_ps(out + 16 * v);
        _mm512_storeu_ps(out + 16 * v, _mm512_fmadd_ps(sum, _mm512_set1_ps(scale), before));
      }
    }
  }
}

template <int kWidth>
inline void dispatch_byte_width(const ByteDotsArgs& args) {
  if constexpr (kWidth > 1) {
    if (args.width < kWidth) return dispatch_byte_width<kWidth - 1>(args);
  }
  byte_dot_columns<kWidth>(args);
}

void fast_bytes(const ByteDotsArgs& args) noexcept {
  dispatch_byte_width<ddkern::kmeans::kTileColumns>(args);
}

}  // namespace
