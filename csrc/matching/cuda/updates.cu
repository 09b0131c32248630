// SPDX-License-Identifier: Apache-2.0
#include "matching/cuda/updates.h"

#include "core/cuda/launch.h"
#include "core/cuda/pieces.h"
#include "core/cuda/values.cuh"
#include "matching/cuda/sums.cuh"

namespace ddkern::matching::cuda {
namespace {

using ddkern::cuda::is_aligned;
using ddkern::cuda::OnDevice;
using ddkern::cuda::Pack;
using ddkern::cuda::pieces_of;

constexpr int kThreads = 256;
constexpr int kPiece = 4096;  // values of a thread block
constexpr int kWidth = Pack<float>::kValues;

__device__ __forceinline__ float number(const Coefficient& coefficient) {
  return static_cast<float>(coefficient.at == nullptr ? coefficient.value : *coefficient.at);
}

// kWidth neighbouring values at a multiple of 16 bytes, or one.
template <int kValues>
__device__ __forceinline__ void load(const float* from, float (&values)[kValues]) {
  if constexpr (kValues == 1) {
    values[0] = *from;
  } else {
    const Pack<float> pack = *reinterpret_cast<const Pack<float>*>(from);
#pragma unroll
    for (int v = 0; v < kValues; ++v) values[v] = pack.value[v];
  }
}
template <int kValues>
__device__ __forceinline__ void store(float* to, const float (&values)[kValues]) {
  if constexpr (kValues == 1) {
    *to = values[0];
  } else {
    Pack<float> pack;
#pragma unroll
    for (int v = 0; v < kValues; ++v) pack.value[v] = values[v];
    *reinterpret_cast<Pack<float>*>(to) = pack;
  }
}

// Each of these: the numbers of a row, whether vectors may be loaded from value `first` on, and the
// values from i on.

struct Linear {
  LinearBlock of;
  float alpha;
  Coefficient beta;

  __device__ float prepare(std::int64_t) const { return number(beta); }
  __device__ bool aligned(std::int64_t first) const {
    return is_aligned(of.x + first) && is_aligned(of.y + first) && is_aligned(of.out + first);
  }
  template <int kValues>
  __device__ __forceinline__ void run(std::int64_t i, float by) const {
    float x[kValues], y[kValues];
    load(of.x + i, x);
    load(of.y + i, y);
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      x[v] = __fadd_rn(__fmul_rn(alpha, x[v]), __fmul_rn(by, y[v]));
    }
    store(of.out + i, x);
  }
};

struct Momentum {
  MomentumBlock of;
  Coefficient lr;
  float momentum;

  __device__ float prepare(std::int64_t) const { return number(lr); }
  __device__ bool aligned(std::int64_t first) const {
    return is_aligned(of.theta + first) && is_aligned(of.velocity + first) &&
           is_aligned(of.gradient + first) && is_aligned(of.theta_out + first) &&
           is_aligned(of.velocity_out + first);
  }
  template <int kValues>
  __device__ __forceinline__ void run(std::int64_t i, float by) const {
    float theta[kValues], velocity[kValues], gradient[kValues];
    load(of.theta + i, theta);
    load(of.velocity + i, velocity);
    load(of.gradient + i, gradient);
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      velocity[v] = __fadd_rn(__fmul_rn(momentum, velocity[v]), gradient[v]);
      theta[v] = __fsub_rn(theta[v], __fmul_rn(by, velocity[v]));
    }
    store(of.velocity_out + i, velocity);
    store(of.theta_out + i, theta);
  }
};

struct Ascent {
  AscentBlock of;
  double rho;
  const double* squares;  // [n_rows]

  __device__ float prepare(std::int64_t row) const {
    const double total = squares[row];
    return total == 0 ? 0.0f : static_cast<float>(__ddiv_rn(rho, __dsqrt_rn(total)));
  }
  __device__ bool aligned(std::int64_t first) const {
    return is_aligned(of.gradient + first) && is_aligned(of.out + first) &&
           (of.size == nullptr || is_aligned(of.size + first));
  }
  template <int kValues>
  __device__ __forceinline__ void run(std::int64_t i, float by) const {
    float gradient[kValues];
    load(of.gradient + i, gradient);
    if (of.size != nullptr) {
      float size[kValues];
      load(of.size + i, size);
#pragma unroll
      for (int v = 0; v < kValues; ++v) {
        gradient[v] = __fmul_rn(__fmul_rn(size[v], size[v]), gradient[v]);
      }
    }
#pragma unroll
    for (int v = 0; v < kValues; ++v) gradient[v] = __fmul_rn(by, gradient[v]);
    store(of.out + i, gradient);
  }
};

