// SPDX-License-Identifier: Apache-2.0
// A set of columns, one bit each.
#pragma once

#include <algorithm>
#include <cstdint>

namespace ddkern::kmeans {

class ColumnSet {
 public:
  static std::int64_t n_words_of(std::int64_t n_columns) { return (n_columns + 63) / 64; }

  ColumnSet() = default;
  ColumnSet(std::uint64_t* words, std::int64_t n_words) : words_(words), n_words_(n_words) {}

  std::uint64_t* words() { return words_; }
  const std::uint64_t* words() const { return words_; }
  void clear() {
    for (std::int64_t w = 0; w < n_words_; ++w) words_[w] = 0;
  }
  void fill(std::int64_t n_columns) {
    for (std::int64_t w = 0; w < n_words_; ++w) {
      const std::int64_t left = n_columns - 64 * w;
      words_[w] = left >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << left) - 1;
    }
  }
  void copy(const ColumnSet& other) { std::copy(other.words_, other.words_ + n_words_, words_); }
  void add(std::int64_t k) { words_[k / 64] |= std::uint64_t{1} << (k % 64); }
  bool has(std::int64_t k) const { return (words_[k / 64] >> (k % 64) & 1) != 0; }
  void add(const ColumnSet& other) {
    for (std::int64_t w = 0; w < n_words_; ++w) words_[w] |= other.words_[w];
  }
  void remove(const ColumnSet& other) {
    for (std::int64_t w = 0; w < n_words_; ++w) words_[w] &= ~other.words_[w];
  }
  // a without b, or a and b.
  void set_difference(const ColumnSet& a, const ColumnSet& b) {
    for (std::int64_t w = 0; w < n_words_; ++w) words_[w] = a.words_[w] & ~b.words_[w];
  }
  void set_union(const ColumnSet& a, const ColumnSet& b) {
    for (std::int64_t w = 0; w < n_words_; ++w) words_[w] = a.words_[w] | b.words_[w];
  }
  bool operator==(const ColumnSet& other) const {
    return std::equal(words_, words_ + n_words_, other.words_);
  }
  std::int64_t count() const {
    std::int64_t n = 0;
    for (std::int64_t w = 0; w < n_words_; ++w) n += __builtin_popcountll(words_[w]);
    return n;
  }

 private:
  std::uint64_t* words_ = nullptr;
  std::int64_t n_words_ = 0;
};

}  // namespace ddkern::kmeans
