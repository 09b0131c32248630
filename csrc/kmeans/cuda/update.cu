// SPDX-License-Identifier: Apache-2.0
#include "kmeans/cuda/update.h"

#include <algorithm>

#include "kmeans/cuda/arithmetic.cuh"
#include "kmeans/cuda/own_distances.cuh"
#include "kmeans/cuda/own_distances.h"

namespace ddkern::kmeans::cuda {
namespace {

using ddkern::cuda::atomic_add;
using ddkern::cuda::block_prefix;
using ddkern::cuda::block_reduce;
using ddkern::cuda::blocks_for;
using ddkern::cuda::Largest;
using ddkern::cuda::Sum;

constexpr int kCellThreads = 128;
constexpr int kColumnsAThread = 4;
constexpr int kEventsAPart = 4096;  // of one cell, that a block takes at a time
constexpr unsigned kMostParts = 32;
constexpr float kLargestHalf = 65504;

// Masses move at once; a changed cell forgets its members, which the next kernel counts anew.
__global__ void __launch_bounds__(kTileRows) move_masses_kernel(ChunkTables chunk) {
  const RowTile tile = chunk.tiles[blockIdx.x];
  GroupRun& run = chunk.runs[tile.group];
  if (run.active == 0) return;
  const GroupShape& shape = chunk.shapes[tile.group];
  const int row = tile.first + static_cast<int>(threadIdx.x);
  bool moved = false;
  if (row < shape.n) {
    const std::int64_t position = shape.begin + row;
    const std::int64_t units = chunk.units_at(position);
    const int from = chunk.before[position], to = chunk.assignment[position];
    moved = from != to && units > 0;
    if (moved) {
      const std::int64_t to_cell = shape.first_cell + to;
      atomic_add(chunk.cell_units + to_cell, units);
      atomicAdd(chunk.n_events + to_cell, 1);
      if (from >= 0) {
        atomic_add(chunk.cell_units + shape.first_cell + from, -units);
        atomicAdd(chunk.n_events + shape.first_cell + from, 1);
      }
    }
  }
  const bool any = __syncthreads_or(moved) != 0;
  if (any && threadIdx.x == 0) atomicOr(&run.any_moved, 1);
}

__global__ void forget_members_kernel(ChunkTables chunk) {
  const std::int64_t cell = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x;
  if (cell >= chunk.n_cells || chunk.n_events[cell] == 0) return;
  chunk.n_members[cell] = 0;
  chunk.first_member[cell] = 0x7fffffff;
  chunk.least_hash[cell] = ~0ull;
  chunk.most_hash[cell] = 0;
}

// Members of changed cells: how many, the first, and the range of their hashes. Only cells whose
// members all hash alike can have one value.
__global__ void __launch_bounds__(kTileRows) count_members_kernel(ChunkTables chunk) {
  const RowTile tile = chunk.tiles[blockIdx.x];
  if (chunk.runs[tile.group].active == 0) return;
  const GroupShape& shape = chunk.shapes[tile.group];
  const int row = tile.first + static_cast<int>(threadIdx.x);
  if (row >= shape.n) return;
  const std::int64_t position = shape.begin + row;
  const std::int64_t cell = shape.first_cell + chunk.assignment[position];
  if (chunk.n_events[cell] == 0 || !chunk.counts(position)) return;
  atomicAdd(chunk.n_members + cell, 1);
  atomicMin(chunk.first_member + cell, row);
  const unsigned long long hash = chunk.hashes[position];
  if (hash < chunk.least_hash[cell]) atomicMin(chunk.least_hash + cell, hash);
  if (hash > chunk.most_hash[cell]) atomicMax(chunk.most_hash + cell, hash);
}

// One block a group: where the events of every cell begin. A group has room for two a row.
__global__ void __launch_bounds__(kThreads)
    place_events_kernel(ChunkTables chunk, bool also_ended) {
  __shared__ std::int64_t shared[kThreads / kWarp + 1];
  const GroupShape& shape = chunk.shapes[blockIdx.x];
  const bool takes_part = also_ended || chunk.runs[blockIdx.x].active != 0;
  std::int64_t begin = 2 * shape.begin;
  for (int first = 0; first < shape.k; first += kThreads) {
    const int c = first + static_cast<int>(threadIdx.x);
    const std::int64_t cell = shape.first_cell + c;
    const std::int64_t n = takes_part && c < shape.k ? chunk.n_events[cell] : 0;
    const std::int64_t before = block_prefix(n, shared);
    if (c < shape.k) {
      chunk.cell_events[cell] = {begin + before, static_cast<std::int32_t>(n),
                                 static_cast<std::int32_t>(blockIdx.x)};
      chunk.event_cursor[cell] = 0;
    }
    begin += shared[kThreads / kWarp];
  }
}

__global__ void __launch_bounds__(kTileRows)
    list_events_kernel(ChunkTables chunk, bool also_ended) {
  const RowTile tile = chunk.tiles[blockIdx.x];
  if (!also_ended && chunk.runs[tile.group].active == 0) return;
  const GroupShape& shape = chunk.shapes[tile.group];
  const int row = tile.first + static_cast<int>(threadIdx.x);
  if (row >= shape.n) return;
  const std::int64_t position = shape.begin + row;
  const int from = chunk.before[position], to = chunk.assignment[position];
  if (from == to || !chunk.counts(position)) return;
  const std::int64_t to_cell = shape.first_cell + to, from_cell = shape.first_cell + from;
  chunk.events[chunk.cell_events[to_cell].begin + atomicAdd(chunk.event_cursor + to_cell, 1)] =
      2 * row;
  if (from < 0) return;
  chunk.events[chunk.cell_events[from_cell].begin + atomicAdd(chunk.event_cursor + from_cell, 1)] =
      2 * row + 1;
}

// A block has a cell, a slab of its features and parts of its events, in any order: integers. With
// `kAligned` every thread has kColumnsAThread features or none.
template <class T, bool kAligned>
__global__ void __launch_bounds__(kThreads) accumulate_kernel(Chunk<T> chunk, bool in_parts) {
  const std::int64_t cell = blockIdx.x;
  // One load for what all others need: most blocks have little to do but wait.
  const CellEvents of_cell = chunk.cell_events[cell];
  const int n_events = of_cell.n, g = of_cell.group;
  if (static_cast<int>(blockIdx.z) * kEventsAPart >= n_events) return;
  const int first_column =
      static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * kColumnsAThread;
  if (first_column >= chunk.n_features) return;
  const GroupShape& shape = chunk.shapes[g];
  const GroupFrame& frame = chunk.frames[g];
  // v = z * 2^s - m * 2^s is y in units of the grid.
  const double scale = frame.scale * frame.row_scale;
  const T* centre = chunk.centre + static_cast<std::int64_t>(g) * chunk.n_features;
  // Where the features end within a thread's, it loads earlier ones again and does not keep them.
  const int n_own = chunk.n_features - first_column < kColumnsAThread
                        ? chunk.n_features - first_column
                        : kColumnsAThread;
  double shift[kColumnsAThread];
  std::int64_t sums[kColumnsAThread] = {};
#pragma unroll
  for (int c = 0; c < kColumnsAThread; ++c) {
    shift[c] = static_cast<double>(centre[first_column + (c < n_own ? c : 0)]) * frame.row_scale;
  }
  const std::int32_t* events = chunk.events + of_cell.begin;
  constexpr int kRowsAtOnce = 4;
  static_assert(kEventsAPart % kRowsAtOnce == 0);
  const int part = in_parts ? kEventsAPart : n_events;
  int first = static_cast<int>(blockIdx.z) * kEventsAPart;
  int last = first + part < n_events ? first + part : n_events;
  for (int e = first; e < n_events;) {
    T values[kRowsAtOnce][kColumnsAThread];
    std::int32_t listed[kRowsAtOnce];
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      // The first again where there are fewer: a condition on the loads would keep them apart.
      listed[r] = events[e + r < last ? e + r : e];
      const T* x = chunk.row(shape.begin + listed[r] / 2) + first_column;
      if constexpr (kAligned) {
        load_aligned(x, values[r]);
      } else {
#pragma unroll
        for (int c = 0; c < kColumnsAThread; ++c) values[r][c] = x[c < n_own ? c : 0];
      }
    }
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      if (e + r >= last) break;
#pragma unroll
      for (int c = 0; c < kColumnsAThread; ++c) {
        const double v = static_cast<double>(values[r][c]) * scale - shift[c];
        const std::int64_t q = weighted_integer(v, chunk.weights, shape.begin + listed[r] / 2);
        sums[c] += listed[r] % 2 != 0 ? -q : q;
      }
    }
    e += kRowsAtOnce;
    if (e < last) continue;
    first += static_cast<int>(gridDim.z) * kEventsAPart;
    last = first + part < n_events ? first + part : n_events;
    e = in_parts ? first : n_events;
  }
  std::int64_t* to = chunk.sums + cell * chunk.n_features + first_column;
#pragma unroll
  for (int c = 0; c < kColumnsAThread; ++c) {
    if (c >= n_own) break;
    if (in_parts) {
      atomic_add(to + c, sums[c]);
    } else {
      to[c] += sums[c];
    }
  }
}

