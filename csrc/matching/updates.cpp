// SPDX-License-Identifier: Apache-2.0
#include "matching/updates.h"

#include <cmath>
#include <vector>

#include "core/buffer.h"
#include "core/float_mode.h"
#include "matching/blocks.h"

namespace ddkern::matching {
namespace {

template <class Block, class Run>
void for_blocks_of(const Block& whole, int n_threads, const Run& run) {
  const std::vector<Block> tensors{whole};
  for_blocks(tensors, count_blocks(tensors), n_threads, run);
}

}  // namespace

void linear_update(const LinearBlock& whole, float alpha, float beta, int n_threads) {
  const StandardFloatMode float_mode;
  const auto& ops = update_ops(active_isa());
  for_blocks_of(whole, n_threads,
                [&](const LinearBlock& of, std::int64_t first, std::int64_t n, std::int64_t) {
                  ops.linear({n, of.x + first, of.y + first, of.out + first}, alpha, beta);
                });
}

void momentum_update(const MomentumBlock& whole, float lr, float momentum, int n_threads) {
  const StandardFloatMode float_mode;
  const auto& ops = update_ops(active_isa());
  for_blocks_of(whole, n_threads,
                [&](const MomentumBlock& of, std::int64_t first, std::int64_t n, std::int64_t) {
                  ops.momentum({n, of.theta + first, of.velocity + first, of.gradient + first,
                                of.theta_out + first, of.velocity_out + first},
                               lr, momentum);
                });
}

void ascent_step(std::int64_t n_rows, const AscentBlock& whole, double rho, int n_threads) {
  const StandardFloatMode float_mode;
  const auto& ops = update_ops(active_isa());
  std::vector<AscentBlock> rows;
  for (std::int64_t row = 0; row < n_rows; ++row) {
    const std::int64_t at = row * whole.n;
    rows.push_back({whole.n, whole.gradient + at, whole.size == nullptr ? nullptr : whole.size + at,
                    whole.out + at});
  }
  const auto part = [](const AscentBlock& of, std::int64_t first, std::int64_t n) {
    return AscentBlock{n, of.gradient + first, of.size == nullptr ? nullptr : of.size + first,
                       of.out + first};
  };
  const std::int64_t n_blocks = count_blocks(rows), of_row = blocks_of(whole.n);
  Buffer<double> squares(n_blocks);
  for_blocks(rows, n_blocks, n_threads,
             [&](const AscentBlock& of, std::int64_t first, std::int64_t n, std::int64_t block) {
               squares.data()[block] = ops.squares(part(of, first, n));
             });
  std::vector<float> factors;
  for (std::int64_t row = 0; row < n_rows; ++row) {
    double total = 0;
    for (std::int64_t b = 0; b < of_row; ++b) total += squares.data()[row * of_row + b];
    factors.push_back(total == 0 ? 0.0f : static_cast<float>(rho / std::sqrt(total)));
  }
  for_blocks(rows, n_blocks, n_threads,
             [&](const AscentBlock& of, std::int64_t first, std::int64_t n, std::int64_t block) {
               ops.ascent(part(of, first, n), factors[static_cast<std::size_t>(block / of_row)]);
             });
}

}  // namespace ddkern::matching
