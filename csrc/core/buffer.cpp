// SPDX-License-Identifier: Apache-2.0
#include "core/buffer.h"

#include <cstdlib>
#include <map>
#include <mutex>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace ddkern {
namespace {

constexpr std::int64_t kHugePage = std::int64_t{2} << 20;
// Smaller blocks go straight to malloc, and under AddressSanitizer all of them do: a block that
// waits in the pool would hide its use after release.
#if defined(__SANITIZE_ADDRESS__)
constexpr std::int64_t kSmallest = std::int64_t{1} << 62;
#else
constexpr std::int64_t kSmallest = std::int64_t{64} << 10;
#endif

struct Pool {
  std::mutex mutex;
  std::multimap<std::int64_t, void*> blocks;
  std::int64_t bytes = 0;
};

// Never destroyed: buffers may outlive static destruction.
Pool& pool() {
  static Pool* const the_pool = new Pool;
  return *the_pool;
}

// Sizes are rounded so that groups of nearly the same size can use each other's blocks.
std::int64_t rounded(std::int64_t bytes) {
  if (bytes < kSmallest) return (bytes + 63) / 64 * 64;
  std::int64_t step = kSmallest;
  while (step * 16 < bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

void* fresh(std::int64_t bytes) {
  const std::int64_t alignment = bytes >= 2 * kHugePage ? kHugePage : 64;
  const std::int64_t size = (bytes + alignment - 1) / alignment * alignment;
  void* block =
      std::aligned_alloc(static_cast<std::size_t>(alignment), static_cast<std::size_t>(size));
  if (block == nullptr) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (alignment == kHugePage) madvise(block, static_cast<std::size_t>(size), MADV_HUGEPAGE);
#endif
  return block;
}

}  // namespace

void* pool_allocate(std::int64_t bytes) {
  if (bytes <= 0) return nullptr;
  const std::int64_t size = rounded(bytes);
  if (size >= kSmallest) {
    // After a fork the lock may belong to a thread that is gone: then the pool is left alone.
    const std::unique_lock<std::mutex> lock(pool().mutex, std::try_to_lock);
    if (lock.owns_lock()) {
      const auto found = pool().blocks.find(size);
      if (found != pool().blocks.end()) {
        void* block = found->second;
        pool().blocks.erase(found);
        pool().bytes -= size;
        return block;
      }
    }
  }
  return fresh(size);
}

void pool_release(void* block, std::int64_t bytes) noexcept {
  if (block == nullptr) return;
  const std::int64_t size = rounded(bytes);
  if (size >= kSmallest) {
    const std::unique_lock<std::mutex> lock(pool().mutex, std::try_to_lock);
    if (lock.owns_lock()) {
      try {
        pool().blocks.emplace(size, block);
        pool().bytes += size;
        return;
      } catch (const std::bad_alloc&) {
        // No room to remember it: give it back below.
      }
    }
  }
  std::free(block);
}

void trim_pool() noexcept {
  const std::unique_lock<std::mutex> lock(pool().mutex, std::try_to_lock);
  if (!lock.owns_lock()) return;
  while (pool().bytes > kPooledBytes) {
    const auto largest = std::prev(pool().blocks.end());
    pool().bytes -= largest->first;
    std::free(largest->second);
    pool().blocks.erase(largest);
  }
}

}  // namespace ddkern