// --- repairs -----------------------------------------------------------------------------------

// One block a group.
__global__ void __launch_bounds__(kThreads) find_dead_kernel(ChunkTables chunk) {
  const int g = static_cast<int>(blockIdx.x);
  const GroupShape& shape = chunk.shapes[g];
  GroupRun& run = chunk.runs[g];
  bool empty = false;
  if (run.active != 0) {
    for (int c = static_cast<int>(threadIdx.x); c < shape.k; c += kThreads) {
      chunk.reseeded[shape.first_cell + c] = -1;
      empty = empty || chunk.cell_units[shape.first_cell + c] == 0;
    }
  }
  const int any = __syncthreads_or(empty);
  if (threadIdx.x != 0) return;
  run.dead = any;
  if (run.active != 0) run.repaired = 0;
}

// A dead cell gets the row that is farthest from its centroid, one cell after the other. One block
// a group.
template <class T>
__global__ void __launch_bounds__(kThreads) repair_kernel(Chunk<T> chunk) {
  __shared__ double shared[kThreads / kWarp];
  __shared__ std::int64_t shared_rows[kThreads / kWarp];
  const int g = static_cast<int>(blockIdx.x);
  const GroupShape& shape = chunk.shapes[g];
  GroupRun& run = chunk.runs[g];
  if (run.dead == 0) return;
  const double scale = chunk.frames[g].scale;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const std::int64_t n_rounds = (shape.n + kThreads / kLanes - 1) / (kThreads / kLanes);
  for (int c = 0; c < shape.k; ++c) {
    if (chunk.cell_units[shape.first_cell + c] > 0) continue;
    double most = 0;
    for (std::int64_t i = threadIdx.x; i < shape.n; i += kThreads) {
      if (chunk.counts(shape.begin + i)) most = fmax(most, chunk.distances[shape.begin + i]);
    }
    most = block_reduce(most, Largest{}, shared);
    if (most == 0) break;
    std::int64_t first = shape.n;
    for (std::int64_t i = threadIdx.x; i < shape.n; i += kThreads) {
      if (!chunk.counts(shape.begin + i) || chunk.distances[shape.begin + i] != most) continue;
      first = i < first ? i : first;
    }
    first = block_reduce(first, ddkern::cuda::Least{}, shared_rows);
    if (threadIdx.x == 0) {
      chunk.reseeded[shape.first_cell + c] = static_cast<std::int32_t>(first);
      ++run.repaired;
      ++run.cells_reseeded;
    }
    const T* row = chunk.row(shape.begin + first);
    for (std::int64_t round = 0; round < n_rounds; ++round) {
      const std::int64_t i = round * (kThreads / kLanes) + static_cast<int>(threadIdx.x) / kLanes;
      const std::int64_t position = shape.begin + (i < shape.n ? i : 0);
      const double distance = sq_distance(chunk.row(position), row, scale, chunk.n_features, lane);
      if (i < shape.n && lane == 0) {
        chunk.distances[position] = fmin(chunk.distances[position], distance);
      }
    }
    __syncthreads();
  }
}

