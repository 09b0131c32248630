// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>

#include "core/cuda/launch.h"
#include "core/cuda/pieces.h"
#include "core/cuda/reduce.cuh"
#include "matching/cuda/distribution.h"
#include "matching/cuda/mmd_plan.h"
#include "matching/cuda/mmd_tile.cuh"
#include "matching/cuda/sums.cuh"

namespace ddkern::matching::cuda {
namespace {

using ddkern::cuda::OnDevice;
using ddkern::cuda::pieces_of;

using SmallTile = Tile<16, 4, 2, 32>;
using MiddleTile = Tile<32, 4, 4, 16>;
using LargeTile = Tile<64, 8, 4, 16>;

// run(Tile{}) for the tile of this side.
template <class Run>
void with_tile(TileSide side, const Run& run) {
  switch (side) {
    case TileSide::kSmall: return run(SmallTile{});
    case TileSide::kMiddle: return run(MiddleTile{});
    case TileSide::kLarge: return run(LargeTile{});
  }
}

int multiprocessors(int device) {
  int n = 0;
  DDKERN_CUDA_TRY(cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device));
  return n;
}

__device__ __forceinline__ int points_of_panel(std::int64_t n, std::int64_t panel) {
  const std::int64_t rest = n - panel * kPanel;
  return rest < kPanel ? static_cast<int>(rest) : kPanel;
}

// Squared distances whose kernels a thread sums at once.
constexpr int kAtOnce = 4;
static_assert(kPanel % kAtOnce == 0);

// --- means ---------------------------------------------------------------------------------------

// Sums of the kernel over the pairs of two panels, one panel a row: those of x and x [n_x, n_x], of
// x and y [n_x, n_y], of y and y [n_y, n_y]; of a set and itself only from the diagonal on. Then
// the sums of these rows.
struct PanelSums {
  std::int64_t n_x, n_y;
  double* xx;
  double* xy;
  double* yy;
  double* rows;  // [n_x + n_x + n_y]
};

// A thread block has a tile of panels. There are as many blocks as if a set and itself had a square
// of tiles; those below its diagonal end at once.
template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads)
    panel_sums_kernel(PointSet x, PointSet y, std::int64_t n_features,
                      const __grid_constant__ Rates rates, PanelSums panels) {
  constexpr int kSide = Tile::kSide;
  __shared__ __align__(16) double memory[Tile::kShared];
  const std::int64_t tiles_x = (x.n + kSide - 1) / kSide, tiles_y = (y.n + kSide - 1) / kSide;
  std::int64_t tile = blockIdx.x;
  PointSet a = x, b = x;
  std::int64_t n_a = panels.n_x, n_b = panels.n_x, tiles_b = tiles_x;
  double* sums = panels.xx;
  bool within = true;
  if (tile >= tiles_x * tiles_x) {
    tile -= tiles_x * tiles_x;
    within = tile >= tiles_x * tiles_y;
    b = y;
    n_b = panels.n_y;
    tiles_b = tiles_y;
    sums = panels.xy;
    if (within) {
      tile -= tiles_x * tiles_y;
      a = y;
      n_a = panels.n_y;
      sums = panels.yy;
    }
  }
  const std::int64_t tile_a = tile / tiles_b, tile_b = tile - tile_a * tiles_b;
  if (within && tile_a > tile_b) return;
  tile_squares<Tile>(a, tile_a * kSide, b, tile_b * kSide, n_features, memory);

  // A thread has a point of b and the points of a panel of a, in their order.
  constexpr int kItems = Tile::kPanels * kSide;
  for (int first = 0; first < kItems; first += Tile::kThreads) {
    const int item = first + static_cast<int>(threadIdx.x);
    const int panel = item / kSide, column = item % kSide;
    const std::int64_t i = tile_a * Tile::kPanels + panel;
    const std::int64_t j = tile_b * Tile::kPanels + column / kPanel;
    const bool counts = item < kItems && i < n_a && j < n_b && !(within && i > j);
    double total = 0;
    if (counts) {
      const int n = points_of_panel(a.n, i);
      for (int p = 0; p < n; p += kAtOnce) {
        double squares[kAtOnce], values[kAtOnce];
#pragma unroll
        for (int v = 0; v < kAtOnce; ++v) {
          squares[v] = memory[(panel * kPanel + p + v) * Tile::kPitch + column];
        }
        sum_kernels<false>(rates, squares, values);
#pragma unroll
        for (int v = 0; v < kAtOnce; ++v) {
          if (p + v < n) total = __dadd_rn(total, values[v]);
        }
      }
    }
    // Lanes that are 8, 4, 2 and 1 apart: the tree of the CPU.
#pragma unroll
    for (int h = kPanel / 2; h > 0; h /= 2) total += __shfl_xor_sync(kAllLanes, total, h);
    if (counts && column % kPanel == 0) sums[i * n_b + j] = total;
  }
}

