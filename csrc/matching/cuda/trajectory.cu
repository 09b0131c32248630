// SPDX-License-Identifier: Apache-2.0
#include "matching/cuda/trajectory.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "core/cuda/launch.h"
#include "core/cuda/tensor_table.cuh"
#include "core/cuda/values.cuh"
#include "matching/cuda/sums.cuh"

namespace ddkern::matching::cuda {
namespace {

using ddkern::cuda::count_pieces;
using ddkern::cuda::find_piece;
using ddkern::cuda::is_aligned;
using ddkern::cuda::kLargeTable;
using ddkern::cuda::kSmallTable;
using ddkern::cuda::launch_pieces;
using ddkern::cuda::OnDevice;
using ddkern::cuda::Pack;
using ddkern::cuda::Piece;
using ddkern::cuda::PieceLaunch;
using ddkern::cuda::pieces_of;
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

// Blocks first[i] to first[i + 1] are those of total i.
template <int kCapacity>
struct TotalRanges {
  std::int64_t first[kCapacity + 1];
};

// Of sums [n_sums][n_all], the n_ranges totals of each sum into totals [..][n_totals]; those after
// the last sum are 0. One warp a total.
template <int kCapacity>
__global__ void __launch_bounds__(kTotalThreads)
    range_total_kernel(const __grid_constant__ TotalRanges<kCapacity> ranges, int n_ranges,
                       const double* sums, std::int64_t n_all, int n_sums, int n_kinds,
                       std::int64_t n_totals, double* totals) {
  const int which = total_of_warp();
  if (which >= n_kinds * n_ranges) return;
  const int kind = which / n_ranges, range = which % n_ranges;
  const std::int64_t first = ranges.first[range];
  const std::int64_t n = kind < n_sums ? ranges.first[range + 1] - first : 0;
  const double total = sum_in_order(sums + kind * n_all + first, n);
  if (threadIdx.x % kWarp == 0) totals[kind * n_totals + range] = total;
}

template <int kCapacity>
void launch_ranges(const std::int64_t* first, std::int64_t n_ranges, const double* sums,
                   std::int64_t n_all, int n_sums, int n_kinds, std::int64_t n_totals,
                   double* totals, cudaStream_t stream) {
  TotalRanges<kCapacity> ranges = {};
  std::copy(first, first + n_ranges + 1, ranges.first);
  DDKERN_LAUNCH(range_total_kernel<kCapacity>, total_blocks(n_kinds * n_ranges), kTotalThreads, 0,
                stream, ranges, static_cast<int>(n_ranges), sums, n_all, n_sums, n_kinds, n_totals,
                totals);
}

// Where the blocks of each total begin, for tensors in the order of totals, and where they end.
std::vector<std::int64_t> total_ranges(const std::vector<std::int64_t>& sizes,
                                       const TotalOf& total_of, std::int64_t n_totals) {
  std::vector<std::int64_t> first(n_totals + 1);
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    first[total_of[i] + 1] += pieces_of(sizes[i], kTrajectoryBlock);
  }
  std::partial_sum(first.begin(), first.end(), first.begin());
  return first;
}

// totals [n_kinds, n_totals], of which those that the term does not have are 0.
template <class Term, class T>
void launch_sums(const std::vector<TrajectoryBlock<T>>& given, const TotalOf& total_of,
                 std::int64_t n_totals, double* workspace, int n_kinds, double* totals,
                 cudaStream_t stream) {
  // Blocks of one total lie side by side.
  std::vector<std::int64_t> order(given.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int64_t a, std::int64_t b) { return total_of[a] < total_of[b]; });
  std::vector<TrajectoryBlock<T>> tensors;
  for (const std::int64_t i : order) tensors.push_back(given[i]);
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
  const std::vector<std::int64_t> first = total_ranges(sizes_of(given), total_of, n_totals);
  for (std::int64_t begin = 0; begin < n_totals; begin += kLargeTable) {
    const std::int64_t n = std::min<std::int64_t>(kLargeTable, n_totals - begin);
    const auto launch = n <= kSmallTable ? launch_ranges<kSmallTable> : launch_ranges<kLargeTable>;
    launch(first.data() + begin, n, workspace, n_all, Term::kSums, n_kinds, n_totals,
           totals + begin, stream);
  }
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

template <int kCapacity>
struct FactorOf {
  std::int32_t total[kCapacity];  // of each tensor of a table
};

template <class T, int kCapacity>
__global__ void __launch_bounds__(kThreads)
    difference_kernel(const __grid_constant__ TensorTable<T, 3, kCapacity> table,
                      const __grid_constant__ FactorOf<kCapacity> factor_of,
                      const double* factors) {
  using Values = Pack<T>;
  const Piece piece = find_piece(table, kDifferencePiece);
  const float by = static_cast<float>(factors[factor_of.total[piece.tensor]]);
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
void trajectory_sums(const std::vector<TrajectoryBlock<T>>& tensors, const TotalOf& total_of,
                     std::int64_t n_totals, bool with_start, double* workspace, double* sums,
                     const DeviceCall& call) {
  const OnDevice device(call.device);
  const auto stream = static_cast<cudaStream_t>(call.stream);
  const auto run =
      with_start ? launch_sums<SquaredDistances<3>, T> : launch_sums<SquaredDistances<2>, T>;
  run(tensors, total_of, n_totals, workspace, 2, sums, stream);
}

template <class T>
void absolute_sums(const std::vector<TrajectoryBlock<T>>& tensors, const TotalOf& total_of,
                   std::int64_t n_totals, double* workspace, double* sums, const DeviceCall& call) {
  const OnDevice device(call.device);
  launch_sums<AbsoluteDistance>(tensors, total_of, n_totals, workspace, 1, sums,
                                static_cast<cudaStream_t>(call.stream));
}

template <class T>
void scaled_difference(const std::vector<DifferenceBlock<T>>& tensors, const TotalOf& total_of,
                       const double* factors, const DeviceCall& call) {
  const OnDevice device(call.device);
  const auto stream = static_cast<cudaStream_t>(call.stream);
  const auto pointers = [&](std::int64_t i) {
    return std::array<T*, 3>{const_cast<T*>(tensors[i].a), const_cast<T*>(tensors[i].b),
                             tensors[i].out};
  };
  launch_pieces<T, 3>(
      sizes_of(tensors), kDifferencePiece, pointers,
      [&](const auto& table, const PieceLaunch& launch) {
        constexpr int kCapacity = sizeof(table.n) / sizeof(table.n[0]);
        FactorOf<kCapacity> factor_of = {};
        for (std::int64_t i = launch.first; i < launch.last; ++i) {
          factor_of.total[i - launch.first] = static_cast<std::int32_t>(total_of[i]);
        }
        DDKERN_LAUNCH((difference_kernel<T, kCapacity>), static_cast<unsigned>(launch.n_pieces),
                      kThreads, 0, stream, table, factor_of, factors);
      });
}

#define DDKERN_INSTANTIATE(T)                                                             \
  template void trajectory_sums(const std::vector<TrajectoryBlock<T>>&, const TotalOf&,   \
                                std::int64_t, bool, double*, double*, const DeviceCall&); \
  template void absolute_sums(const std::vector<TrajectoryBlock<T>>&, const TotalOf&,     \
                              std::int64_t, double*, double*, const DeviceCall&);         \
  template void scaled_difference(const std::vector<DifferenceBlock<T>>&, const TotalOf&, \
                                  const double*, const DeviceCall&)

DDKERN_INSTANTIATE(float);
DDKERN_INSTANTIATE(Bfloat16);

}  // namespace ddkern::matching::cuda
