// SPDX-License-Identifier: Apache-2.0
#include "kmeans/weights.h"

#include <algorithm>
#include <cmath>

namespace ddkern::kmeans {
namespace {

int bit_length(unsigned __int128 v) {
  int bits = 0;
  for (; v != 0; v >>= 1) ++bits;
  return bits;
}

}  // namespace

Weights canonical_weights(const double* sample_weight, const std::int64_t* rows,
                          std::int64_t first_row, std::int64_t n) {
  const auto weight = [&](std::int64_t i) {
    return sample_weight[rows != nullptr ? rows[i] : first_row + i];
  };
  double largest = 0;
  std::int64_t n_raw = n;
  if (sample_weight != nullptr) {
    n_raw = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      largest = std::max(largest, weight(i));
      n_raw += weight(i) > 0;
    }
  }
  const int head = std::max(
      22, bit_length(static_cast<unsigned __int128>(std::max<std::int64_t>(n_raw - 1, 0))));
  Weights found;
  found.grid_bits = 62 - head;
  if (sample_weight == nullptr) {
    found.n_positive = found.total_units = n;
    found.total_weight = static_cast<double>(n);
    return found;
  }
  int exponent = 0;
  if (largest != 0) std::frexp(largest, &exponent);
  unsigned __int128 total = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    total += static_cast<std::uint64_t>(std::ldexp(weight(i), -exponent) * 0x1p40);
  }
  const int lift = head + 40 - bit_length(total);
  found.units.resize(static_cast<std::size_t>(n));
  found.canonical.resize(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) {
    const double b = std::ldexp(weight(i), -exponent);
    // std::nearbyint in the default rounding mode: ties to even.
    const auto units =
        static_cast<std::int64_t>(std::nearbyint(std::ldexp(b, lift + found.grid_bits)));
    found.units[static_cast<std::size_t>(i)] = units;
    found.canonical[static_cast<std::size_t>(i)] =
        std::ldexp(static_cast<double>(units), -found.grid_bits);
    found.total_units += units;
    found.n_positive += units > 0;
  }
  found.total_weight =
      std::ldexp(static_cast<double>(found.total_units), exponent - lift - found.grid_bits);
  return found;
}

}  // namespace ddkern::kmeans
