// SPDX-License-Identifier: Apache-2.0
#include "matching/cuda/trajectory.h"

#include <array>

#include "core/cuda/launch.h"
#include "core/cuda/tensor_table.cuh"
#include "core/cuda/values.cuh"
#include "matching/cuda/sums.cuh"

namespace ddkern::matching::cuda {
namespace {

using ddkern::cuda::count_pieces;
using ddkern::cuda::find_piece;
using ddkern::cuda::is_aligned;
using ddkern::cuda::launch_pieces;
using ddkern::cuda::OnDevice;
using ddkern::cuda::Pack;
using ddkern::cuda::Piece;
using ddkern::cuda::PieceLaunch;
using ddkern::cuda::round_to;
using ddkern::cuda::TensorTable;
using ddkern::cuda::to_float;

constexpr int kThreads = 256;

// --- sums ----------------------------------------------------------------------------------------

// Of target, student and start.
template <int kOfLists>
struct SquaredDistances {
  static constexpr int kLists = kOfLists, kSums = kLists - 1;
  static __device__ void of(const double (&values)[kLists], double (&terms)[kSums]) {
#pragma unroll
    for (int s = 0; s < kSums; ++s) {
      const double d = values[s + 1] - values[0];
      terms[s] = d * d;
    }
  }
};

struct AbsoluteDistance {
  static constexpr int kLists = 2, kSums = 1;
  static __device__ void of(const double (&values)[2], double (&terms)[1]) {
    terms[0] = fabs(values[1] - values[0]);
  }
};

// One block of values a thread block; sums [Term::kSums][n_all].
template <class Term, class T, int kCapacity>
__global__ void __launch_bounds__(kSumThreads)
    sums_kernel(const __grid_constant__ TensorTable<T, 3, kCapacity> table, std::int64_t n_all,
                double* sums) {
  const Piece piece = find_piece(table, kTrajectoryBlock);
  const T* lists[Term::kLists];
#pragma unroll
  for (int list = 0; list < Term::kLists; ++list) {
    lists[list] = table.at[list][piece.tensor] + piece.first;
  }
  const double sum = sum_block<Term>(lists, piece.n);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  if (threadIdx.x % kWarp == 0 && warp < Term::kSums) sums[warp * n_all + blockIdx.x] = sum;
}

template <class Tensor>
std::vector<std::int64_t> sizes_of(const std::vector<Tensor>& tensors) {
  std::vector<std::int64_t> sizes;
  for (const Tensor& tensor : tensors) sizes.push_back(tensor.n);
  return sizes;
}

// totals [n_totals], of which those that the term does not have are 0.
template <class Term, class T>
void launch_sums(const std::vector<TrajectoryBlock<T>>& tensors, double* workspace, int n_totals,
                 double* totals, cudaStream_t stream) {
  const std::vector<std::int64_t> sizes = sizes_of(tensors);
  const std::int64_t n_all = count_pieces(sizes, kTrajectoryBlock);
  const auto pointers = [&](std::int64_t i) {
    // The table holds one kind of pointer; the kernel reads only.
    return std::array<T*, 3>{const_cast<T*>(tensors[i].target), const_cast<T*>(tensors[i].student),
                             const_cast<T*>(tensors[i].start)};
  };
  launch_pieces<T, 3>(
      sizes, kTrajectoryBlock, pointers, [&](const auto& table, const PieceLaunch& launch) {
        constexpr int kCapacity = sizeof(table.n) / sizeof(table.n[0]);
        DDKERN_LAUNCH((sums_kernel<Term, T, kCapacity>), static_cast<unsigned>(launch.n_pieces),
                      kSumThreads, 0, stream, table, n_all, workspace + launch.first_piece);
      });
  launch_totals(workspace, n_all, Term::kSums, n_totals, totals, stream);
}

// --- difference ----------------------------------------------------------------------------------

// Not part of the result: enough blocks for a device from a small network, enough to do for each.
constexpr int kDifferencePiece = 4096;

template <class T>
__device__ __forceinline__ T scaled(T a, T b, float factor) {
  T out;
  round_to(__fmul_rn(factor, __fsub_rn(to_float(a), to_float(b))), out);
  return out;
}

template <class T, int kCapacity>
__global__ void __launch_bounds__(kThreads)
    difference_kernel(const __grid_constant__ TensorTable<T, 3, kCapacity> table,
                      const double* factor) {
  using Values = Pack<T>;
  const float by = static_cast<float>(*factor);
  const Piece piece = find_piece(table, kDifferencePiece);
  const T* a = table.at[0][piece.tensor] + piece.first;
  const T* b = table.at[1][piece.tensor] + piece.first;
  T* out = table.at[2][piece.tensor] + piece.first;
  int done = 0;
  if (is_aligned(a) && is_aligned(b) && is_aligned(out)) {
    const int n_packs = piece.n / Values::kValues;
    done = n_packs * Values::kValues;
#pragma unroll 2
    for (int p = static_cast<int>(threadIdx.x); p < n_packs; p += kThreads) {
      const Values from = reinterpret_cast<const Values*>(a)[p];
      const Values minus = reinterpret_cast<const Values*>(b)[p];
      Values to;
#pragma unroll
      for (int v = 0; v < Values::kValues; ++v) {
        to.value[v] = scaled(from.value[v], minus.value[v], by);
      }
      reinterpret_cast<Values*>(out)[p] = to;
    }
  }
  for (int i = done + static_cast<int>(threadIdx.x); i < piece.n; i += kThreads) {
    out[i] = scaled(a[i], b[i], by);
  }
}

}  // namespace

std::int64_t trajectory_workspace(const std::vector<std::int64_t>& sizes) {
  return 2 * count_pieces(sizes, kTrajectoryBlock);
}

template <class T>
void trajectory_sums(const std::vector<TrajectoryBlock<T>>& tensors, bool with_start,
                     double* workspace, double* sums, const DeviceCall& call) {
  const OnDevice device(call.device);
  const auto stream = static_cast<cudaStream_t>(call.stream);
  if (with_start) {
    launch_sums<SquaredDistances<3>>(tensors, workspace, 2, sums, stream);
  } else {
    launch_sums<SquaredDistances<2>>(tensors, workspace, 2, sums, stream);
  }
}

template <class T>
void absolute_sum(const std::vector<TrajectoryBlock<T>>& tensors, double* workspace, double* sum,
                  const DeviceCall& call) {
  const OnDevice device(call.device);
  launch_sums<AbsoluteDistance>(tensors, workspace, 1, sum, static_cast<cudaStream_t>(call.stream));
}

template <class T>
void scaled_difference(const std::vector<DifferenceBlock<T>>& tensors, const double* factor,
                       const DeviceCall& call) {
  const OnDevice device(call.device);
  const auto stream = static_cast<cudaStream_t>(call.stream);
  const auto pointers = [&](std::int64_t i) {
    return std::array<T*, 3>{const_cast<T*>(tensors[i].a), const_cast<T*>(tensors[i].b),
                             tensors[i].out};
  };
  launch_pieces<T, 3>(sizes_of(tensors), kDifferencePiece, pointers,
                      [&](const auto& table, const PieceLaunch& launch) {
                        constexpr int kCapacity = sizeof(table.n) / sizeof(table.n[0]);
                        DDKERN_LAUNCH((difference_kernel<T, kCapacity>),
                                      static_cast<unsigned>(launch.n_pieces), kThreads, 0, stream,
                                      table, factor);
                      });
}

#define DDKERN_INSTANTIATE(T)                                                                   \
  template void trajectory_sums(const std::vector<TrajectoryBlock<T>>&, bool, double*, double*, \
                                const DeviceCall&);                                             \
  template void absolute_sum(const std::vector<TrajectoryBlock<T>>&, double*, double*,          \
                             const DeviceCall&);                                                \
  template void scaled_difference(const std::vector<DifferenceBlock<T>>&, const double*,        \
                                  const DeviceCall&)

DDKERN_INSTANTIATE(float);
DDKERN_INSTANTIATE(Bfloat16);

}  // namespace ddkern::matching::cuda
