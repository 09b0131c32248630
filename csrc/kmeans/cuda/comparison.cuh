// SPDX-License-Identifier: Apache-2.0
// Which of two cells is nearer to a row: float64 distances with their bound, and real arithmetic
// where that cannot tell. By a warp, of which all lanes call and have the answer.
#pragma once

#include "kmeans/cuda/arithmetic.cuh"

namespace ddkern::kmeans::cuda {

using ddkern::cuda::Sum;
using ddkern::cuda::warp_reduce;

constexpr double kSmallestCertain = 0x1p-900;  // squares of less may have lost digits

// A sum of products of doubles without rounding (Kulisch's long accumulator), spread over a warp:
// every lane has limbs of its own, [limb][lane], which are added at the end.
constexpr int kLowestExponent = 2 * -1074;
constexpr int kLimbs = (2 * 1074 + 2 * 1024 + 64) / 32 + 6;
constexpr std::size_t kLimbBytes = sizeof(std::int64_t) * kLimbs * kWarp;

inline __device__ void add_product(std::int64_t* limbs, double a, double b, bool negative) {
  const double factors[2] = {a, b};
  std::uint64_t mantissa[2];
  int position = -kLowestExponent;
#pragma unroll
  for (int f = 0; f < 2; ++f) {
    const auto bits = static_cast<std::uint64_t>(__double_as_longlong(factors[f]));
    const int biased = static_cast<int>((bits >> 52) & 0x7ff);
    const std::uint64_t fraction = bits & ((std::uint64_t{1} << 52) - 1);
    mantissa[f] = biased == 0 ? fraction : fraction | (std::uint64_t{1} << 52);
    position += biased == 0 ? -1074 : biased - 1075;
    negative = negative != ((bits >> 63) != 0);
  }
  if (mantissa[0] == 0 || mantissa[1] == 0) return;
  // 53 by 53 bits in 32-bit pieces; the high ones have 21 bits.
  const std::uint64_t a0 = mantissa[0] & 0xffffffffu, a1 = mantissa[0] >> 32;
  const std::uint64_t b0 = mantissa[1] & 0xffffffffu, b1 = mantissa[1] >> 32;
  const std::uint64_t low = a0 * b0, cross = a1 * b0 + (low >> 32),
                      cross2 = a0 * b1 + (cross & 0xffffffffu);
  const std::uint64_t high = a1 * b1 + (cross >> 32) + (cross2 >> 32);
  const std::uint32_t words[4] = {
      static_cast<std::uint32_t>(low), static_cast<std::uint32_t>(cross2),
      static_cast<std::uint32_t>(high), static_cast<std::uint32_t>(high >> 32)};
  const int limb = position / 32, shift = position % 32;
  std::uint64_t carried = 0;
#pragma unroll
  for (int w = 0; w < 5; ++w) {
    const std::uint64_t shifted = (w < 4 ? std::uint64_t{words[w]} << shift : 0) | carried;
    const auto word = static_cast<std::int64_t>(shifted & 0xffffffffu);
    carried = shifted >> 32;
    limbs[(limb + w) * kWarp] += negative ? -word : word;
  }
}

// The sign of ||x - a||^2 - ||x - b||^2 in real arithmetic; all lanes call it and have the answer.
template <class T>
__device__ int compare_exactly(const T* x, const T* a, const T* b, int n, std::int64_t* limbs) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  std::int64_t* mine = limbs + lane;
  for (int l = 0; l < kLimbs; ++l) mine[l * kWarp] = 0;
  for (int j = lane; j < n; j += kWarp) {
    const double xj = x[j], aj = a[j], bj = b[j];
    if (aj == bj) continue;
    add_product(mine, aj, aj, false);
    add_product(mine, bj, bj, true);
    add_product(mine, xj, aj, true);
    add_product(mine, xj, aj, true);
    add_product(mine, xj, bj, false);
    add_product(mine, xj, bj, false);
  }
  // Limbs of all lanes together, carried upwards: in [0, 2^32) but for the highest, which has the
  // sign.
  std::int64_t carried = 0;
  bool any = false;
  for (int l = 0; l < kLimbs; ++l) {
    const std::int64_t sum = warp_reduce(mine[l * kWarp], Sum{}) + carried;
    if (l == kLimbs - 1) return sum < 0 ? -1 : (sum > 0 || any ? 1 : 0);
    carried = sum >> 32;
    any = any || (sum & 0xffffffffll) != 0;
  }
  return 0;
}

// Squared distances of a row to kCells cells by a warp, in any order.
template <class T, int kCells>
__device__ void distances_by_warp(const T* x, const T* const (&cells)[kCells], double scale, int n,
                                  double (&distances)[kCells]) {
  double sums[kCells] = {};
#pragma unroll 4
  for (int j = static_cast<int>(threadIdx.x) % kWarp; j < n; j += kWarp) {
    const double value = static_cast<double>(x[j]) * scale;
#pragma unroll
    for (int c = 0; c < kCells; ++c) {
      const double r = value - static_cast<double>(cells[c][j]) * scale;
      sums[c] += r * r;
    }
  }
#pragma unroll
  for (int c = 0; c < kCells; ++c) distances[c] = warp_reduce(sums[c], Sum{});
}

template <class T>
struct Comparison {
  const T* x;
  const T* cells;
  double scale, relative_error;
  int n;
  std::int64_t* limbs;  // kLimbs a lane, or null: what float64 cannot tell is `unclear`
  bool unclear = false;

  __device__ Comparison(const Chunk<T>& chunk, int group, std::int64_t position,
                        std::int64_t* limbs_)
      : x(chunk.row(position)),
        cells(chunk.centroids + chunk.shapes[group].first_cell * chunk.n_features),
        scale(chunk.frames[group].scale),
        // Roundings of a difference, its square, and the sum over a lane and over the lanes.
        relative_error((chunk.n_features / kWarp + 16) * 0x1p-52), n(chunk.n_features),
        limbs(limbs_) {}

  __device__ const T* cell(int c) const { return cells + static_cast<std::int64_t>(c) * n; }

  // Negative columns have any distance; the first is not.
  template <int kCells>
  __device__ void distances(const int (&columns)[kCells], double (&found)[kCells]) const {
    const T* vectors[kCells];
#pragma unroll
    for (int c = 0; c < kCells; ++c) vectors[c] = cell(columns[c] < 0 ? columns[0] : columns[c]);
    distances_by_warp(x, vectors, scale, n, found);
  }

  // Whether float64 tells which distance is the smaller one.
  __device__ bool clear(double distance_a, double distance_b) const {
    const double low = fmin(distance_a, distance_b), high = fmax(distance_a, distance_b);
    return low * (1 + relative_error) < high * (1 - relative_error) && high > kSmallestCertain &&
           distance_a == distance_a;
  }

  // Whether cell a is nearer than b, given their distances. Without limbs a guess if `unclear`.
  __device__ bool nearer(int a, double distance_a, int b, double distance_b) {
    if (clear(distance_a, distance_b)) return distance_a < distance_b;
    unclear = true;
    return limbs != nullptr && compare_exactly(x, cell(a), cell(b), n, limbs) < 0;
  }
};

}  // namespace ddkern::kmeans::cuda