constexpr int kRowThreads = 128;
constexpr int kRowWarps = kRowThreads / kWarp;

// A warp has a row of panels.
__global__ void __launch_bounds__(kRowThreads) panel_rows_kernel(PanelSums panels) {
  const std::int64_t which =
      static_cast<std::int64_t>(blockIdx.x) * kRowWarps + threadIdx.x / kWarp;
  double sum = 0;
  if (which < panels.n_x || which >= 2 * panels.n_x) {
    const bool of_x = which < panels.n_x;
    const std::int64_t n = of_x ? panels.n_x : panels.n_y,
                       i = of_x ? which : which - 2 * panels.n_x;
    if (i >= n) return;
    const double* const diagonal = (of_x ? panels.xx : panels.yy) + i * n + i;
    // Two different panels stand for two pairs of them.
    sum = diagonal[0] + 2.0 * sum_in_order(diagonal + 1, n - i - 1);
  } else {
    sum = sum_in_order(panels.xy + (which - panels.n_x) * panels.n_y, panels.n_y);
  }
  if (threadIdx.x % kWarp == 0) panels.rows[which] = sum;
}

struct PairCounts {
  double xx, xy, yy;
};

// A warp has a mean.
__global__ void __launch_bounds__(3 * kWarp)
    means_kernel(PanelSums panels, PairCounts pairs, double* means) {
  const int which = static_cast<int>(threadIdx.x) / kWarp;
  const std::int64_t first = which * panels.n_x, n = which == 2 ? panels.n_y : panels.n_x;
  const double sum = sum_in_order(panels.rows + first, n);
  const double count = which == 0 ? pairs.xx : which == 1 ? pairs.xy : pairs.yy;
  if (threadIdx.x % kWarp == 0) means[which] = __ddiv_rn(sum, count);
}

// --- pull ----------------------------------------------------------------------------------------

// Panels of x that a launch is about, and the weights of their points: for each of these panels and
// each of all, those of x and then those of y, a matrix [kPanel of all][kPanel of x].
struct Stripe {
  std::int64_t first, n;  // panels of x
  std::int64_t n_x, n_y;
  double* weights;
};

constexpr int kPairs = kPanel * kPanel;

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads)
    weights_kernel(PointSet x, PointSet y, std::int64_t n_features,
                   const __grid_constant__ Rates rates, const double* own, const double* cross,
                   Stripe stripe) {
  constexpr int kSide = Tile::kSide;
  __shared__ __align__(16) double memory[Tile::kShared];
  const std::int64_t tiles_x = (x.n + kSide - 1) / kSide, tiles_y = (y.n + kSide - 1) / kSide;
  const std::int64_t tile_a = blockIdx.x / (tiles_x + tiles_y);
  std::int64_t tile_b = blockIdx.x - tile_a * (tiles_x + tiles_y);
  const bool of_own = tile_b < tiles_x;
  if (!of_own) tile_b -= tiles_x;
  const PointSet b{of_own ? x.n : y.n, of_own ? x.rows : y.rows};
  const std::int64_t first_a = stripe.first * kPanel + tile_a * kSide;
  tile_squares<Tile>(x, first_a, b, tile_b * kSide, n_features, memory);

  const double factor = of_own ? *own : *cross;
  const std::int64_t n_b = of_own ? stripe.n_x : stripe.n_y, n_all = stripe.n_x + stripe.n_y;
  constexpr int kEach = kSide * kSide / Tile::kThreads;
  static_assert(kEach % kAtOnce == 0);
#pragma unroll 1
  for (int e = 0; e < kEach; e += kAtOnce) {
    double squares[kAtOnce], values[kAtOnce];
#pragma unroll
    for (int v = 0; v < kAtOnce; ++v) {
      const int item = (e + v) * Tile::kThreads + static_cast<int>(threadIdx.x);
      const int row = item / (kSide * kPanel) * kPanel + item % kPanel;
      squares[v] = memory[row * Tile::kPitch + item / kPanel % kSide];
    }
    sum_kernels<true>(rates, squares, values);
#pragma unroll
    for (int v = 0; v < kAtOnce; ++v) {
      const int item = (e + v) * Tile::kThreads + static_cast<int>(threadIdx.x);
      const int point = item / kPanel % kSide;
      const std::int64_t i = tile_a * Tile::kPanels + item / (kSide * kPanel);
      const std::int64_t j = tile_b * Tile::kPanels + point / kPanel;
      if (i < stripe.n && j < n_b) {
        const std::int64_t pair = i * n_all + (of_own ? 0 : stripe.n_x) + j;
        stripe.weights[pair * kPairs + point % kPanel * kPanel + item % kPanel] =
            __dmul_rn(factor, values[v]);
      }
    }
  }
}

