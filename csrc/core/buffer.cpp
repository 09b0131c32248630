// SPDX-License-Identifier: Apache-2.0
#include "core/buffer.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace ddkern {
namespace {

// Smaller blocks go straight to malloc, and under AddressSanitizer all of them do: a block that
// waits in the pool would hide its use after release.
#if defined(__SANITIZE_ADDRESS__)
constexpr std::int64_t kSmallest = std::int64_t{1} << 62;
#else
constexpr std::int64_t kSmallest = std::int64_t{64} << 10;
#endif

// Pooled blocks come from the kernel where that is possible: what goes back to malloc may stay with
// the process, and a mapping can give its end back while the rest is used.
#if defined(__linux__)
constexpr bool kMapped = true;
#else
constexpr bool kMapped = false;
#endif

struct Pool {
  std::mutex mutex;
  std::vector<PoolBlock> waiting;  // first the one that waits longest
  std::int64_t waiting_bytes = 0;
  // The rest needs no lock, so that it stays true where the lock is not to be had.
  std::atomic<std::int64_t> bytes{0};  // in use and waiting
  std::atomic<std::int64_t> budget{0};
  std::atomic<int> n_budgets{0};
};

// Never destroyed: buffers may outlive static destruction.
Pool& pool() {
  static Pool* const the_pool = new Pool;
  return *the_pool;
}

// After a fork the lock may belong to a thread that is gone: then the pool is left alone. While
// threads live it is held for a moment only.
std::unique_lock<std::mutex> try_to_lock_pool() {
  for (int attempt = 0; attempt < 64; ++attempt) {
    std::unique_lock<std::mutex> lock(pool().mutex, std::try_to_lock);
    if (lock.owns_lock()) return lock;
    std::this_thread::yield();
  }
  return {};
}

std::int64_t page_bytes() {
#if defined(__linux__)
  static const std::int64_t bytes = sysconf(_SC_PAGESIZE);
  return bytes;
#else
  return 4096;
#endif
}

// By at most a sixteenth, so that groups of nearly the same size use each other's blocks as they
// are.
std::int64_t rounded(std::int64_t bytes) {
  if (bytes < kSmallest) return (bytes + 63) / 64 * 64;
  std::int64_t step = page_bytes();
  while (step * 32 < bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

#if defined(__linux__)
constexpr std::int64_t kHugePage = std::int64_t{2} << 20;

void unmap(void* data, std::int64_t bytes) {
  if (bytes > 0) munmap(data, static_cast<std::size_t>(bytes));
}

// On huge pages where it is large enough for some, which must then be aligned.
void* map(std::int64_t bytes) {
  const bool huge = bytes >= 2 * kHugePage;
  const std::int64_t mapped = bytes + (huge ? kHugePage : 0);
  void* const start = mmap(nullptr, static_cast<std::size_t>(mapped), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) return nullptr;
  if (!huge) return start;
  const auto address = reinterpret_cast<std::uintptr_t>(start);
  const std::int64_t before = -static_cast<std::int64_t>(address) & (kHugePage - 1);
  char* const data = static_cast<char*>(start) + before;
  unmap(start, before);
  unmap(data + bytes, mapped - before - bytes);
#if defined(MADV_HUGEPAGE)
  madvise(data, static_cast<std::size_t>(bytes), MADV_HUGEPAGE);
#endif
  return data;
}
#endif

void* fresh(std::int64_t bytes) {
#if defined(__linux__)
  if (bytes >= kSmallest) return map(bytes);
#endif
  return std::aligned_alloc(64, static_cast<std::size_t>(bytes));
}

void give_back(const PoolBlock& block) noexcept {
  if (block.capacity >= kSmallest) pool().bytes -= block.capacity;
#if defined(__linux__)
  if (block.capacity >= kSmallest) return unmap(block.data, block.capacity);
#endif
  std::free(block.data);
}

// The smallest waiting block of `bytes` to `most`, or nothing. With `cut`, what is too much of it
// goes back to the kernel.
PoolBlock reuse(std::int64_t bytes, std::int64_t most, [[maybe_unused]] bool cut) {
  PoolBlock found;
  {
    const auto lock = try_to_lock_pool();
    if (!lock.owns_lock()) return {};
    auto& waiting = pool().waiting;
    auto best = waiting.end();
    for (auto block = waiting.begin(); block != waiting.end(); ++block) {
      if (block->capacity < bytes || block->capacity > most) continue;
      if (best == waiting.end() || block->capacity < best->capacity) best = block;
    }
    if (best == waiting.end()) return {};
    found = *best;
    waiting.erase(best);
    pool().waiting_bytes -= found.capacity;
  }
#if defined(__linux__)
  if (cut) {
    unmap(static_cast<char*>(found.data) + bytes, found.capacity - bytes);
    pool().bytes -= found.capacity - bytes;
    found.capacity = bytes;
  }
#endif
  return found;
}

// Gives the block that has waited longest back to the system. False when there is none.
bool give_back_oldest() noexcept {
  PoolBlock oldest;
  {
    const auto lock = try_to_lock_pool();
    if (!lock.owns_lock() || pool().waiting.empty()) return false;
    oldest = pool().waiting.front();
    pool().waiting.erase(pool().waiting.begin());
    pool().waiting_bytes -= oldest.capacity;
  }
  give_back(oldest);
  return true;
}

bool is_beyond_budget(std::int64_t bytes) {
  return pool().n_budgets > 0 && pool().bytes + bytes > pool().budget;
}

// Waiting blocks give way until what is in use is within the budget of the calls under way.
void make_room() noexcept {
  while (is_beyond_budget(0)) {
    if (!give_back_oldest()) return;
  }
}

}  // namespace

PoolBlock pool_allocate(std::int64_t bytes) {
  if (bytes <= 0) return {};
  const std::int64_t size = rounded(bytes);
  const bool pooled = size >= kSmallest;
  if (pooled) {
    PoolBlock block = reuse(size, size + size / 8, false);
    // A larger one is cut only where memory is short: it will be asked for again as it is.
    if (block.data == nullptr && kMapped && is_beyond_budget(size)) {
      block = reuse(size, 2 * size, true);
    }
    if (block.data != nullptr) return block;
    // Counted before it is made, or threads that allocate together would not see each other.
    pool().bytes += size;
    make_room();
  }
  void* data = fresh(size);
  if (data == nullptr) {
    while (give_back_oldest()) {
    }
    data = fresh(size);
  }
  if (data == nullptr) {
    if (pooled) pool().bytes -= size;
    throw std::bad_alloc();
  }
  return {data, size};
}

void pool_release(const PoolBlock& block) noexcept {
  if (block.data == nullptr) return;
  if (block.capacity >= kSmallest) {
    const auto lock = try_to_lock_pool();
    const bool within_call = pool().n_budgets > 0;
    if (lock.owns_lock() &&
        (within_call || pool().waiting_bytes + block.capacity <= kPooledBytes)) {
      try {
        pool().waiting.push_back(block);
        pool().waiting_bytes += block.capacity;
        return;
      } catch (const std::bad_alloc&) {
        // No room to remember it: give it back below.
      }
    }
  }
  give_back(block);
}

// Clamped so that the sum of many cannot overflow.
PoolBudget::PoolBudget(std::int64_t bytes)
    : bytes_(std::clamp<std::int64_t>(bytes, 0, std::int64_t{1} << 50)) {
  pool().budget += bytes_;
  ++pool().n_budgets;
  make_room();
}

PoolBudget::~PoolBudget() {
  pool().budget -= bytes_;
  if (--pool().n_budgets > 0) {
    make_room();
    return;
  }
  const std::int64_t kept = std::min(kPooledBytes, bytes_);
  for (;;) {
    {
      const auto lock = try_to_lock_pool();
      if (!lock.owns_lock() || pool().waiting_bytes <= kept) return;
    }
    if (!give_back_oldest()) return;
  }
}

}  // namespace ddkern