// Marks cells all of whose members are equal: n_members becomes 1. Only cells whose members hash
// alike are looked at, so blocks are few that do anything.
template <class T>
__global__ void __launch_bounds__(kThreads) single_value_kernel(Chunk<T> chunk) {
  const std::int64_t cell = blockIdx.x;
  if (chunk.n_events[cell] == 0 || chunk.n_members[cell] < 2 ||
      chunk.least_hash[cell] != chunk.most_hash[cell]) {
    return;
  }
  const int g = chunk.cell_group[cell];
  if (chunk.runs[g].active == 0) return;
  const GroupShape& shape = chunk.shapes[g];
  const int c = static_cast<int>(cell - shape.first_cell);
  const T* first = chunk.row(shape.begin + chunk.first_member[cell]);
  bool equal = true;
  for (std::int64_t i = threadIdx.x; i < shape.n && equal; i += kThreads) {
    const std::int64_t position = shape.begin + i;
    if (chunk.assignment[position] != c || !chunk.counts(position)) continue;
    equal = rows_equal(first, chunk.row(position), chunk.n_features);
  }
  if (__syncthreads_and(equal) != 0 && threadIdx.x == 0) chunk.n_members[cell] = 1;
}

// --- centroids ---------------------------------------------------------------------------------

// Sixteen threads a cell: the lanes of its sums of squares. Late iterations change few cells, and
// then the time is that of one. In Gram space no packed cell is wanted.
template <class T>
__global__ void __launch_bounds__(kCellThreads, 3)
    finish_kernel(Chunk<T> chunk, Finish how, bool gram, float product_error) {
  constexpr int kAhead = 32 / sizeof(T);
  const std::int64_t asked =
      (blockIdx.x * static_cast<std::int64_t>(kCellThreads) + threadIdx.x) / kLanes;
  const bool exists = asked < chunk.n_cells;
  const std::int64_t cell = exists ? asked : chunk.n_cells - 1;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int g = chunk.cell_group[cell];
  const GroupShape& shape = chunk.shapes[g];
  const GroupFrame& frame = chunk.frames[g];
  const std::int64_t units = chunk.cell_units[cell];
  const bool changed = chunk.n_events[cell] > 0 && units > 0;
  const int reseeded = how == Finish::move ? chunk.reseeded[cell] : -1;
  const bool ended = chunk.runs[g].active == 0;
  bool works = how == Finish::as_is;
  if (how == Finish::move) works = !ended && (changed || reseeded >= 0);
  if (how == Finish::report) works = changed;
  works = works && exists;
  const bool has_mean = how != Finish::as_is && reseeded < 0 && works;
  const bool packs = !gram && how != Finish::report;
  // A row stands for the cell where it was seeded again or has one value.
  int source = -1;
  if (works && how == Finish::move) {
    if (reseeded >= 0) {
      source = reseeded;
    } else if (chunk.n_members[cell] == 1) {
      source = chunk.first_member[cell];
    }
  }
  const T* row = source >= 0 ? chunk.row(shape.begin + source) : nullptr;
  const T* centre = chunk.centre + static_cast<std::int64_t>(g) * chunk.n_features;
  T* centroid = chunk.centroids + cell * chunk.n_features;
  const std::int64_t* sums = chunk.sums + cell * chunk.n_features;
  __half* packed = chunk.cell_halves + cell * chunk.n_padded;
  const double total = static_cast<double>(units), factor = shape.mean_factor * frame.row_unit;
  double mean_sq_norm = 0, off = 0, shift = 0, sq_norm = 0;
  float lost = 0, norm = 0, most = 0;
  const int n = works ? chunk.n_features : 0;
  // The elements of a lane are added in order, but asked for several at a time.
  for (int first = lane; first < n; first += kAhead * kLanes) {
    T centres[kAhead], before[kAhead], values[kAhead];
    std::int64_t totals[kAhead] = {};
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int j = first + a * kLanes < n ? first + a * kLanes : first;
      centres[a] = centre[j];
      before[a] = centroid[j];
      if (has_mean) totals[a] = sums[j];
      if (row != nullptr) values[a] = row[j];
    }
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int j = first + a * kLanes;
      if (j >= n) break;
      const auto m = static_cast<double>(centres[a]);
      const double mean = has_mean ? static_cast<double>(totals[a]) / total * factor : 0;
      T now = before[a];
      if (how == Finish::move) {
        now = row != nullptr ? values[a] : static_cast<T>((mean + m) * frame.unscale);
        centroid[j] = now;
      }
      const double stored = static_cast<double>(now) * frame.scale;
      const double y = stored - m;
      if (has_mean) {
        mean_sq_norm += mean * mean;
        off += (y - mean) * (y - mean);
      }
      if (how == Finish::report) continue;
      const double moved = stored - static_cast<double>(before[a]) * frame.scale;
      shift += moved * moved;
      sq_norm += y * y;
      if (!packs) continue;
      const auto y32 = static_cast<float>(y);
      const __half h = __float2half_rn(y32 * 0x1p13f);
      const float kept = __half2float(h) * 0x1p-13f;
      lost = __fmaf_rn(y32 - kept, y32 - kept, lost);
      norm = __fmaf_rn(kept, kept, norm);
      most = fmaxf(most, fabsf(y32));
      packed[j] = h;
    }
  }
  for (int j = (chunk.n_features + kLanes - 1) / kLanes * kLanes - kLanes + lane;
       j < chunk.n_padded && works && packs; j += kLanes) {
    if (j >= chunk.n_features) packed[j] = __float2half_rn(0);
  }
  mean_sq_norm = add_lanes(mean_sq_norm);
  off = add_lanes(off);
  shift = add_lanes(shift);
  sq_norm = add_lanes(sq_norm);
  lost = join_parts<kLanes>(lost, Sum{});
  norm = join_parts<kLanes>(norm, Sum{});
  most = join_parts<kLanes>(most, Largest{});
  const bool wild = !(most * 0x1p13f <= kLargestHalf);
  if (works && wild && packs) {
    // Nothing is known of products with it.
    for (int j = lane; j < chunk.n_features; j += kLanes) packed[j] = __float2half_rn(0);
  }
  if (lane != 0 || !exists) return;
  if (has_mean) {
    chunk.mean_sq_norms[cell] = mean_sq_norm;
    chunk.off[cell] = off;
  }
  if (how == Finish::move) chunk.shifts[cell] = works ? shift : 0;
  std::int64_t n_terms = 0;
  if (how == Finish::move && gram && !ended) {
    n_terms = chunk.n_terms[cell] += chunk.n_events[cell];
  }
  if (!works || how == Finish::report) return;
  chunk.source_row[cell] = source;
  // See pack_kernel(): roundings of the sums of floats, and y32 beside y.
  const float deep = 1 + (static_cast<float>(chunk.n_features) / kLanes + 32) * 0x1p-23f;
  const float norm_bound = sqrtf(norm) * deep + 0x1p-60f;
  const float lost_bound = sqrtf(lost) * deep * (1 + 0x1p-20f) + norm_bound * 0x1.1p-23f +
                           sqrtf(static_cast<float>(chunk.n_features)) * kLostSquares;
  const float cell_norm = norm_bound + lost_bound;
  const auto base = static_cast<float>(sq_norm);
  // Inflated for the rounding of the bound itself.
  constexpr float kInflation = 1 + 0x1p-18f;
  CellBound& bound = chunk.bounds[cell];
  if (wild) {
    bound = {0, 0, 0, INFINITY};
    return;
  }
  // Of a score: its own roundings and that of `base`.
  bound.base = base;
  bound.rest = (base * 0x1p-21f + 0x1p-100f) * kInflation;
  if (!gram) {
    // <y, c> - <Y, C> = <y - Y, c> + <Y, c - C>, and what the sums of products round.
    bound.lost = 2 * cell_norm * kInflation;
    bound.norm = (2 * lost_bound + (2 * product_error + 0x1p-20f) * norm_bound) * kInflation;
    return;
  }
  // A mean of products with rows (gram.cu): each of them as above, the mean is `off` from c, and
  // its sums are rounded to the grid, with weights twice a row.
  const bool is_row = source >= 0 || how == Finish::as_is;
  const double members = is_row ? 1 : static_cast<double>(chunk.n_members[cell]);
  const double row_error =
      is_row ? 0
             : frame.row_unit * sqrt(static_cast<double>(chunk.n_features)) *
                   (1 + (chunk.weights == nullptr
                             ? 0
                             : members * shape.mean_factor / static_cast<double>(units)));
  const auto apart =
      static_cast<float>((is_row ? 0 : sqrt(off)) * (1 + 0x1p-20) + row_error) + 0x1p-60f;
  // Gram rows come and go in float64: so many roundings of sums up to the whole mass.
  const auto drift = is_row ? 0
                            : static_cast<float>(0x1.1p-53 * static_cast<double>(n_terms) *
                                                 static_cast<double>(shape.total_units) /
                                                 static_cast<double>(units));
  bound.lost = 2 * (frame.largest_norm + frame.largest_lost + apart) * kInflation;
  bound.norm = (2 * (frame.largest_lost + apart) +
                (2 * product_error + 0x1p-20f + 2 * drift) * frame.largest_norm) *
               kInflation;
}

}  // namespace

