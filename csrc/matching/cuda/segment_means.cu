// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "core/cuda/launch.h"
#include "core/cuda/pieces.h"
#include "core/cuda/reduce.cuh"
#include "matching/cuda/distribution.h"

namespace ddkern::matching::cuda {
namespace {

using ddkern::cuda::block_prefix;
using ddkern::cuda::block_reduce;
using ddkern::cuda::kWarp;
using ddkern::cuda::Largest;
using ddkern::cuda::OnDevice;
using ddkern::cuda::pieces_of;
using ddkern::cuda::Sum;

// The rows of every class in their order, and what their sum is divided by.
struct ClassRows {
  std::int64_t* rows;    // [n_rows], class after class
  std::int64_t* starts;  // [n_classes], in `rows`
  std::int64_t* sizes;   // [n_classes]
  double* divisors;      // [n_classes]
};

constexpr int kOrderThreads = 512;
constexpr int kOrderWarps = kOrderThreads / kWarp;
constexpr int kLabelsAThread = 4;

// A thread block has a class, and looks at all labels twice: where its rows begin, and which they
// are.
__global__ void __launch_bounds__(kOrderThreads) order_kernel(SegmentRows of, ClassRows classes) {
  __shared__ std::int64_t sums[kOrderWarps];
  __shared__ int places[kOrderWarps + 1];
  const std::int64_t mine = blockIdx.x;
  std::int64_t n_before = 0;
  int wrong = 0;
#pragma unroll 4
  for (std::int64_t i = threadIdx.x; i < of.n_rows; i += kOrderThreads) {
    const std::int64_t label = of.labels[i];
    n_before += label >= 0 && label < mine ? 1 : 0;
    wrong |= label < 0 || label >= of.n_classes ? 1 : 0;
  }
  const std::int64_t start = block_reduce(n_before, Sum{}, sums);
  wrong = block_reduce(wrong, Largest{}, places);

  std::int64_t next = start;
  for (std::int64_t first = 0; first < of.n_rows; first += kOrderThreads * kLabelsAThread) {
    const std::int64_t i = first + static_cast<std::int64_t>(threadIdx.x) * kLabelsAThread;
    bool is_mine[kLabelsAThread];
    int n_mine = 0;
#pragma unroll
    for (int l = 0; l < kLabelsAThread; ++l) {
      is_mine[l] = i + l < of.n_rows && of.labels[i + l] == mine;
      n_mine += is_mine[l] ? 1 : 0;
    }
    std::int64_t at = next + block_prefix(n_mine, places);
#pragma unroll
    for (int l = 0; l < kLabelsAThread; ++l) {
      if (is_mine[l]) classes.rows[at++] = i + l;
    }
    next += places[kOrderWarps];
  }
  if (threadIdx.x == 0) {
    const std::int64_t size = next - start;
    classes.starts[mine] = start;
    classes.sizes[mine] = size;
    classes.divisors[mine] = wrong != 0 ? static_cast<double>(NAN) : static_cast<double>(size);
  }
}

// Features of a thread block, and rows that it looks up together.
constexpr int kMeanThreads = 64;
// Loads under way in a thread, which are all that keeps memory busy: a chain is one thread's.
constexpr int kRowsAhead = 16;
static_assert(kMeanThreads % kRowsAhead == 0);

// Adds the first `n` of kRowsAhead rows that begin at these values of a column.
template <bool kAll>
__device__ __forceinline__ void add_rows(const float* column, const std::int64_t* begins, int n,
                                         double& sum) {
  float values[kRowsAhead];
#pragma unroll
  for (int r = 0; r < kRowsAhead; ++r) {
    values[r] = kAll || r < n ? column[begins[r]] : 0.0f;
  }
  // What lies beyond the end adds 0.
#pragma unroll
  for (int r = 0; r < kRowsAhead; ++r) sum += static_cast<double>(values[r]);
}

// A thread has a feature of a class. So many blocks that the compiler leaves registers for the
// loads.
__global__ void __launch_bounds__(kMeanThreads, 16)
    means_kernel(SegmentRows of, ClassRows classes, std::int64_t n_tiles, double* means) {
  __shared__ std::int64_t begins[kMeanThreads];
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t mine = blockIdx.x / n_tiles;
  const std::int64_t feature = (blockIdx.x - mine * n_tiles) * kMeanThreads + thread;
  const bool exists = feature < of.n_features;
  const float* const column = of.values + (exists ? feature : 0);
  const std::int64_t* const rows = classes.rows + classes.starts[mine];
  const std::int64_t size = classes.sizes[mine];
  double sum = 0;
  for (std::int64_t first = 0; first < size; first += kMeanThreads) {
    const std::int64_t rest = size - first;
    const int n = rest < kMeanThreads ? static_cast<int>(rest) : kMeanThreads;
    __syncthreads();
    if (thread < n) begins[thread] = rows[first + thread] * of.n_features;
    __syncthreads();
    int r = 0;
    for (; r + kRowsAhead <= n; r += kRowsAhead) {
      add_rows<true>(column, begins + r, kRowsAhead, sum);
    }
    if (r < n) add_rows<false>(column, begins + r, n - r, sum);
  }
  if (exists) means[mine * of.n_features + feature] = __ddiv_rn(sum, classes.divisors[mine]);
}

}  // namespace

std::int64_t segment_workspace(std::int64_t n_rows, std::int64_t n_classes) {
  return n_rows + 3 * n_classes;
}

void segment_means(const SegmentRows& rows, double* workspace, double* means,
                   const DeviceCall& call) {
  static_assert(sizeof(std::int64_t) == sizeof(double));
  const OnDevice device(call.device);
  const auto stream = static_cast<cudaStream_t>(call.stream);
  const std::int64_t n_tiles = pieces_of(rows.n_features, kMeanThreads);
  if (n_tiles * rows.n_classes == 0) return;
  auto* const numbers = reinterpret_cast<std::int64_t*>(workspace);
  const ClassRows classes{numbers, numbers + rows.n_rows, numbers + rows.n_rows + rows.n_classes,
                          workspace + rows.n_rows + 2 * rows.n_classes};
  DDKERN_LAUNCH(order_kernel, static_cast<unsigned>(rows.n_classes), kOrderThreads, 0, stream, rows,
                classes);
  DDKERN_LAUNCH(means_kernel, static_cast<unsigned>(rows.n_classes * n_tiles), kMeanThreads, 0,
                stream, rows, classes, n_tiles, means);
}

}  // namespace ddkern::matching::cuda
