// SPDX-License-Identifier: Apache-2.0
#include "kmeans/cuda/products.h"

#include <algorithm>

#include "core/cuda/mma.cuh"
#include "kmeans/cuda/nearest.cuh"
#include "kmeans/cuda/product_stage.cuh"

namespace ddkern::kmeans::cuda {
namespace {

// Tiles of 128 rows by kColumns, cut among kWarpsM by kWarpsN warps. Wide tiles are bound by
// products and want large pieces a warp, which load less from shared memory; narrow ones are bound
// by device memory.
template <int kColumns, int kWarpsM, int kWarpsN, int kStages>
struct TileConfig {
  static constexpr int kThreads = kWarpsM * kWarpsN * 32;
  static constexpr int kRowsLoaded = kThreads / kChunks;  // at a time
  static constexpr int kRowsAWarp = kTileRows / kWarpsM, kColumnsAWarp = kColumns / kWarpsN;
  static constexpr int kTilesM = kRowsAWarp / 16, kTilesN = kColumnsAWarp / 8;
  static constexpr int kBytesA = kTileRows * kDepth * 2, kBytesB = kColumns * kDepth * 2;
  static constexpr int kSharedBytes = kStages * (kBytesA + kBytesB);
  static_assert(kTilesM >= 1 && kTilesN >= 2 && kTilesN % 2 == 0);
};

template <int kColumns, int kWarpsM, int kWarpsN, int kStages, bool kGram>
__global__ void __launch_bounds__(kWarpsM * kWarpsN * 32, kColumns > 128 ? 1 : 2)
    product_kernel(ChunkTables chunk, const ProductTile* product_tiles) {
  using Config = TileConfig<kColumns, kWarpsM, kWarpsN, kStages>;
  constexpr int kRowsLoaded = Config::kRowsLoaded;
  DDKERN_DYNAMIC_SHARED(unsigned char, shared);
  const ProductTile product_tile = product_tiles[blockIdx.x];
  const RowTile tile = chunk.tiles[product_tile.row_tile];
  if (!kGram && chunk.runs[tile.group].active == 0) return;
  const GroupShape& shape = chunk.shapes[tile.group];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int n_padded = chunk.n_padded;
  const int n_rows = static_cast<int>(shape.n) - tile.first;
  const std::int64_t n_all_columns = kGram ? shape.n : shape.k;
  const int n_columns = static_cast<int>(n_all_columns) - product_tile.first_column;
  const int load_row = thread / kChunks, load_chunk = thread % kChunks;
  const __half* from_a = chunk.halves + (shape.begin + tile.first) * n_padded + load_chunk * 8;
  const __half* from_b =
      (kGram ? chunk.halves + (shape.begin + product_tile.first_column) * n_padded
             : chunk.cell_halves + (shape.first_cell + product_tile.first_column) * n_padded) +
      load_chunk * 8;

  const auto load_stage = [&](int stage, int depth) {
    unsigned char* to_a = shared + stage * (Config::kBytesA + Config::kBytesB);
    unsigned char* to_b = to_a + Config::kBytesA;
#pragma unroll
    for (int r = 0; r < kTileRows; r += kRowsLoaded) {
      const int row = r + load_row;
      const bool valid = row < n_rows;
      ddkern::cuda::copy_async_16(
          to_a + swizzled(row, load_chunk),
          from_a + static_cast<std::int64_t>(valid ? row : 0) * n_padded + depth, valid);
    }
#pragma unroll
    for (int r = 0; r < kColumns; r += kRowsLoaded) {
      const int row = r + load_row;
      if (kColumns < kRowsLoaded && row >= kColumns) break;
      const bool valid = row < n_columns;
      ddkern::cuda::copy_async_16(
          to_b + swizzled(row, load_chunk),
          from_b + static_cast<std::int64_t>(valid ? row : 0) * n_padded + depth, valid);
    }
  };

  float sums[Config::kTilesM][Config::kTilesN][4] = {};
  const int n_steps = n_padded / kDepth;
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < n_steps) load_stage(s, s * kDepth);
    ddkern::cuda::copy_async_commit();
  }
  const int warp_row = warp / kWarpsN * Config::kRowsAWarp;
  const int warp_column = warp % kWarpsN * Config::kColumnsAWarp;
  // What a lane points a matrix load at: rows 0 to 15 of A in two chunks, and two tiles of B.
  const int a_row = warp_row + lane % 16, a_chunk = lane / 16;
  const int b_row = warp_column + lane % 8 + lane / 16 * 8, b_chunk = lane / 8 % 2;
  for (int step = 0; step < n_steps; ++step) {
    ddkern::cuda::copy_async_wait<kStages - 2>();
    __syncthreads();
    const int ahead = step + kStages - 1;
    if (ahead < n_steps) load_stage(ahead % kStages, ahead * kDepth);
    ddkern::cuda::copy_async_commit();
    const unsigned char* at_a = shared + step % kStages * (Config::kBytesA + Config::kBytesB);
    const unsigned char* at_b = at_a + Config::kBytesA;
#pragma unroll
    for (int depth = 0; depth < kChunks; depth += 2) {
      std::uint32_t a[Config::kTilesM][4];
#pragma unroll
      for (int m = 0; m < Config::kTilesM; ++m) {
        ddkern::cuda::load_matrix_x4(a[m], at_a + swizzled(a_row + m * 16, a_chunk + depth));
      }
#pragma unroll
      for (int n = 0; n < Config::kTilesN; n += 2) {
        std::uint32_t pair[4];
        ddkern::cuda::load_matrix_x4(pair, at_b + swizzled(b_row + n * 8, b_chunk + depth));
        const std::uint32_t left[2] = {pair[0], pair[1]}, right[2] = {pair[2], pair[3]};
#pragma unroll
        for (int m = 0; m < Config::kTilesM; ++m) {
          ddkern::cuda::mma_f16(sums[m][n], a[m], left);
          ddkern::cuda::mma_f16(sums[m][n + 1], a[m], right);
        }
      }
    }
  }

