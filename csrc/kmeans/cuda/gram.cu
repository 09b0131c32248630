// SPDX-License-Identifier: Apache-2.0
#include "kmeans/cuda/gram.h"

#include "kmeans/cuda/arithmetic.cuh"

namespace ddkern::kmeans::cuda {
namespace {

// A thread has a row of the tile and goes through cells.
__global__ void __launch_bounds__(kTileRows)
    score_rows_kernel(ChunkTables chunk, const std::int32_t* seeds) {
  const RowTile tile = chunk.tiles[blockIdx.x];
  const GroupShape& shape = chunk.shapes[tile.group];
  const std::int64_t i = tile.first + static_cast<int>(threadIdx.x);
  if (i >= shape.n) return;
  const float* gram = chunk.gram + shape.gram + i;
  float* scores = chunk.scores + tile.scores + threadIdx.x;
  double* combined = chunk.combined + shape.combined + i;
  for (int c = 0; c < shape.k; ++c) {
    const std::int64_t seed = seeds[shape.first_cell + c];
    scores[static_cast<std::int64_t>(c) * kTileRows] = gram[seed * shape.gram_stride];
    combined[static_cast<std::int64_t>(c) * shape.gram_stride] = 0;
  }
}

__global__ void __launch_bounds__(kTileRows) score_means_kernel(ChunkTables chunk) {
  const RowTile tile = chunk.tiles[blockIdx.x];
  if (chunk.runs[tile.group].active == 0) return;
  const GroupShape& shape = chunk.shapes[tile.group];
  const std::int64_t i = tile.first + static_cast<int>(threadIdx.x);
  if (i >= shape.n) return;
  const float* gram = chunk.gram + shape.gram + i;
  float* scores = chunk.scores + tile.scores + threadIdx.x;
  double* combined = chunk.combined + shape.combined + i;
  for (int c = static_cast<int>(blockIdx.y); c < shape.k; c += static_cast<int>(gridDim.y)) {
    const std::int64_t cell = shape.first_cell + c;
    const int n_events = chunk.n_events[cell];
    const bool reseeded = chunk.reseeded[cell] >= 0;
    if (n_events == 0 && !reseeded) continue;
    double sum = combined[static_cast<std::int64_t>(c) * shape.gram_stride];
    const std::int32_t* events = chunk.events + chunk.cell_events[cell].begin;
    const auto term = [&](int e) {
      const std::int32_t event = events[e];
      const double product = gram[static_cast<std::int64_t>(event / 2) * shape.gram_stride];
      const double weight = chunk.weights == nullptr ? 1.0 : chunk.weights[shape.begin + event / 2];
      return event % 2 != 0 ? -weight * product : weight * product;
    };
    // Whole batches have no condition on their loads, which would keep them apart.
    constexpr int kAhead = 4;
    int e = 0;
    for (; e + kAhead <= n_events; e += kAhead) {
      double values[kAhead];
#pragma unroll
      for (int a = 0; a < kAhead; ++a) values[a] = term(e + a);
#pragma unroll
      for (int a = 0; a < kAhead; ++a) sum += values[a];
    }
    for (; e < n_events; ++e) sum += term(e);
    if (n_events > 0) combined[static_cast<std::int64_t>(c) * shape.gram_stride] = sum;
    const std::int64_t units = chunk.cell_units[cell];
    // A cell that lost its last row stays where it was, unless it was seeded again.
    if (units == 0 && !reseeded) continue;
    const int source = chunk.source_row[cell];
    scores[static_cast<std::int64_t>(c) * kTileRows] =
        source >= 0 ? gram[static_cast<std::int64_t>(source) * shape.gram_stride]
                    : static_cast<float>(sum / static_cast<double>(units) * shape.mean_factor);
  }
}

}  // namespace

void score_rows(const ChunkTables& chunk, const std::int32_t* seeds, cudaStream_t stream) {
  DDKERN_LAUNCH(score_rows_kernel, chunk.n_tiles, kTileRows, 0, stream, chunk, seeds);
}

void score_means(const ChunkTables& chunk, cudaStream_t stream) {
  // Late iterations have few events a cell: what counts is how many cells are under way.
  constexpr unsigned kCellsAtOnce = 4;
  const dim3 grid(static_cast<unsigned>(chunk.n_tiles), kCellsAtOnce);
  DDKERN_LAUNCH(score_means_kernel, grid, kTileRows, 0, stream, chunk);
}

}  // namespace ddkern::kmeans::cuda
