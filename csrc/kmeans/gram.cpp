// SPDX-License-Identifier: Apache-2.0
#include "kmeans/gram.h"

#include <algorithm>

namespace ddkern::kmeans {

template <class T>
GramMatrix::GramMatrix(const Group<T>& group, const Team& team)
    : stride_(group.n_blocks() * kBlockPoints), entries_(stride_ * stride_) {
  const std::int64_t n_blocks = group.n_blocks();
  const DotsOps& dots = group.kernels().dots;
  Buffer<float> point_scratch(team.n_threads() * group.block_words());
  Buffer<float> column_scratch(team.n_threads() * group.block_words());
  RowScratch<T> rows(team.n_threads(), group.n_features(), kBlockPoints);
  // The upper triangle of blocks, row by row; the longest rows first, so that threads end together.
  team.for_ranges(n_blocks, 1, [&](std::int64_t begin, std::int64_t end, int thread) {
    float* point_words = point_scratch.data() + thread * group.block_words();
    float* column_words = column_scratch.data() + thread * group.block_words();
    alignas(64) float out[kTileColumns * kBlockPoints];
    for (std::int64_t a = begin; a < end; ++a) {
      const float* points = group.f32_block(a, point_words, rows, thread);
      for (std::int64_t b = a; b < n_blocks; ++b) {
        team.inner(thread).check();
        const float* columns = a == b ? points : group.f32_block(b, column_words, rows, thread);
        for (int first = 0; first < kBlockPoints;) {
          const int n_left = kBlockPoints - first;
          const int n_tiles = (n_left + kTileColumns - 1) / kTileColumns;
          const int width = (n_left + n_tiles - 1) / n_tiles;
          const void* at[kTileColumns];
          for (int c = 0; c < width; ++c) at[c] = columns + first + c;
          dots.chain_f32({points, at, kBlockPoints, width, group.n_features(), kInOrder, out});
          for (int c = 0; c < width; ++c) {
            const std::int64_t column = b * kBlockPoints + first + c;
            float* across = entries_.data() + column * stride_ + a * kBlockPoints;
            std::copy(out + c * kBlockPoints, out + (c + 1) * kBlockPoints, across);
            for (int p = 0; p < kBlockPoints; ++p) {
              entries_[(a * kBlockPoints + p) * stride_ + column] = out[c * kBlockPoints + p];
            }
          }
          first += width;
        }
      }
    }
  });
}

template GramMatrix::GramMatrix(const Group<float>&, const Team&);
template GramMatrix::GramMatrix(const Group<double>&, const Team&);

}  // namespace ddkern::kmeans
