// SPDX-License-Identifier: Apache-2.0
// The body of the dots kernels, shared by the float32 levels. Internal linkage only.
//
// kVectors registers of points against `width` broadcast columns: every loaded vector serves
// `width` products and every broadcast kVectors, which keeps both FMA ports busy from L2. `width`
// is a template argument so that the accumulators stay in registers; at most kMaxWidth of them fit,
// and wider tiles are cut evenly.
#pragma once

#include "kmeans/block.h"
#include "kmeans/dots/dots.h"

namespace {

using ddkern::kmeans::DotsArgs;
using ddkern::kmeans::kBlockPoints;
using ddkern::kmeans::kHalfBlock;

// Simd: Vector, Scalar, kLanes, kVectors, kMaxWidth, zero(), load(), broadcast(), load_sum(),
// store(), accumulate(acc, point, column).
template <class Simd, int kWidth>
inline void dot_columns(const typename Simd::Scalar* points, const void* const* columns,
                        std::int64_t column_offset, std::int64_t column_stride, std::int64_t depth,
                        const std::int32_t* rows, float* out, bool resume) {
  const typename Simd::Scalar* column_at[kWidth];
#pragma GCC unroll 16
  for (int c = 0; c < kWidth; ++c) {
    column_at[c] = static_cast<const typename Simd::Scalar*>(columns[c]) + column_offset;
  }
  typename Simd::Accumulator sums[kWidth][Simd::kVectors];
#pragma GCC unroll 16
  for (int c = 0; c < kWidth; ++c) {
#pragma GCC unroll 4
    for (int v = 0; v < Simd::kVectors; ++v) {
      sums[c][v] =
          resume ? Simd::load_sum(out + rows[c] * kBlockPoints + v * Simd::kLanes) : Simd::zero();
    }
  }
  for (std::int64_t d = 0; d < depth; ++d) {
    typename Simd::Vector point[Simd::kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < Simd::kVectors; ++v) {
      point[v] = Simd::load(points + d * kBlockPoints + v * Simd::kLanes);
    }
#pragma GCC unroll 16
    for (int c = 0; c < kWidth; ++c) {
      const typename Simd::Vector column = Simd::broadcast(column_at[c] + d * column_stride);
#pragma GCC unroll 4
      for (int v = 0; v < Simd::kVectors; ++v) {
        sums[c][v] = Simd::accumulate(sums[c][v], point[v], column);
      }
    }
  }
#pragma GCC unroll 16
  for (int c = 0; c < kWidth; ++c) {
#pragma GCC unroll 4
    for (int v = 0; v < Simd::kVectors; ++v) {
      Simd::store(out + rows[c] * kBlockPoints + v * Simd::kLanes, sums[c][v]);
    }
  }
}

template <class Simd, int kWidth>
inline void dispatch_width(int width, const typename Simd::Scalar* points,
                           const void* const* columns, std::int64_t column_offset,
                           std::int64_t column_stride, std::int64_t depth, const std::int32_t* rows,
                           float* out, bool resume) {
  if constexpr (kWidth > 1) {
    if (width < kWidth) {
      return dispatch_width<Simd, kWidth - 1>(width, points, columns, column_offset, column_stride,
                                              depth, rows, out, resume);
    }
  }
  dot_columns<Simd, kWidth>(points, columns, column_offset, column_stride, depth, rows, out,
                            resume);
}

// Where registers hold a part of the block or of the columns, all parts go through so many words
// of the depth before the next ones: what the passes share (16 KiB of points) stays in the first
// cache, instead of coming from the last one for each of them.
constexpr std::int64_t kDepthOfPasses = 128;

// For half a block, of which more registers would be too many.
template <class Simd>
struct OneVector : Simd {
  static constexpr int kVectors = 1;
};

template <class Simd>
inline void dot_tile(const DotsArgs& args) noexcept {
  if constexpr (Simd::kLanes * Simd::kVectors > kHalfBlock) {
    if (args.n_points == kHalfBlock) return dot_tile<OneVector<Simd>>(args);
  }
  const auto* points = static_cast<const typename Simd::Scalar*>(args.points);
  constexpr int kSpan = Simd::kLanes * Simd::kVectors;
  const int n_parts = (args.width + Simd::kMaxWidth - 1) / Simd::kMaxWidth;
  const bool in_one_pass = n_parts == 1 && args.n_points <= kSpan;
  const std::int64_t step = in_one_pass ? args.depth : kDepthOfPasses;
  std::int64_t first = 0;
  do {
    const std::int64_t left = args.depth - first, depth = left < step ? left : step;
    for (int part = 0; part < n_parts; ++part) {
      const int begin = args.width * part / n_parts;
      const int end = args.width * (part + 1) / n_parts;
      for (int p = 0; p < args.n_points; p += kSpan) {
        dispatch_width<Simd, Simd::kMaxWidth>(end - begin, points + first * kBlockPoints + p,
                                              args.columns + begin, first * args.column_stride,
                                              args.column_stride, depth, args.rows + begin,
                                              args.out + p, args.resume || first > 0);
      }
    }
    first += step;
  } while (first < args.depth);
}

template <class Simd>
inline void norms_of_block(const float* points, std::int64_t n_features, float* out) noexcept {
  for (int p = 0; p < kBlockPoints; p += Simd::kLanes) {
    typename Simd::Accumulator sum = Simd::zero();
    for (std::int64_t d = 0; d < n_features; ++d) {
      const typename Simd::Vector point = Simd::load(points + d * kBlockPoints + p);
      sum = Simd::accumulate(sum, point, point);
    }
    Simd::store(out + p, sum);
  }
}

}  // namespace