  float* scores =
      chunk.scores + tile.scores + static_cast<std::int64_t>(product_tile.first_column) * kTileRows;
#pragma unroll
  for (int m = 0; m < Config::kTilesM; ++m) {
#pragma unroll
    for (int n = 0; n < Config::kTilesN; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = warp_row + m * 16 + lane / 4 + e / 2 * 8;
        const int column = warp_column + n * 8 + lane % 4 * 2 + e % 2;
        if (row >= n_rows || column >= n_columns) continue;
        const float value = sums[m][n][e] * kProductUnit;
        if constexpr (kGram) {
          const std::int64_t i = tile.first + row, j = product_tile.first_column + column;
          if (j > i) continue;
          chunk.gram[shape.gram + j * shape.gram_stride + i] = value;
          chunk.gram[shape.gram + i * shape.gram_stride + j] = value;
        } else {
          scores[column * kTileRows + row] = value;
        }
      }
    }
  }
}

// --- products and scan in one ------------------------------------------------------------------

// A block has a tile of rows in shared memory and goes through the cells, 64 at a time. A thread
// keeps the least scores of four rows among a quarter of the columns.
struct ScanConfig {
  static constexpr int kColumns = 64, kWarps = 4, kStages = 4;
  static constexpr int kThreads = kWarps * 32, kRowsLoaded = kThreads / kChunks;
  static constexpr int kTilesM = 2, kTilesN = kColumns / 8;
  struct Stage {
    unsigned char cells[kColumns * kDepth * 2];
    CellBound bounds[kColumns];  // with the last features of a cell
  };
};

