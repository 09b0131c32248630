// SPDX-License-Identifier: Apache-2.0
// Uninitialised memory for kernels: aligned to a cache line, on huge pages where Linux gives them,
// and reused from group to group, for a fresh page costs as much as a pass over it.
#pragma once

#include <cstdint>
#include <utility>

namespace ddkern {

// Raw blocks from the library's pool. Released blocks wait there for the next request of their
// size; trim_pool() hands back what is beyond kPooledBytes, and every call of the library ends with
// it.
void* pool_allocate(std::int64_t bytes);
void pool_release(void* block, std::int64_t bytes) noexcept;
void trim_pool() noexcept;
constexpr std::int64_t kPooledBytes = std::int64_t{64} << 20;

template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::int64_t size) { reset(size); }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Buffer() { pool_release(data_, bytes()); }

  void reset(std::int64_t size) {
    pool_release(data_, bytes());
    data_ = nullptr;
    size_ = 0;
    data_ = static_cast<T*>(pool_allocate(size * static_cast<std::int64_t>(sizeof(T))));
    size_ = size;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::int64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](std::int64_t i) { return data_[i]; }
  const T& operator[](std::int64_t i) const { return data_[i]; }

 private:
  std::int64_t bytes() const { return size_ * static_cast<std::int64_t>(sizeof(T)); }

  T* data_ = nullptr;
  std::int64_t size_ = 0;
};

}  // namespace ddkern
