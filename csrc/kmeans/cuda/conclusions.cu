// SPDX-License-Identifier: Apache-2.0
#include "kmeans/cuda/conclusions.h"

#include <algorithm>

#include "kmeans/cuda/own_distances.cuh"
#include "kmeans/cuda/own_distances.h"
#include "kmeans/cuda/row_means.h"
#include "kmeans/cuda/update.h"

namespace ddkern::kmeans::cuda {
namespace {

using ddkern::cuda::blocks_for;

// After everything has seen that a cell changed.
__global__ void settle_events_kernel(ChunkTables chunk, bool also_ended) {
  const std::int64_t cell = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x;
  if (cell >= chunk.n_cells) return;
  if (!also_ended && chunk.runs[chunk.cell_group[cell]].active == 0) {
    return;
  }
  chunk.n_events[cell] = 0;
}

// Sums over all cells of a group, which column_sums is free for; blocks add parts of them.
constexpr unsigned kMostParts = 64;
__global__ void total_sums_kernel(ChunkTables chunk) {
  const int g = static_cast<int>(blockIdx.y);
  const int j = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const GroupShape& shape = chunk.shapes[g];
  if (j >= chunk.n_features) return;
  std::int64_t sum = 0;
  for (std::int64_t c = blockIdx.z; c < shape.k; c += gridDim.z) {
    sum += chunk.sums[(shape.first_cell + c) * chunk.n_features + j];
  }
  ddkern::cuda::atomic_add(chunk.column_sums + static_cast<std::int64_t>(g) * chunk.n_features + j,
                           sum);
}

__global__ void __launch_bounds__(kWarp) variance_kernel(ChunkTables chunk) {
  const int g = static_cast<int>(blockIdx.x);
  const GroupShape& shape = chunk.shapes[g];
  const GroupFrame& frame = chunk.frames[g];
  const std::int64_t* sums = chunk.column_sums + static_cast<std::int64_t>(g) * chunk.n_features;
  double sq_norm = 0;
  for (int j = static_cast<int>(threadIdx.x) % kLanes; j < chunk.n_features; j += kLanes) {
    const double mean = static_cast<double>(sums[j]) / static_cast<double>(shape.total_units) *
                        (shape.mean_factor * frame.row_unit);
    sq_norm += mean * mean;
  }
  const double within = frame.mean_sq_norm - add_lanes(sq_norm);
  if (threadIdx.x == 0) {
    chunk.runs[g].variance = (within < 0 ? 0 : within) / static_cast<double>(chunk.n_features);
  }
}

// The sum of value(c) over the cells of a group in ascending order, by a warp: lanes find the
// terms, and every lane adds them one after the other. Past the last cell these are 0, which
// changes no bit of a sum that began at 0; nothing then keeps a shuffle waiting for the addition
// before it.
template <class Value>
__device__ double ordered_sum(int n, const Value& value) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  double sum = 0;
  for (int first = 0; first < n; first += kWarp) {
    const double term = first + lane < n ? value(first + lane) : 0;
#pragma unroll
    for (int l = 0; l < kWarp; ++l) sum += __shfl_sync(kAllLanes, term, l);
  }
  return sum;
}

// share_c * value[c]; adding 0 for a cell without mass changes no bit.
struct Share {
  const ChunkTables& chunk;
  const GroupShape& shape;
  const double* values;
  __device__ double operator()(int c) const {
    const std::int64_t units = chunk.cell_units[shape.first_cell + c];
    if (units == 0) return 0;
    return static_cast<double>(units) / static_cast<double>(shape.total_units) *
           values[shape.first_cell + c];
  }
};

__device__ double spread_within(const ChunkTables& chunk, int g) {
  const GroupShape& shape = chunk.shapes[g];
  return chunk.frames[g].mean_sq_norm -
         ordered_sum(shape.k, Share{chunk, shape, chunk.mean_sq_norms});
}

// A warp for each of two sums, whose additions wait for one another.
__global__ void __launch_bounds__(2 * kWarp)
    conclude_update_kernel(ChunkTables chunk, double* history) {
  const int g = static_cast<int>(blockIdx.x);
  GroupRun& run = chunk.runs[g];
  if (run.active == 0) return;
  const GroupShape& shape = chunk.shapes[g];
  const bool leads = threadIdx.x % kWarp == 0;
  if (threadIdx.x < kWarp) {
    const double shift =
        ordered_sum(shape.k, [&](int c) { return chunk.shifts[shape.first_cell + c]; });
    if (!leads) return;
    run.shift = shift;
    run.any_moved = 0;
  } else {
    const double within = spread_within(chunk, g);
    if (leads) history[g] = ldexp(within < 0 ? 0 : within, 2 * chunk.frames[g].exponent);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    conclude_iteration_kernel(Chunk<T> chunk, std::int64_t iteration, std::int64_t max_iter,
                              double tol, int* n_active) {
  const int g = static_cast<int>(blockIdx.x);
  const GroupShape& shape = chunk.shapes[g];
  GroupRun& run = chunk.runs[g];
  if (run.active == 0) return;
  const bool converged =
      run.repaired == 0 && (run.any_moved == 0 || run.shift <= tol * run.variance);
  bool ends = converged || iteration >= max_iter;
  if (ends && iteration < max_iter + 100 + shape.k) {
    // Ending with a dead cell is for groups that have no distinct row left to give it.
    bool empty = false;
    for (int c = static_cast<int>(threadIdx.x); c < shape.k; c += kThreads) {
      empty = empty || chunk.cell_units[shape.first_cell + c] == 0;
    }
    if (__syncthreads_or(empty) != 0) {
      const double largest = distances_to_own(chunk, g, 0, shape.n);
      ends = __syncthreads_or(largest > 0) == 0;
    }
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  run.n_iter = static_cast<int>(iteration);
  run.converged = converged;
  run.rows_assigned += shape.n;
  if (ends) {
    run.active = 0;
  } else {
    atomicAdd(n_active, 1);
  }
}

__global__ void __launch_bounds__(kWarp) distortion_kernel(ChunkTables chunk) {
  const int g = static_cast<int>(blockIdx.x);
  const GroupShape& shape = chunk.shapes[g];
  GroupRun& run = chunk.runs[g];
  const double within = spread_within(chunk, g);
  const double off = ordered_sum(shape.k, Share{chunk, shape, chunk.off});
  const double n_empty = ordered_sum(
      shape.k, [&](int c) { return chunk.cell_units[shape.first_cell + c] == 0 ? 1.0 : 0.0; });
  if (threadIdx.x != 0) return;
  run.far = within < chunk.frames[g].mean_sq_norm / 8;
  run.n_empty_cells = static_cast<int>(n_empty);
  run.scaled_distortion = within + off;
}

__global__ void far_distortion_kernel(ChunkTables chunk) {
  const int g = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (g >= chunk.n_groups || chunk.runs[g].far == 0) return;
  chunk.runs[g].scaled_distortion = chunk.means[g].mean;
}

__global__ void write_masses_kernel(ChunkTables chunk, double* mass) {
  const std::int64_t cell = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x;
  if (cell >= chunk.n_cells) return;
  const int g = chunk.cell_group[cell];
  mass[cell] = static_cast<double>(chunk.cell_units[cell]) /
               static_cast<double>(chunk.shapes[g].total_units);
}

}  // namespace

void conclude_update(const ChunkTables& chunk, bool first, double* history, cudaStream_t stream) {
  if (first) {
    DDKERN_CUDA_TRY(
        cudaMemsetAsync(chunk.column_sums, 0,
                        sizeof(std::int64_t) * static_cast<std::size_t>(chunk.n_groups) *
                            static_cast<std::size_t>(chunk.n_features),
                        stream));
    const dim3 parts(blocks_for(chunk.n_features, kThreads), static_cast<unsigned>(chunk.n_groups),
                     std::min(blocks_for(chunk.most_k, kWarp), kMostParts));
    DDKERN_LAUNCH(total_sums_kernel, parts, kThreads, 0, stream, chunk);
    DDKERN_LAUNCH(variance_kernel, chunk.n_groups, kWarp, 0, stream, chunk);
  }
  DDKERN_LAUNCH(settle_events_kernel, blocks_for(chunk.n_cells, kThreads), kThreads, 0, stream,
                chunk, false);
  DDKERN_LAUNCH(conclude_update_kernel, chunk.n_groups, 2 * kWarp, 0, stream, chunk, history);
}

template <class T>
void conclude_iteration(const Chunk<T>& chunk, std::int64_t iteration, std::int64_t max_iter,
                        double tol, int* n_active, cudaStream_t stream) {
  DDKERN_LAUNCH(conclude_iteration_kernel<T>, chunk.n_groups, kThreads, 0, stream, chunk, iteration,
                max_iter, tol, n_active);
}

template <class T>
void find_distortion(const Chunk<T>& chunk, cudaStream_t stream) {
  update_sums(chunk, true, stream);
  finish_cells(chunk, Finish::report, false, 0, stream);
  DDKERN_LAUNCH(settle_events_kernel, blocks_for(chunk.n_cells, kThreads), kThreads, 0, stream,
                chunk, true);
  DDKERN_LAUNCH(distortion_kernel, chunk.n_groups, kWarp, 0, stream, chunk);
  find_own_distances(chunk, Which::far, stream);
  find_means(chunk, chunk.distances, Which::far, stream);
  DDKERN_LAUNCH(far_distortion_kernel, blocks_for(chunk.n_groups, kThreads), kThreads, 0, stream,
                chunk);
}

void write_masses(const ChunkTables& chunk, double* mass, cudaStream_t stream) {
  DDKERN_LAUNCH(write_masses_kernel, blocks_for(chunk.n_cells, kThreads), kThreads, 0, stream,
                chunk, mass);
}

#define DDKERN_INSTANTIATE(T)                                                                 \
  template void conclude_iteration(const Chunk<T>&, std::int64_t, std::int64_t, double, int*, \
                                   cudaStream_t);                                             \
  template void find_distortion(const Chunk<T>&, cudaStream_t)

DDKERN_INSTANTIATE(float);
DDKERN_INSTANTIATE(double);

}  // namespace ddkern::kmeans::cuda