void count_moves(const ChunkTables& chunk, cudaStream_t stream) {
  DDKERN_LAUNCH(move_masses_kernel, chunk.n_tiles, kTileRows, 0, stream, chunk);
  DDKERN_LAUNCH(forget_members_kernel, blocks_for(chunk.n_cells, kThreads), kThreads, 0, stream,
                chunk);
  DDKERN_LAUNCH(count_members_kernel, chunk.n_tiles, kTileRows, 0, stream, chunk);
}

template <class T>
void update_sums(const Chunk<T>& chunk, bool also_ended, cudaStream_t stream) {
  DDKERN_LAUNCH(place_events_kernel, chunk.n_groups, kThreads, 0, stream, chunk, also_ended);
  DDKERN_LAUNCH(list_events_kernel, chunk.n_tiles, kTileRows, 0, stream, chunk, also_ended);
  // Threads for the features that there are, and parts only where a cell may have many rows.
  const int wanted = (chunk.n_features + kColumnsAThread - 1) / kColumnsAThread;
  const int threads = wanted >= kThreads ? kThreads : (wanted + kWarp - 1) / kWarp * kWarp;
  const std::int64_t most_events = 2 * chunk.most_rows;
  const bool in_parts = most_events > kEventsAPart;
  const dim3 grid(static_cast<unsigned>(chunk.n_cells),
                  blocks_for(chunk.n_features, threads * kColumnsAThread),
                  in_parts ? std::min(blocks_for(most_events, kEventsAPart), kMostParts) : 1);
  if (rows_are_aligned(chunk)) {
    DDKERN_LAUNCH((accumulate_kernel<T, true>), grid, threads, 0, stream, chunk, in_parts);
  } else {
    DDKERN_LAUNCH((accumulate_kernel<T, false>), grid, threads, 0, stream, chunk, in_parts);
  }
}

