// SPDX-License-Identifier: Apache-2.0
#include "kmeans/gram.h"

#include <algorithm>

namespace ddkern::kmeans {
namespace {

// All chains between two blocks, out [kBlockPoints][kBlockPoints]. Some features at a time, so that
// both stay in the first caches for all tiles.
void multiply_blocks(const DotsOps& dots, const float* points, const float* columns,
                     std::int64_t n_features, float* out) {
  constexpr std::int64_t kFeatures = 64;
  constexpr int kTiles = (kBlockPoints + kTileColumns - 1) / kTileColumns;
  std::int32_t to[kBlockPoints];
  for (int c = 0; c < kBlockPoints; ++c) to[c] = c;
  for (std::int64_t d = 0; d < n_features; d += kFeatures) {
    const std::int64_t depth = std::min(kFeatures, n_features - d);
    for (int tile = 0; tile < kTiles; ++tile) {
      const int first = kBlockPoints * tile / kTiles, last = kBlockPoints * (tile + 1) / kTiles;
      const void* at[kTileColumns];
      for (int c = first; c < last; ++c) at[c - first] = columns + d * kBlockPoints + c;
      dots.chain_f32({points + d * kBlockPoints, at, kBlockPoints, last - first, depth, to + first,
                      out, d > 0});
    }
  }
}

}  // namespace

template <class T>
GramMatrix::GramMatrix(const Group<T>& group, const Team& team)
    : stride_(group.n_blocks() * kBlockPoints), entries_(stride_ * stride_) {
  const std::int64_t n_blocks = group.n_blocks();
  const DotsOps& dots = group.kernels().dots;
  Buffer<float> point_scratch(team.n_threads() * group.block_words());
  Buffer<float> column_scratch(team.n_threads() * group.block_words());
  RowScratch<T> rows(team.n_threads(), group.n_features(), kBlockPoints);
  // The upper triangle of blocks, row by row; the longest rows first, so that threads end together.
  team.for_queue(n_blocks, [&](std::int64_t begin, std::int64_t end, int thread) {
    float* point_words = point_scratch.data() + thread * group.block_words();
    float* column_words = column_scratch.data() + thread * group.block_words();
    alignas(64) float out[kBlockPoints * kBlockPoints];
    for (std::int64_t a = begin; a < end; ++a) {
      const float* points = group.f32_block(a, point_words, rows, thread);
      for (std::int64_t b = a; b < n_blocks; ++b) {
        team.inner(thread).check();
        const float* columns = a == b ? points : group.f32_block(b, column_words, rows, thread);
        multiply_blocks(dots, points, columns, group.n_features(), out);
        for (int c = 0; c < kBlockPoints; ++c) {
          const std::int64_t column = b * kBlockPoints + c;
          float* across = entries_.data() + column * stride_ + a * kBlockPoints;
          std::copy(out + c * kBlockPoints, out + (c + 1) * kBlockPoints, across);
        }
        for (int p = 0; p < kBlockPoints; ++p) {
          float* down = entries_.data() + (a * kBlockPoints + p) * stride_ + b * kBlockPoints;
          for (int c = 0; c < kBlockPoints; ++c) down[c] = out[c * kBlockPoints + p];
        }
      }
    }
  });
}

template GramMatrix::GramMatrix(const Group<float>&, const Team&);
template GramMatrix::GramMatrix(const Group<double>&, const Team&);

}  // namespace ddkern::kmeans
