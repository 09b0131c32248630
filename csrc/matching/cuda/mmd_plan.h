// SPDX-License-Identifier: Apache-2.0
// Which tiles of distances between points a thread block has, and for how many points weights are
// kept. Pure functions of sizes: they run without a device, and no result depends on them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/cuda/pieces.h"
#include "matching/mmd/mmd.h"

namespace ddkern::matching::cuda {

inline std::int64_t panels_of(std::int64_t n_points) {
  return ddkern::cuda::pieces_of(n_points, kPanel);
}

// Points on a side of a tile.
enum class TileSide : int { kSmall = 16, kMiddle = 32, kLarge = 64 };

// Large tiles load least for a product, small ones are done soonest where there are few of them.
// count(side): tiles that there are.
template <class Count>
TileSide choose_side(const Count& count, int n_multiprocessors) {
  struct Choice {
    TileSide side;
    int at_once;  // of a multiprocessor, which has four parts
    int time;     // of a feature, in cycles: products, or loads from shared memory
  };
  constexpr Choice kChoices[] = {
      {TileSide::kLarge, 1, 64}, {TileSide::kMiddle, 2, 40}, {TileSide::kSmall, 4, 24}};
  TileSide best = TileSide::kLarge;
  std::int64_t least = 0;
  for (const Choice& choice : kChoices) {
    const std::int64_t tiles = count(static_cast<int>(choice.side));
    const std::int64_t rounds = ddkern::cuda::pieces_of(tiles, choice.at_once * n_multiprocessors);
    const std::int64_t time = rounds * choice.time;
    if (choice.side == TileSide::kLarge || time < least) {
      best = choice.side;
      least = time;
    }
  }
  return best;
}

// For all pairs of x, of x and y, and of y.
inline TileSide side_for_means(std::int64_t n, std::int64_t m, int n_multiprocessors) {
  const auto count = [=](int side) {
    const std::int64_t of_x = ddkern::cuda::pieces_of(n, side);
    const std::int64_t of_y = ddkern::cuda::pieces_of(m, side);
    return of_x * (of_x + 1) / 2 + of_x * of_y + of_y * (of_y + 1) / 2;
  };
  return choose_side(count, n_multiprocessors);
}

// For `n_rows` points of x, with all of x and of y.
inline TileSide side_for_weights(std::int64_t n_rows, std::int64_t n, std::int64_t m,
                                 int n_multiprocessors) {
  const auto count = [=](int side) {
    using ddkern::cuda::pieces_of;
    return pieces_of(n_rows, side) * (pieces_of(n, side) + pieces_of(m, side));
  };
  return choose_side(count, n_multiprocessors);
}

// Panels of x whose weights are kept at a time: 32 MiB of them, which the cache of a large device
// has room for, and more only where that would leave most of the device without work. Whole large
// tiles.
inline std::int64_t stripe_panels(std::int64_t n, std::int64_t m) {
  constexpr std::int64_t kWeights = 4 << 20, kLeast = 8, kOfTile = 64 / kPanel;
  const std::int64_t of_panel = (panels_of(n) + panels_of(m)) * kPanel * kPanel;
  const std::int64_t fitting = kWeights / std::max<std::int64_t>(of_panel, 1);
  const std::int64_t panels = std::max(kLeast, fitting / kOfTile * kOfTile);
  return std::min(panels, panels_of(n));
}

}  // namespace ddkern::matching::cuda
