// SPDX-License-Identifier: Apache-2.0
// What a pass over the scores of a row keeps: the columns of the least lower bounds.
#pragma once

#include "kmeans/cuda/arithmetic.cuh"

namespace ddkern::kmeans::cuda {

constexpr float kProductUnit = 0x1p-26f;  // 2^-13 of either packed operand
static_assert(kHalfScaleBits == 13);

// The roundings of a bound are in its parts already (update.cu).
inline __device__ float score_of(const CellBound& bound, float product) {
  return bound.base - 2 * product;
}
inline __device__ float error_of(const CellBound& bound, float row_lost, float row_norm) {
  return __fmaf_rn(row_norm, bound.norm, __fmaf_rn(row_lost, bound.lost, bound.rest));
}

// Numbers that leave float32's comfort: nothing is certain of such a row.
inline __device__ bool is_wild(float row_norm) { return !(row_norm < 0x1p40f); }

// `limit` is the least upper bound so far: whose lower bound is above it has lost.
template <int kKept>
struct LeastScores {
  float limit = INFINITY;
  float least[kKept];
  int column[kKept];

  __device__ LeastScores() {
#pragma unroll
    for (int s = 0; s < kKept; ++s) {
      least[s] = INFINITY;
      column[s] = 0;
    }
  }
  __device__ void add(int c, float score, float error) {
    limit = fminf(limit, score + error);
    insert(c, score - error);
  }
  // Those above the limit are not worth a place: it only falls.
  __device__ void insert(int c, float lower) {
    if (!(lower <= limit && lower < least[kKept - 1])) return;
    least[kKept - 1] = lower;
    column[kKept - 1] = c;
#pragma unroll
    for (int s = kKept - 1; s > 0; --s) {
      if (!(least[s] < least[s - 1])) break;
      const float swapped = least[s];
      least[s] = least[s - 1];
      least[s - 1] = swapped;
      const int other = column[s];
      column[s] = column[s - 1];
      column[s - 1] = other;
    }
  }
  __device__ bool open() const { return least[1] <= limit; }
};

// Writes the cell of a row where it is certain; else the row goes on the list of open ones.
template <class T, int kKept>
__device__ void decide(const Chunk<T>& chunk, int group, std::int64_t position, std::int64_t scores,
                       bool wild, const LeastScores<kKept>& found) {
  chunk.before[position] = chunk.assignment[position];
  if (!wild && !found.open()) {
    chunk.assignment[position] = found.column[0];
    return;
  }
  OpenRow entry;
  entry.scores = scores;
  entry.group = group;
  entry.position = position;
  entry.limit = found.limit;
  entry.n_columns = 2;
  if (kKept > 3 && found.least[2] <= found.limit) entry.n_columns = 3;
  if (wild || found.least[kKept - 1] <= found.limit) entry.n_columns = 0;
  // Ascending, so that an exact tie keeps the lowest.
  const int a = found.column[0], b = found.column[1];
  const int c = entry.n_columns == 3 ? found.column[2] : 0x7fffffff;
  entry.columns[0] = min(a, min(b, c));
  entry.columns[2] = max(a, max(b, c));
  entry.columns[1] = a ^ b ^ c ^ entry.columns[0] ^ entry.columns[2];
  chunk.open[atomicAdd(chunk.n_open, 1)] = entry;
}

}  // namespace ddkern::kmeans::cuda
