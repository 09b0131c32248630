// SPDX-License-Identifier: Apache-2.0
// Uninitialised memory for kernels: aligned to a cache line, on huge pages where Linux gives them,
// and reused from group to group, for a fresh page costs as much as a pass over it.
#pragma once

#include <cstdint>
#include <utility>

namespace ddkern {

struct PoolBlock {
  void* data = nullptr;
  std::int64_t capacity = 0;  // in bytes
};

// Raw blocks from the library's pool. Released blocks wait there for a request that they fit.
PoolBlock pool_allocate(std::int64_t bytes);
void pool_release(const PoolBlock& block) noexcept;

// What a call of the library may have in blocks, in use and waiting: while it lasts, waiting blocks
// are given up before the sum of the calls under way is exceeded. Afterwards at most `bytes` and
// kPooledBytes keep waiting.
class PoolBudget {
 public:
  explicit PoolBudget(std::int64_t bytes);
  ~PoolBudget();
  PoolBudget(const PoolBudget&) = delete;
  PoolBudget& operator=(const PoolBudget&) = delete;

 private:
  std::int64_t bytes_;
};
constexpr std::int64_t kPooledBytes = std::int64_t{64} << 20;

template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::int64_t size) { reset(size); }
  Buffer(Buffer&& other) noexcept
      : block_(std::exchange(other.block_, {})), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(block_, other.block_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Buffer() { pool_release(block_); }

  void reset(std::int64_t size) {
    pool_release(std::exchange(block_, {}));
    size_ = 0;
    block_ = pool_allocate(size * static_cast<std::int64_t>(sizeof(T)));
    size_ = size;
  }

  T* data() { return static_cast<T*>(block_.data); }
  const T* data() const { return static_cast<const T*>(block_.data); }
  std::int64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](std::int64_t i) { return data()[i]; }
  const T& operator[](std::int64_t i) const { return data()[i]; }

 private:
  PoolBlock block_;
  std::int64_t size_ = 0;
};

}  // namespace ddkern
