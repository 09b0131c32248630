// SPDX-License-Identifier: Apache-2.0
// What a pass over the scores of a row keeps: the columns of the least lower bounds. And which
// columns of a row that this leaves open may still win.
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
  int column[kKept - 1];  // the last place only tells that there are more

  __device__ LeastScores() {
#pragma unroll
    for (int s = 0; s < kKept; ++s) least[s] = INFINITY;
#pragma unroll
    for (int s = 0; s < kKept - 1; ++s) column[s] = 0;
  }
  __device__ void add(int c, float score, float error) {
    limit = fminf(limit, score + error);
    insert(c, score - error);
  }
  // Those above the limit are not worth a place: it only falls.
  __device__ void insert(int c, float lower) {
    if (!(lower <= limit && lower < least[kKept - 1])) return;
    least[kKept - 1] = lower;
    if (!(lower < least[kKept - 2])) return;
    least[kKept - 1] = least[kKept - 2];
    least[kKept - 2] = lower;
    column[kKept - 2] = c;
#pragma unroll
    for (int s = kKept - 2; s > 0; --s) {
      if (!(least[s] < least[s - 1])) break;
      const float swapped = least[s];
      least[s] = least[s - 1];
      least[s - 1] = swapped;
      const int other = column[s];
      column[s] = column[s - 1];
      column[s - 1] = other;
    }
  }
  // What another thread found among other columns. Its last place has no column: with the other
  // places it is above the limit, or there are too many either way.
  __device__ void join(float other_limit, const float (&other_least)[kKept],
                       const int (&other_column)[kKept - 1]) {
    limit = fminf(limit, other_limit);
#pragma unroll
    for (int s = 0; s < kKept - 1; ++s) insert(other_column[s], other_least[s]);
    insert(0, other_least[kKept - 1]);
  }
  __device__ bool open() const { return least[1] <= limit; }
};

// Writes the cell of a row where it is certain; else the row goes on the list of open ones.
template <int kKept>
__device__ void decide(const ChunkTables& chunk, int group, std::int64_t position,
                       std::int64_t scores, bool wild, const LeastScores<kKept>& found) {
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
  int c = 0x7fffffff;
  if constexpr (kKept > 3) c = entry.n_columns == 3 ? found.column[2] : c;
  entry.columns[0] = min(a, min(b, c));
  entry.columns[2] = max(a, max(b, c));
  entry.columns[1] = a ^ b ^ c ^ entry.columns[0] ^ entry.columns[2];
  chunk.open[atomicAdd(chunk.n_open, 1)] = entry;
}

// --- open rows ---------------------------------------------------------------------------------

// <Y, C> by one thread, for scores that were not kept. A sum of floats one after the other is
// within the bound of products.h.
inline __device__ float packed_product(const ChunkTables& chunk, std::int64_t position,
                                       std::int64_t cell) {
  const __half* row = chunk.halves + position * chunk.n_padded;
  const __half* other = chunk.cell_halves + cell * chunk.n_padded;
  float sum = 0;
  for (int j = 0; j < chunk.n_padded; j += 8) {
    __half a[8], b[8];
    load_aligned(row + j, a);
    load_aligned(other + j, b);
#pragma unroll
    for (int v = 0; v < 8; ++v) sum = __fmaf_rn(__half2float(a[v]), __half2float(b[v]), sum);
  }
  return sum * kProductUnit;
}

// Calls visit(columns) with every column whose lower bound is at most the limit of an open row,
// ascending, kAtOnce at a time; places that are left over are -1, and never the first. Ends early
// where visit() says false. By a warp.
template <int kAtOnce, class T, class Visit>
__device__ __forceinline__ void visit_candidates(const Chunk<T>& chunk, const OpenRow& entry,
                                                 const Visit& visit) {
  const GroupShape& shape = chunk.shapes[entry.group];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const float row_lost = chunk.lost[entry.position], row_norm = chunk.norms[entry.position];
  for (int first = 0; first < shape.k; first += kWarp) {
    const int c = first + lane;
    bool may_win = c < shape.k;
    if (may_win && entry.limit < INFINITY) {
      const std::int64_t cell = shape.first_cell + c;
      const float product =
          entry.scores >= 0 ? chunk.scores[entry.scores + static_cast<std::int64_t>(c) * kTileRows]
                            : packed_product(chunk, entry.position, cell);
      const CellBound bound = chunk.bounds[cell];
      may_win = !(score_of(bound, product) - error_of(bound, row_lost, row_norm) > entry.limit);
    }
    unsigned mask = __ballot_sync(kAllLanes, may_win);
    while (mask != 0) {
      int columns[kAtOnce];
#pragma unroll
      for (int a = 0; a < kAtOnce; ++a) {
        columns[a] = mask != 0 ? first + __ffs(static_cast<int>(mask)) - 1 : -1;
        mask &= mask - 1;
      }
      if (!visit(columns)) return;
    }
  }
}