constexpr int kPullThreads = 64;
constexpr int kPullFeatures = 64;
constexpr int kPullRows = 4, kPullColumns = 4;  // of a thread
constexpr int kPullGroups = kPullFeatures / kPullColumns;
static_assert(kPullThreads == kPanel / kPullRows * kPullGroups);

// What a thread fetches of a panel: a feature of its points, and some of the weights.
struct PullFetch {
  static constexpr int kWeights = kPairs / kPullThreads;
  float values[kPanel];
  double weights[kWeights];

  __device__ __forceinline__ void load(const float* rows, int n_points, std::int64_t feature,
                                       std::int64_t n_features, const double* of_pair) {
    const bool exists = feature < n_features;
#pragma unroll
    for (int p = 0; p < kPanel; ++p) {
      values[p] = exists && p < n_points ? rows[p * n_features + feature] : 0.0f;
    }
#pragma unroll
    for (int w = 0; w < kWeights; ++w) weights[w] = of_pair[w * kPullThreads + threadIdx.x];
  }
};

// A thread block has a panel of x and some features.
__global__ void __launch_bounds__(kPullThreads)
    pull_kernel(PointSet x, PointSet y, std::int64_t n_features, Stripe stripe,
                std::int64_t n_tiles, float* out) {
  __shared__ __align__(16) double weights[2][kPairs];  // [kPanel of all][kPanel of x]
  __shared__ __align__(16) double values[2][kPanel][kPullFeatures];
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t of_stripe = blockIdx.x / n_tiles;
  const std::int64_t first_feature = (blockIdx.x - of_stripe * n_tiles) * kPullFeatures;
  const std::int64_t n_all = stripe.n_x + stripe.n_y;
  const double* const from = stripe.weights + of_stripe * n_all * kPairs;
  const auto fetch = [&](std::int64_t panel, PullFetch& fetched) {
    const bool of_x = panel < stripe.n_x;
    const std::int64_t number = of_x ? panel : panel - stripe.n_x;
    fetched.load((of_x ? x.rows : y.rows) + number * kPanel * n_features,
                 points_of_panel(of_x ? x.n : y.n, number), first_feature + thread, n_features,
                 from + panel * kPairs);
  };

  // Columns of a thread come in pairs, one load each.
  const int row = thread / kPullGroups * kPullRows, column = thread % kPullGroups * 2;
  const std::int64_t first_point = (stripe.first + of_stripe) * kPanel + row;
  double at[kPullRows][kPullColumns], sums[kPullRows][kPullColumns];
#pragma unroll
  for (int r = 0; r < kPullRows; ++r) {
#pragma unroll
    for (int c = 0; c < kPullColumns; ++c) {
      const std::int64_t feature = first_feature + c / 2 * 2 * kPullGroups + column + c % 2;
      const bool exists = first_point + r < x.n && feature < n_features;
      at[r][c] = exists ? x.rows[(first_point + r) * n_features + feature] : 0.0;
      sums[r][c] = 0;
    }
  }

  PullFetch next;
  fetch(0, next);
  int stage = 0;
  for (std::int64_t panel = 0; panel < n_all; ++panel, stage ^= 1) {
#pragma unroll
    for (int p = 0; p < kPanel; ++p) values[stage][p][thread] = static_cast<double>(next.values[p]);
#pragma unroll
    for (int w = 0; w < PullFetch::kWeights; ++w) {
      weights[stage][w * kPullThreads + thread] = next.weights[w];
    }
    const int n =
        panel < stripe.n_x ? points_of_panel(x.n, panel) : points_of_panel(y.n, panel - stripe.n_x);
    if (panel + 1 < n_all) fetch(panel + 1, next);
    // The only one a panel: who is past it has read the other stage.
    __syncthreads();
#pragma unroll 2
    for (int p = 0; p < n; ++p) {
      double u[kPullRows], v[kPullColumns];
#pragma unroll
      for (int r = 0; r < kPullRows; r += 2) {
        const double2 two =
            *reinterpret_cast<const double2*>(&weights[stage][p * kPanel + row + r]);
        u[r] = two.x;
        u[r + 1] = two.y;
      }
#pragma unroll
      for (int c = 0; c < kPullColumns; c += 2) {
        const double2 two =
            *reinterpret_cast<const double2*>(&values[stage][p][c * kPullGroups + column]);
        v[c] = two.x;
        v[c + 1] = two.y;
      }
#pragma unroll
      for (int r = 0; r < kPullRows; ++r) {
#pragma unroll
        for (int c = 0; c < kPullColumns; ++c) {
          sums[r][c] = __dadd_rn(sums[r][c], __dmul_rn(u[r], __dsub_rn(at[r][c], v[c])));
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kPullRows; ++r) {
#pragma unroll
    for (int c = 0; c < kPullColumns; ++c) {
      const std::int64_t feature = first_feature + c / 2 * 2 * kPullGroups + column + c % 2;
      if (first_point + r < x.n && feature < n_features) {
        out[(first_point + r) * n_features + feature] = __double2float_rn(sums[r][c]);
      }
    }
  }
}

}  // namespace

std::int64_t mmd_workspace(std::int64_t n, std::int64_t m) {
  const std::int64_t n_x = panels_of(n), n_y = panels_of(m);
  return n_x * n_x + n_x * n_y + n_y * n_y + 2 * n_x + n_y;
}

void mmd_means(const PointSet& x, const PointSet& y, std::int64_t n_features, const Rates& rates,
               double* workspace, double* means, const DeviceCall& call) {
  const OnDevice device(call.device);
  const auto stream = static_cast<cudaStream_t>(call.stream);
  const std::int64_t n_x = panels_of(x.n), n_y = panels_of(y.n);
  double* const xy = workspace + n_x * n_x;
  double* const yy = xy + n_x * n_y;
  const PanelSums panels{n_x, n_y, workspace, xy, yy, yy + n_y * n_y};
  with_tile(side_for_means(x.n, y.n, multiprocessors(call.device)), [&](auto tile) {
    using Chosen = decltype(tile);
    const std::int64_t of_x = pieces_of(x.n, Chosen::kSide), of_y = pieces_of(y.n, Chosen::kSide);
    const std::int64_t n_tiles = of_x * of_x + of_x * of_y + of_y * of_y;
    DDKERN_LAUNCH(panel_sums_kernel<Chosen>, static_cast<unsigned>(n_tiles), Chosen::kThreads, 0,
                  stream, x, y, n_features, rates, panels);
  });
  DDKERN_LAUNCH(panel_rows_kernel, static_cast<unsigned>(pieces_of(2 * n_x + n_y, kRowWarps)),
                kRowThreads, 0, stream, panels);
  const auto n = static_cast<double>(x.n), m = static_cast<double>(y.n);
  DDKERN_LAUNCH(means_kernel, 1, 3 * kWarp, 0, stream, panels, PairCounts{n * n, n * m, m * m},
                means);
}

std::int64_t pull_workspace(std::int64_t n, std::int64_t m) {
  return stripe_panels(n, m) * (panels_of(n) + panels_of(m)) * kPairs;
}

void mmd_pull(const PointSet& x, const PointSet& y, std::int64_t n_features, const Rates& rates,
              const double* own, const double* cross, double* workspace, float* out,
              const DeviceCall& call) {
  const OnDevice device(call.device);
  const auto stream = static_cast<cudaStream_t>(call.stream);
  const std::int64_t n_x = panels_of(x.n), n_y = panels_of(y.n), step = stripe_panels(x.n, y.n);
  const std::int64_t n_tiles = pieces_of(n_features, kPullFeatures);
  if (n_tiles == 0) return;
  const TileSide side =
      side_for_weights(std::min(x.n, step * kPanel), x.n, y.n, multiprocessors(call.device));
  for (std::int64_t first = 0; first < n_x; first += step) {
    const Stripe stripe{first, std::min(step, n_x - first), n_x, n_y, workspace};
    with_tile(side, [&](auto tile) {
      using Chosen = decltype(tile);
      const std::int64_t rows = pieces_of(stripe.n, Chosen::kPanels);
      const std::int64_t columns = pieces_of(x.n, Chosen::kSide) + pieces_of(y.n, Chosen::kSide);
      DDKERN_LAUNCH(weights_kernel<Chosen>, static_cast<unsigned>(rows * columns), Chosen::kThreads,
                    0, stream, x, y, n_features, rates, own, cross, stripe);
    });
    DDKERN_LAUNCH(pull_kernel, static_cast<unsigned>(stripe.n * n_tiles), kPullThreads, 0, stream,
                  x, y, n_features, stripe, n_tiles, out);
  }
}

}  // namespace ddkern::matching::cuda
