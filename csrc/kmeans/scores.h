// SPDX-License-Identifier: Apache-2.0
// Approximate scores, wherever they come from (direct_scores.h, gram_scores.h). The assignment
// (nearest.h) does not care: it certifies them.
#pragma once

#include <cstdint>

#include "kmeans/column_set.h"
#include "kmeans/columns.h"
#include "kmeans/group.h"

namespace ddkern::kmeans {

// Columns that may be nearest to some point of either half of a block, and their products with it.
struct OpenColumns {
  const float* products;  // [...][kBlockPoints]
  // Ascending; they index the products. Null stands for the first n_columns.
  const std::int32_t* columns[2];
  std::int64_t n_columns[2];

  std::int32_t column(int half, std::int64_t i) const {
    return columns[half] != nullptr ? columns[half][i] : static_cast<std::int32_t>(i);
  }
};

// For tests: scores as wrong as their bounds allow, up where `up(column, nearest column)` says so
// and down elsewhere.
template <class T>
struct Misleading {
  const T* columns =
      nullptr;  // [n_columns][n_features] stored values; null where scores are honest
  bool (*up)(std::int64_t, std::int64_t) = nullptr;
};

template <class T>
Misleading<T> misleading(Mislead mislead, const T* columns) {
  switch (mislead) {
    case Mislead::no: break;
    case Mislead::closer:
      return {columns, [](std::int64_t k, std::int64_t nearest) { return k == nearest; }};
    case Mislead::apart:
      return {columns, [](std::int64_t k, std::int64_t nearest) { return k != nearest; }};
  }
  return {};
}

// Products of every column with one block of points, [n_columns][kBlockPoints]. With the bounds'
// base added they are scores.
template <class T>
class Scores {
 public:
  Scores(const Group<T>& group, std::int64_t n_columns)
      : group_(group), n_columns_(n_columns), bounds_(n_columns) {}
  virtual ~Scores() = default;
  // `out` [n_columns][kBlockPoints] may or may not be written; the result is what to read.
  const float* block(std::int64_t block, float* out, int thread) {
    float* products = multiply(block, out, thread);
    if (misleading_.columns != nullptr) distort(block, products, nullptr, nullptr, nullptr);
    return products;
  }
  // The same, but no more than the columns that may be nearest to a point. `near` [kBlockPoints]
  // holds the column that was nearest to every point in the pass before, or is null.
  virtual OpenColumns open(std::int64_t block, const std::int32_t* near, float* out, int thread) {
    (void)near;
    return every(this->block(block, out, thread));
  }
  virtual const float* p(std::int64_t block) const = 0;  // [kBlockPoints]
  virtual const float* q(std::int64_t block) const = 0;
  virtual const Frame<T>& frame() const = 0;  // scores are distances in it, less ||y||^2
  const ColumnBounds& bounds() const { return bounds_; }
  void mislead(const Misleading<T>& misleading) { misleading_ = misleading; }

 protected:
  virtual float* multiply(std::int64_t block, float* out, int thread) = 0;
  OpenColumns every(const float* products) const {
    return {products, {nullptr, nullptr}, {n_columns_, n_columns_}};
  }
  // Products as misleading_ wants them. Those that are not in `whole` [2], one set for every half
  // of the block, lack tails of at most tails[p] * column_tails[k]; null where all are whole.
  void distort(std::int64_t block, float* products, const ColumnSet* whole, const float* tails,
               const float* column_tails) const;

  const Group<T>& group_;
  std::int64_t n_columns_;
  ColumnBounds bounds_;
  Misleading<T> misleading_;
};

extern template class Scores<float>;
extern template class Scores<double>;

}  // namespace ddkern::kmeans