// A thread block has a piece of a row of n values, of which there are n_pieces a row.
template <class Op>
__global__ void __launch_bounds__(kThreads) update_kernel(Op op, std::int64_t n_pieces) {
  const std::int64_t row = blockIdx.x / n_pieces;
  const std::int64_t in_row = (blockIdx.x - row * n_pieces) * kPiece;
  const std::int64_t first = row * op.of.n + in_row, rest = op.of.n - in_row;
  const int n = rest < kPiece ? static_cast<int>(rest) : kPiece;
  const float by = op.prepare(row);
  int done = 0;
  if (op.aligned(first)) {
    done = n / kWidth * kWidth;
#pragma unroll 2
    for (int i = static_cast<int>(threadIdx.x) * kWidth; i < done; i += kThreads * kWidth) {
      op.template run<kWidth>(first + i, by);
    }
  }
  for (int i = done + static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    op.template run<1>(first + i, by);
  }
}

template <class Op>
void launch_update(const Op& op, std::int64_t n_rows, cudaStream_t stream) {
  const std::int64_t n_pieces = pieces_of(op.of.n, kPiece);
  if (n_rows * n_pieces == 0) return;
  DDKERN_LAUNCH(update_kernel<Op>, static_cast<unsigned>(n_rows * n_pieces), kThreads, 0, stream,
                op, n_pieces);
}

struct Squares {
  static constexpr int kSums = 1;
  static __device__ void of(const double (&values)[1], double (&terms)[1]) {
    terms[0] = values[0] * values[0];
  }
  static __device__ void of(const double (&values)[2], double (&terms)[1]) {
    const double product = values[0] * values[1];
    terms[0] = product * product;
  }
};

// sums [n_rows][n_blocks]
template <int kLists>
__global__ void __launch_bounds__(kSumThreads)
    squares_kernel(AscentBlock whole, std::int64_t n_blocks, double* sums) {
  const std::int64_t row = blockIdx.x / n_blocks;
  const std::int64_t in_row = (blockIdx.x - row * n_blocks) * kTrajectoryBlock;
  const std::int64_t first = row * whole.n + in_row, rest = whole.n - in_row;
  const float* lists[kLists];
  lists[0] = whole.gradient + first;
  if constexpr (kLists == 2) lists[1] = whole.size + first;
  const int n =
      rest < kTrajectoryBlock ? static_cast<int>(rest) : static_cast<int>(kTrajectoryBlock);
  const double sum = sum_block<Squares>(lists, n);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// totals[row] of sums [n_rows][n_blocks]
__global__ void __launch_bounds__(kTotalThreads)
    row_total_kernel(const double* sums, std::int64_t n_blocks, int n_rows, double* totals) {
  const int row = total_of_warp();
  if (row >= n_rows) return;
  const double total = sum_in_order(sums + row * n_blocks, n_blocks);
  if (threadIdx.x % kWarp == 0) totals[row] = total;
}

}  // namespace

void linear_update(const LinearBlock& whole, float alpha, const Coefficient& beta,
                   const DeviceCall& call) {
  const OnDevice device(call.device);
  launch_update(Linear{whole, alpha, beta}, 1, static_cast<cudaStream_t>(call.stream));
}

void momentum_update(const MomentumBlock& whole, const Coefficient& lr, float momentum,
                     const DeviceCall& call) {
  const OnDevice device(call.device);
  launch_update(Momentum{whole, lr, momentum}, 1, static_cast<cudaStream_t>(call.stream));
}

std::int64_t ascent_workspace(std::int64_t n_rows, std::int64_t n) {
  return n_rows * (1 + pieces_of(n, kTrajectoryBlock));
}

void ascent_step(std::int64_t n_rows, const AscentBlock& whole, double rho, double* workspace,
                 const DeviceCall& call) {
  const OnDevice device(call.device);
  const auto stream = static_cast<cudaStream_t>(call.stream);
  const std::int64_t n_blocks = pieces_of(whole.n, kTrajectoryBlock);
  if (n_rows * n_blocks == 0) return;
  double* totals = workspace + n_rows * n_blocks;
  const auto grid = static_cast<unsigned>(n_rows * n_blocks);
  if (whole.size == nullptr) {
    DDKERN_LAUNCH(squares_kernel<1>, grid, kSumThreads, 0, stream, whole, n_blocks, workspace);
  } else {
    DDKERN_LAUNCH(squares_kernel<2>, grid, kSumThreads, 0, stream, whole, n_blocks, workspace);
  }
  DDKERN_LAUNCH(row_total_kernel, total_blocks(n_rows), kTotalThreads, 0, stream, workspace,
                n_blocks, static_cast<int>(n_rows), totals);
  launch_update(Ascent{whole, rho, totals}, n_rows, stream);
}

}  // namespace ddkern::matching::cuda
