// SPDX-License-Identifier: Apache-2.0
// Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a counter
// in, 128 random bits out, no state. The CPU and the GPU draw the same numbers.
#pragma once

#include <array>
#include <cstdint>

namespace ddkern {

inline std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                           std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<std::uint32_t>(product0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

// The random stream of one group: docs/numerics.md section 7.
struct GroupStream {
  std::uint64_t seed;
  std::int64_t group_id;

  // Uniform in [0, 1), 53 bits.
  double uniform(std::uint32_t step, std::uint32_t restart, std::uint32_t trial) const {
    const auto id = static_cast<std::uint64_t>(group_id);
    const auto words =
        philox({step, restart * 65536u + trial, static_cast<std::uint32_t>(id),
                static_cast<std::uint32_t>(id >> 32)},
               {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
    const std::uint64_t bits = (std::uint64_t{words[0]} << 32) | words[1];
    return static_cast<double>(bits >> 11) * 0x1p-53;
  }
};

}  // namespace ddkern