__global__ void __launch_bounds__(ScanConfig::kThreads, 2) product_scan_kernel(ChunkTables chunk) {
  using Config = ScanConfig;
  constexpr int kKept = kListed + 1;
  DDKERN_DYNAMIC_SHARED(unsigned char, shared);
  auto* const stages = reinterpret_cast<Config::Stage*>(shared);
  unsigned char* const rows = shared + Config::kStages * sizeof(Config::Stage);
  const RowTile tile = chunk.tiles[blockIdx.x];
  GroupRun& run = chunk.runs[tile.group];
  if (run.active == 0) return;
  const GroupShape& shape = chunk.shapes[tile.group];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int n_padded = chunk.n_padded, n_depths = n_padded / kDepth;
  const int n_rows = static_cast<int>(shape.n) - tile.first;
  const int load_row = thread / kChunks, load_chunk = thread % kChunks;
  const __half* from_rows = chunk.halves + (shape.begin + tile.first) * n_padded + load_chunk * 8;
  const __half* from_cells = chunk.cell_halves + shape.first_cell * n_padded + load_chunk * 8;
  for (int depth = 0; depth < n_depths; ++depth) {
#pragma unroll
    for (int r = 0; r < kTileRows; r += Config::kRowsLoaded) {
      const int row = r + load_row;
      const bool valid = row < n_rows;
      ddkern::cuda::copy_async_16(
          rows + depth * kTileRows * kDepth * 2 + swizzled(row, load_chunk),
          from_rows + static_cast<std::int64_t>(valid ? row : 0) * n_padded + depth * kDepth,
          valid);
    }
  }
  const int n_tiles = (shape.k + Config::kColumns - 1) / Config::kColumns;
  const int n_steps = n_tiles * n_depths;
  const auto load_stage = [&](int step) {
    Config::Stage& stage = stages[step % Config::kStages];
    const int first = step / n_depths * Config::kColumns, depth = step % n_depths;
#pragma unroll
    for (int r = 0; r < Config::kColumns; r += Config::kRowsLoaded) {
      const int row = r + load_row;
      const bool valid = first + row < shape.k;
      ddkern::cuda::copy_async_16(
          stage.cells + swizzled(row, load_chunk),
          from_cells + static_cast<std::int64_t>(valid ? first + row : 0) * n_padded +
              depth * kDepth,
          valid);
    }
    if (depth == n_depths - 1 && thread < Config::kColumns) {
      const bool valid = first + thread < shape.k;
      ddkern::cuda::copy_async_16(&stage.bounds[thread],
                                  chunk.bounds + shape.first_cell + (valid ? first + thread : 0),
                                  valid);
    }
  };
#pragma unroll
  for (int s = 0; s < Config::kStages - 1; ++s) {
    if (s < n_steps) load_stage(s);
    ddkern::cuda::copy_async_commit();
  }
  const int warp_row = warp * 32;
  const int a_row = warp_row + lane % 16, a_chunk = lane / 16;
  const int b_row = lane % 8 + lane / 16 * 8, b_chunk = lane / 8 % 2;
  float row_lost[2 * Config::kTilesM], row_norm[2 * Config::kTilesM];
  LeastScores<kKept> found[2 * Config::kTilesM];
#pragma unroll
  for (int r = 0; r < 2 * Config::kTilesM; ++r) {
    const int row = warp_row + r * 8 + lane / 4;
    const std::int64_t position = shape.begin + tile.first + (row < n_rows ? row : 0);
    row_lost[r] = chunk.lost[position];
    row_norm[r] = chunk.norms[position];
    found[r].limit = limit_from_before(chunk, shape, position, row_lost[r], row_norm[r]);
  }
  float sums[Config::kTilesM][Config::kTilesN][4] = {};
  for (int step = 0; step < n_steps; ++step) {
    ddkern::cuda::copy_async_wait<Config::kStages - 2>();
    __syncthreads();
    if (step + Config::kStages - 1 < n_steps) load_stage(step + Config::kStages - 1);
    ddkern::cuda::copy_async_commit();
    const int depth_step = step % n_depths;
    const Config::Stage& stage = stages[step % Config::kStages];
    const unsigned char* at_a = rows + depth_step * kTileRows * kDepth * 2;
#pragma unroll
    for (int depth = 0; depth < kChunks; depth += 2) {
      std::uint32_t a[Config::kTilesM][4];
#pragma unroll
      for (int m = 0; m < Config::kTilesM; ++m) {
        ddkern::cuda::load_matrix_x4(a[m], at_a + swizzled(a_row + m * 16, a_chunk + depth));
      }
#pragma unroll
      for (int n = 0; n < Config::kTilesN; n += 2) {
        std::uint32_t pair[4];
        ddkern::cuda::load_matrix_x4(pair, stage.cells + swizzled(b_row + n * 8, b_chunk + depth));
        const std::uint32_t left[2] = {pair[0], pair[1]}, right[2] = {pair[2], pair[3]};
#pragma unroll
        for (int m = 0; m < Config::kTilesM; ++m) {
          ddkern::cuda::mma_f16(sums[m][n], a[m], left);
          ddkern::cuda::mma_f16(sums[m][n + 1], a[m], right);
        }
      }
    }
    if (depth_step != n_depths - 1) continue;
    scan_tile<Config::kTilesN>(
        found, row_lost, row_norm, stage.bounds, step / n_depths * Config::kColumns, shape.k,
        [&](int r, int n, int half) -> float& { return sums[r / 2][n][r % 2 * 2 + half]; });
#pragma unroll
    for (auto& row_sums : sums) {
#pragma unroll
      for (auto& tile_sums : row_sums) {
#pragma unroll
        for (float& sum : tile_sums) sum = 0;
      }
    }
  }
  int n_open = 0;
#pragma unroll
  for (int r = 0; r < 2 * Config::kTilesM; ++r) {
    n_open +=
        decide_by_four(chunk, tile, warp_row + r * 8 + lane / 4, is_wild(row_norm[r]), found[r]);
  }
  n_open = ddkern::cuda::warp_reduce(n_open, ddkern::cuda::Sum{});
  if (lane == 0 && n_open > 0) {
    ddkern::cuda::atomic_add(&run.n_rechecked, static_cast<std::int64_t>(n_open));
  }
}

