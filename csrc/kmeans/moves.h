// SPDX-License-Identifier: Apache-2.0
// The rows that changed cell in a pass.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/buffer.h"
#include "kmeans/block.h"

namespace ddkern::kmeans {

struct Move {
  std::int64_t row;
  std::int32_t from, to;  // from is -1 in the first pass
};

// Blocks are filled on any thread; once they are joined, the moves come in order of the blocks.
class Moves {
 public:
  explicit Moves(std::int64_t n_blocks)
      : all_(n_blocks * kBlockPoints), n_of_block_(static_cast<std::size_t>(n_blocks)) {}

  void clear_block(std::int64_t block) { n_of_block_[static_cast<std::size_t>(block)] = 0; }
  void add(std::int64_t block, const Move& move) {
    all_[block * kBlockPoints + n_of_block_[static_cast<std::size_t>(block)]++] = move;
  }
  void join() {
    end_ = all_.data();
    const Move* from = all_.data();
    for (const int n : n_of_block_) {
      if (from != end_) std::copy(from, from + n, end_);
      end_ += n;
      from += kBlockPoints;
    }
  }
  const Move* begin() const { return all_.data(); }
  const Move* end() const { return end_; }
  std::int64_t size() const { return end_ - all_.data(); }

 private:
  Buffer<Move> all_;
  std::vector<int> n_of_block_;
  Move* end_ = nullptr;
};

}  // namespace ddkern::kmeans
