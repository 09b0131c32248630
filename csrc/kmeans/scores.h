// SPDX-License-Identifier: Apache-2.0
// Where approximate scores come from. The assignment (nearest.h) does not care: it certifies them.
#pragma once

#include <cstdint>
#include <vector>

#include "core/buffer.h"
#include "kmeans/columns.h"
#include "kmeans/gram.h"
#include "kmeans/group.h"

namespace ddkern::kmeans {

// Products of every column with one block of points, [n_columns][kBlockPoints]. With the bounds'
// base added they are scores.
template <class T>
class Scores {
 public:
  explicit Scores(std::int64_t n_columns) : bounds_(n_columns) {}
  virtual ~Scores() = default;
  // `out` [n_columns][kBlockPoints] may or may not be written; the result is what to read.
  virtual const float* block(std::int64_t block, float* out, int thread) = 0;
  virtual const float* p(std::int64_t block) const = 0;  // [kBlockPoints]
  virtual const float* q(std::int64_t block) const = 0;
  virtual const Frame<T>& frame() const = 0;  // scores are distances in it, less ||y||^2
  const ColumnBounds& bounds() const { return bounds_; }

 protected:
  ColumnBounds bounds_;
};

// Products of the packed rows with the packed centroids. With `cached`, the products of columns
// that did not move are kept from one pass to the next.
template <class T>
class DirectScores final : public Scores<T> {
 public:
  DirectScores(const Group<T>& group, std::int64_t n_columns, bool cached, int n_threads);

  // Packs the columns to compute in the next pass: those in `moved` when the scores are cached, all
  // otherwise. centroids [n_columns][n_features].
  void update(const T* centroids, const std::vector<std::int64_t>& moved, const Team& team);
  // The same, from one pointer a moved column.
  void update(const std::vector<const T*>& values, const std::vector<std::int64_t>& moved,
              const Team& team);

  // Cached scores of some columns, in that order, with the products that are known; -1 stands for
  // a column that is not, to be updated first.
  DirectScores select(const std::vector<std::int64_t>& columns, const Team& team) const;

  const float* block(std::int64_t block, float* out, int thread) override;
  const float* p(std::int64_t block) const override { return group_.p() + block * kBlockPoints; }
  const float* q(std::int64_t block) const override { return group_.q() + block * kBlockPoints; }
  const Frame<T>& frame() const override { return group_.fast_frame(); }

 private:
  struct Tile {
    std::int64_t first;  // position in columns_
    int width;
  };
  void pack_column(std::int64_t k, const T* centroid);
  void pack_column_bytes(std::int64_t k, const T* centroid);

  const Group<T>& group_;
  std::int64_t n_columns_;
  std::int64_t depth_;                  // words of a column that are multiplied
  std::int64_t stride_;                 // words from one column to the next
  std::vector<std::int64_t> columns_;   // computed in the next pass
  std::vector<const void*> column_at_;  // [size of columns_]
  std::vector<Tile> tiles_;
  Buffer<float> packed_;  // [n_columns][stride_] floats or words
  Buffer<float> cache_;   // [n_blocks][n_columns][kBlockPoints]
  Buffer<float> block_scratch_;
  RowScratch<T> row_scratch_;
};

// What seeding knows of the seeds: column c is seed c.
template <class T>
struct SeededScores {
  DirectScores<T> scores;
  std::vector<std::int64_t> unknown;  // columns without products
};

// Scores from the Gram matrix: for a cell k with weights w and total W,
//   ||x_i - mean||^2 - ||x_i||^2 = T_k / W^2 - 2 B_ik / W,   B_ik = sum_j w_j G_ij,  T_k = sum_i
//   w_i B_ik
// over the cell. B follows the rows that change cell; its cost does not depend on n_features.
template <class T>
class GramScores final : public Scores<T> {
 public:
  GramScores(const Group<T>& group, const GramMatrix& gram, std::int64_t n_columns);

  // Column k stands for row `row` alone: a seed, or a cell that was seeded again.
  void set_row(std::int64_t k, std::int64_t row, const Team& team);
  // Column k stands for the weighted mean of its cell, which changed by the rows in `came` and
  // `left`.
  struct Change {
    std::int64_t column;
    std::vector<std::int64_t> came, left;
  };
  void apply(const std::vector<Change>& changes, const std::vector<std::int32_t>& assignment,
             const Team& team);
  // Column k lost its members but its centroid stays: B stays with it until the cell changes again.
  void keep(std::int64_t k) { cells_[k].rebuild_next = true; }

  const float* block(std::int64_t block, float* out, int thread) override;
  const float* p(std::int64_t block) const override { return p_.data() + block * kBlockPoints; }
  const float* q(std::int64_t block) const override { return q_.data() + block * kBlockPoints; }
  const Frame<T>& frame() const override { return group_.frame(); }

 private:
  struct Cell {
    bool rebuild_next = true;  // B does not stand for the members of the cell
    double weight = 1;         // W
    double norm_sum = 0;       // sum w ||y||
    double traffic = 0;        // total weight added or taken away since B was last exact
    double n_operations = 0;
    std::int64_t n_rows = 0;
    double self = 0;  // T / W^2
  };
  void set_bounds(std::int64_t k);

  const Group<T>& group_;
  const GramMatrix& gram_;
  std::int64_t n_columns_;
  std::vector<Cell> cells_;
  Buffer<double> sums_;  // B: [n_blocks][n_columns][kBlockPoints]
  std::vector<float> p_, q_;
  double largest_norm_ = 0, norm_centre_ = 0;
};

// For tests: moves every score of a block by all that its bound allows, up where `up(column,
// nearest column)` says so and down elsewhere. `columns` [n_columns][n_features] are stored values.
template <class T>
void mislead(Scores<T>& scores, const Group<T>& group, const T* columns, std::int64_t n_columns,
             std::int64_t block, T* row_scratch, float* values,
             bool (*up)(std::int64_t, std::int64_t));

extern template class DirectScores<float>;
extern template class DirectScores<double>;
extern template class GramScores<float>;
extern template class GramScores<double>;

}  // namespace ddkern::kmeans
