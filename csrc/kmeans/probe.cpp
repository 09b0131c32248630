// SPDX-License-Identifier: Apache-2.0
#include "kmeans/probe.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "core/buffer.h"
#include "core/parallel.h"
#include "kmeans/block.h"
#include "kmeans/dots/dots.h"

namespace ddkern::kmeans {
namespace {

template <class Work>
double best_seconds(const Work& work) {
  double best = 1e30;
  for (int round = 0; round < 5; ++round) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    best = std::min(best, spent.count());
  }
  return best;
}

}  // namespace

MachinePeak probe_peak(Isa isa, int n_threads) {
  constexpr std::int64_t kDepth = 64;  // 8 KiB of points and 3 KiB of columns: inside L1
  constexpr std::int64_t kHeader = 16, kStride = kDepth + kHeader;  // columns of bytes have one
  constexpr std::int64_t kCalls = 20000;
  const DotsOps& dots = dots_ops(isa);
  n_threads = safe_threads(n_threads);
  std::atomic<bool> cancelled{false};
  const Team team(n_threads, nullptr, &cancelled);

  // multiply(points, columns, out) is called for one tile.
  const auto giga_operations = [&](const auto& multiply, double operations_per_word) {
    const double seconds = best_seconds([&] {
      team.for_ranges(n_threads, 1, [&](std::int64_t, std::int64_t, int) {
        Buffer<float> points(kDepth * kBlockPoints), columns(kStride * kTileColumns);
        Buffer<float> out(kTileColumns * kBlockPoints);
        std::memset(points.data(), 0, sizeof(float) * kDepth * kBlockPoints);
        std::memset(columns.data(), 0, sizeof(float) * kStride * kTileColumns);
        for (std::int64_t call = 0; call < kCalls; ++call) {
          multiply(points.data(), columns.data(), out.data());
        }
      });
    });
    return static_cast<double>(n_threads) * kCalls * kDepth * kBlockPoints * kTileColumns *
           operations_per_word / seconds / 1e9;
  };
  const auto gflops = [&](void (*product)(const DotsArgs&) noexcept, double flops_per_word) {
    if (product == nullptr) return 0.0;
    return giga_operations(
        [&](const float* points, const float* columns, float* out) {
          const void* at[kTileColumns];
          for (int c = 0; c < kTileColumns; ++c) at[c] = columns + c * kStride;
          product({points, at, 1, kTileColumns, kDepth, kInOrder, out});
        },
        flops_per_word);
  };
  const ByteRun run{0, kHeader, kDepth, false};
  const auto byte_gops = [&] {
    if (dots.fast_bytes == nullptr) return 0.0;
    return giga_operations(
        [&](const float* points, const float* columns, float* out) {
          dots.fast_bytes({reinterpret_cast<const std::uint32_t*>(points), kBlockPoints,
                           reinterpret_cast<const std::uint32_t*>(columns), kStride, kInOrder,
                           kTileColumns, &run, 1, 0, 1, out});
        },
        8);
  };

  constexpr std::int64_t kBytes = std::int64_t{256} << 20;
  Buffer<char> from(kBytes), to(kBytes);
  std::memset(from.data(), 1, kBytes);
  std::memset(to.data(), 1, kBytes);
  const double seconds = best_seconds([&] {
    team.for_ranges(kBytes, std::int64_t{1} << 21, [&](std::int64_t begin, std::int64_t end, int) {
      std::memcpy(to.data() + begin, from.data() + begin, static_cast<std::size_t>(end - begin));
    });
  });
  return {gflops(dots.fast_f32, 2), gflops(dots.fast_bf16, 4), byte_gops(),
          2.0 * kBytes / seconds / 1e9};
}

}  // namespace ddkern::kmeans
