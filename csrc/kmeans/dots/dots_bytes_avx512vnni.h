// SPDX-License-Identifier: Apache-2.0
// Products of bytes, four a lane and instruction, or of 16 bits, two, for the files of dots whose
// level has VNNI.
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
using ddkern::kmeans::kHalfBlock;

// GCC 12 copies the accumulators of the intrinsics around in every iteration, at half the speed.
template <bool kWide>
inline void add_products(__m512i& sum, __m512i points, __m512i column) {
  if constexpr (kWide) {
    asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(points), "v"(column));
  } else {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(points), "v"(column));
  }
}

constexpr int kWordsAhead = 24;  // 3 KiB

// At most this many columns at a time, for the whole block and for half of it: their integer sums
// of a run and their floating-point sums over runs fill the registers together.
constexpr int kByteColumns = 6, kByteColumnsOfHalf = 12;

template <bool kWide, int kWidth, int kVectors>
inline void add_run(const std::uint32_t* point, const std::uint32_t* const* column_at,
                    const ByteRun& run, __m512i (&sums)[kWidth][kVectors]) {
  for (std::int64_t w = 0; w < run.n_words; ++w, point += kBlockPoints) {
    __m512i at[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      at[v] = _mm512_loadu_si512(point + 16 * v);
      // One of two lines side by side defeats the hardware's prefetcher; both are its business.
      if constexpr (kVectors == 1) __builtin_prefetch(point + kWordsAhead * kBlockPoints);
    }
#pragma GCC unroll 16
    for (int c = 0; c < kWidth; ++c) {
      const __m512i column = _mm512_set1_epi32(static_cast<int>(column_at[c][run.column_word + w]));
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) add_products<kWide>(sums[c][v], at[v], column);
    }
  }
}

template <int kWidth, int kVectors>
inline void byte_dot_columns(const ByteDotsArgs& args, const std::int32_t* columns) {
  const ByteRun* const runs = args.runs;
  const std::int64_t n_runs = args.n_runs;
  const std::uint32_t* column_at[kWidth];
  __m512 totals[kWidth][kVectors];
#pragma GCC unroll 16
  for (int c = 0; c < kWidth; ++c) {
    column_at[c] = args.packed + columns[c] * args.column_stride;
    const float* sum = args.out + columns[c] * std::int64_t{kBlockPoints};
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      totals[c][v] = args.begin > 0 ? _mm512_loadu_ps(sum + 16 * v) : _mm512_setzero_ps();
    }
  }
  for (std::int64_t r = args.begin; r < args.end; ++r) {
    const ByteRun run = runs[r];
    __m512i sums[kWidth][kVectors];
#pragma GCC unroll 16
    for (int c = 0; c < kWidth; ++c) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        sums[c][v] = _mm512_set1_epi32(static_cast<int>(column_at[c][n_runs + r]));
      }
    }
    const std::uint32_t* point = args.points + run.point_word * kBlockPoints;
    if (run.wide) {
      add_run<true>(point, column_at, run, sums);
    } else {
      add_run<false>(point, column_at, run, sums);
    }
#pragma GCC unroll 16
    for (int c = 0; c < kWidth; ++c) {
      float scale;
      std::memcpy(&scale, column_at[c] + r, sizeof(scale));
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        totals[c][v] =
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[c][v]), _mm512_set1_ps(scale), totals[c][v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int c = 0; c < kWidth; ++c) {
    float* out = args.out + columns[c] * std::int64_t{kBlockPoints};
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) _mm512_storeu_ps(out + 16 * v, totals[c][v]);
  }
}

template <int kWidth, int kVectors>
inline void dispatch_byte_width(const ByteDotsArgs& args, const std::int32_t* columns,
                                std::int64_t width) {
  if constexpr (kWidth > 1) {
    if (width < kWidth) return dispatch_byte_width<kWidth - 1, kVectors>(args, columns, width);
  }
  byte_dot_columns<kWidth, kVectors>(args, columns);
}

template <int kMaxWidth, int kVectors>
inline void byte_dots(const ByteDotsArgs& args) {
  const std::int64_t n_parts = (args.n_columns + kMaxWidth - 1) / kMaxWidth;
  for (std::int64_t part = 0; part < n_parts; ++part) {
    const std::int64_t begin = args.n_columns * part / n_parts;
    const std::int64_t end = args.n_columns * (part + 1) / n_parts;
    dispatch_byte_width<kMaxWidth, kVectors>(args, args.columns + begin, end - begin);
  }
}

void fast_bytes(const ByteDotsArgs& args) noexcept {
  if (args.n_points == kHalfBlock) return byte_dots<kByteColumnsOfHalf, 1>(args);
  byte_dots<kByteColumns, 2>(args);
}

}  // namespace