template <class T>
void repair_cells(const Chunk<T>& chunk, cudaStream_t stream) {
  DDKERN_LAUNCH(find_dead_kernel, chunk.n_groups, kThreads, 0, stream, chunk);
  find_own_distances(chunk, Which::dead, stream);
  DDKERN_LAUNCH(repair_kernel<T>, chunk.n_groups, kThreads, 0, stream, chunk);
  DDKERN_LAUNCH(single_value_kernel<T>, static_cast<unsigned>(chunk.n_cells), kThreads, 0, stream,
                chunk);
}

template <class T>
void finish_cells(const Chunk<T>& chunk, Finish how, bool gram, double product_error,
                  cudaStream_t stream) {
  const auto error = static_cast<float>(product_error);
  DDKERN_LAUNCH(finish_kernel<T>, blocks_for(chunk.n_cells * kLanes, kCellThreads), kCellThreads, 0,
                stream, chunk, how, gram, error);
}

#define DDKERN_INSTANTIATE(T)                                     \
  template void update_sums(const Chunk<T>&, bool, cudaStream_t); \
  template void repair_cells(const Chunk<T>&, cudaStream_t);      \
  template void finish_cells(const Chunk<T>&, Finish, bool, double, cudaStream_t)

DDKERN_INSTANTIATE(float);
DDKERN_INSTANTIATE(double);

}  // namespace ddkern::kmeans::cuda