// --- products and scan in one ------------------------------------------------------------------
// The four neighbouring threads whose lanes differ in the last two bits have the same rows and a
// quarter of the columns each.

// <Y, C> by four neighbouring threads, of which all call it and have it. Sums of floats, shorter
// than those that the bound is for.
inline __device__ float packed_product_by_four(const ChunkTables& chunk, std::int64_t position,
                                               std::int64_t cell) {
  const int part = static_cast<int>(threadIdx.x) % 4;
  const __half* row = chunk.halves + position * chunk.n_padded;
  const __half* other = chunk.cell_halves + cell * chunk.n_padded;
  float sum = 0;
  for (int j = part * 8; j < chunk.n_padded; j += 32) {
    __half a[8], b[8];
    load_aligned(row + j, a);
    load_aligned(other + j, b);
#pragma unroll
    for (int v = 0; v < 8; ++v) sum = __fmaf_rn(__half2float(a[v]), __half2float(b[v]), sum);
  }
  const unsigned mask = 0xfu << (threadIdx.x % 32 / 4 * 4);
  sum += __shfl_xor_sync(mask, sum, 1);
  sum += __shfl_xor_sync(mask, sum, 2);
  return sum * kProductUnit;
}

// An upper bound of a row's least score from the cell that it is in, which is near still and rules
// out most others from the start; infinity in the first pass. By four threads.
inline __device__ float limit_from_before(const ChunkTables& chunk, const GroupShape& shape,
                                          std::int64_t position, float row_lost, float row_norm) {
  const int before = chunk.assignment[position];
  if (before < 0) return INFINITY;
  const std::int64_t cell = shape.first_cell + before;
  const CellBound bound = chunk.bounds[cell];
  return score_of(bound, packed_product_by_four(chunk, position, cell)) +
         error_of(bound, row_lost, row_norm);
}

// Looks at the products sum(row, tile, half) of a thread, in columns 8 * tile + 2 * (lane % 4) +
// half from `first`; they become scores. Bounds of all of them come without a branch; most tiles
// have nothing that may win.
template <int kTiles, int kRows, int kKept, class Product>
__device__ __forceinline__ void scan_tile(LeastScores<kKept> (&found)[kRows],
                                          const float (&row_lost)[kRows],
                                          const float (&row_norm)[kRows], const CellBound* bounds,
                                          int first, int n_columns, const Product& sum) {
  const int lane_column = static_cast<int>(threadIdx.x) % 4 * 2;
  float least[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) least[r] = INFINITY;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    // Bounds of all columns at once would take more registers than there are.
    if (n % 2 == 0) asm volatile("" ::: "memory");
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int column = n * 8 + lane_column + half;
      const CellBound bound = bounds[column];
      const float base = first + column < n_columns ? bound.base : INFINITY;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float& score = sum(r, n, half);
        score = __fmaf_rn(score, -2 * kProductUnit, base);
        const float error = error_of(bound, row_lost[r], row_norm[r]);
        least[r] = fminf(least[r], score - error);
        found[r].limit = fminf(found[r].limit, score + error);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    // What the lanes of a row know together rules out more.
    found[r].limit = fminf(found[r].limit, __shfl_xor_sync(kAllLanes, found[r].limit, 1));
    found[r].limit = fminf(found[r].limit, __shfl_xor_sync(kAllLanes, found[r].limit, 2));
    if (!(least[r] <= found[r].limit)) continue;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      asm volatile("" ::: "memory");
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int column = n * 8 + lane_column + half;
        found[r].insert(first + column,
                        sum(r, n, half) - error_of(bounds[column], row_lost[r], row_norm[r]));
      }
    }
  }
}

// Joins what four threads found and decides; 1 from the first of them where the row is open.
template <int kKept>
__device__ int decide_by_four(const ChunkTables& chunk, const RowTile& tile, int row, bool wild,
                              LeastScores<kKept>& found) {
#pragma unroll
  for (int step = 1; step < 4; step *= 2) {
    float least[kKept];
    int column[kKept - 1];
    const float limit = __shfl_xor_sync(kAllLanes, found.limit, step);
#pragma unroll
    for (int s = 0; s < kKept; ++s) least[s] = __shfl_xor_sync(kAllLanes, found.least[s], step);
#pragma unroll
    for (int s = 0; s < kKept - 1; ++s) {
      column[s] = __shfl_xor_sync(kAllLanes, found.column[s], step);
    }
    found.join(limit, least, column);
  }
  const GroupShape& shape = chunk.shapes[tile.group];
  if (threadIdx.x % 4 != 0 || tile.first + row >= shape.n) return 0;
  decide(chunk, tile.group, shape.begin + tile.first + row, -1, wild, found);
  return wild || found.open() ? 1 : 0;
}

}  // namespace ddkern::kmeans::cuda