template <int kColumns, int kWarpsM, int kWarpsN, int kStages, bool kGram>
void launch(const ChunkTables& chunk, const ProductTile* tiles, int n_tiles, int shared_bytes,
            cudaStream_t stream) {
  if (n_tiles == 0) return;
  using Config = TileConfig<kColumns, kWarpsM, kWarpsN, kStages>;
  // A stage fewer where there is no room for all.
  if constexpr (Config::kSharedBytes > kLeastSharedBytes) {
    if (Config::kSharedBytes > shared_bytes) {
      return launch<kColumns, kWarpsM, kWarpsN, kStages - 1, kGram>(chunk, tiles, n_tiles,
                                                                    shared_bytes, stream);
    }
  }
  DDKERN_LAUNCH((product_kernel<kColumns, kWarpsM, kWarpsN, kStages, kGram>), n_tiles,
                Config::kThreads, Config::kSharedBytes, stream, chunk, tiles);
}

}  // namespace

void multiply_with_cells(const ChunkTables& chunk, const ProductTile* tiles, int n_tiles,
                         int columns, int shared_bytes, cudaStream_t stream) {
  switch (columns) {
    case 16: return launch<16, 8, 1, 5, false>(chunk, tiles, n_tiles, shared_bytes, stream);
    case 32: return launch<32, 4, 2, 5, false>(chunk, tiles, n_tiles, shared_bytes, stream);
    case 64: return launch<64, 4, 2, 4, false>(chunk, tiles, n_tiles, shared_bytes, stream);
    case 128: return launch<128, 2, 2, 3, false>(chunk, tiles, n_tiles, shared_bytes, stream);
    default: return launch<256, 2, 4, 4, false>(chunk, tiles, n_tiles, shared_bytes, stream);
  }
}

void multiply_rows(const ChunkTables& chunk, const ProductTile* tiles, int n_tiles,
                   int shared_bytes, cudaStream_t stream) {
  launch<kGramColumns, 2, 4, 4, true>(chunk, tiles, n_tiles, shared_bytes, stream);
}

int most_features_scanned(int shared_bytes) {
  constexpr int kMost = 512;
  constexpr int kBytesAFeature = kTileRows * static_cast<int>(sizeof(__half));
  const int bytes =
      shared_bytes - ScanConfig::kStages * static_cast<int>(sizeof(ScanConfig::Stage));
  return std::min(kMost, bytes / kBytesAFeature / kPadding * kPadding);
}

void multiply_and_scan(const ChunkTables& chunk, cudaStream_t stream) {
  const std::size_t bytes = ScanConfig::kStages * sizeof(ScanConfig::Stage) +
                            static_cast<std::size_t>(kTileRows * chunk.n_padded) * sizeof(__half);
  DDKERN_LAUNCH(product_scan_kernel, chunk.n_tiles, ScanConfig::kThreads, bytes, stream, chunk);
}

double product_error(int n_padded) {
  return n_padded / 16 * ddkern::cuda::kMmaError * (1 + 0x1p-10);
}

}  // namespace ddkern::kmeans::cuda
