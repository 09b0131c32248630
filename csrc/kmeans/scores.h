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

// Products of every column with one block of points, [n_columns][kBlockPoints]. With the bounds'
// base added they are scores.
template <class T>
class Scores {
 public:
  explicit Scores(std::int64_t n_columns) : n_columns_(n_columns), bounds_(n_columns) {}
  virtual ~Scores() = default;
  // `out` [n_columns][kBlockPoints] may or may not be written; the result is what to read.
  virtual const float* block(std::int64_t block, float* out, int thread) = 0;
  // The same, but no more than the columns that may be nearest to a point. `near` [kBlockPoints]
  // holds a column for every point, the nearer the better, or is null.
  virtual OpenColumns open(std::int64_t block, const std::int32_t* near, float* out, int thread) {
    (void)near;
    return every(this->block(block, out, thread));
  }
  OpenColumns every(const float* products) const {
    return {products, {nullptr, nullptr}, {n_columns_, n_columns_}};
  }
  virtual const float* p(std::int64_t block) const = 0;  // [kBlockPoints]
  virtual const float* q(std::int64_t block) const = 0;
  virtual const Frame<T>& frame() const = 0;  // scores are distances in it, less ||y||^2
  const ColumnBounds& bounds() const { return bounds_; }

  // For tests: what open() makes of given products of whole columns and of heads, and what tails
  // may add to the latter: tails(block)[p] * column_tails()[k]. Null where heads are not used.
  virtual const float* tails(std::int64_t block) const {
    (void)block;
    return nullptr;
  }
  virtual const float* column_tails() const { return nullptr; }
  virtual OpenColumns open_by_heads(std::int64_t block, const std::int32_t* near,
                                    const float* products, const float* heads, int thread) {
    (void)block, (void)near, (void)heads, (void)thread;
    return every(products);
  }

 protected:
  std::int64_t n_columns_;
  ColumnBounds bounds_;
};

// Products of the packed rows with the packed centroids. With `cached`, the products of columns
// that did not move are kept from one pass to the next. Where rows have heads (byte_layout.h),
// open() multiplies those first, and whole columns only where some point of the block asks for it.
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
  OpenColumns open(std::int64_t block, const std::int32_t* near, float* out, int thread) override;
  const float* p(std::int64_t block) const override { return group_.p() + block * kBlockPoints; }
  const float* q(std::int64_t block) const override { return group_.q() + block * kBlockPoints; }
  const Frame<T>& frame() const override { return group_.fast_frame(); }
  const float* tails(std::int64_t block) const override {
    return has_heads() ? group_.tails() + block * kBlockPoints : nullptr;
  }
  const float* column_tails() const override { return column_tails_.data(); }
  OpenColumns open_by_heads(std::int64_t block, const std::int32_t* near, const float* products,
                            const float* heads, int thread) override;
  // Products of a point and a column so far that were left at the head.
  std::int64_t n_skipped() const;

 private:
  // What one thread needs to tell which columns of a block are open.
  struct Lists {
    std::vector<std::int32_t> open[2], missing;  // [n_columns + 1]
    std::vector<char> whole;                     // [2][n_columns] where scores are not cached
    std::int64_t n_heads = 0, n_tails = 0;       // multiplied in this pass
    std::int64_t n_skipped = 0;                  // in all passes
  };
  // Parts of the runs of FastFormat::bytes; the other formats know the whole alone.
  enum class Part { whole, head, tail };
  bool has_heads() const { return !column_tails_.empty(); }
  const void* points_of(std::int64_t block, int thread);
  // Products with the columns of this pass, and with half a block and any columns.
  void multiply_moved(const void* points, Part part, float* products) const;
  void multiply_tails(const std::uint32_t* points, const std::int32_t* columns,
                      std::int64_t n_columns, float* products) const;
  void multiply_tile(const void* points, int n_points, const void* const* columns, int width,
                     Part part, const std::int64_t* rows, float* products) const;
  std::int64_t test_heads(std::int64_t block, int half, const std::int32_t* near,
                          const float* products, const float* heads, std::int32_t* open) const;
  void pack_column(std::int64_t k, const T* centroid);
  void pack_column_bytes(std::int64_t k, const T* centroid);

  const Group<T>& group_;
  using Scores<T>::n_columns_;
  std::int64_t depth_;                  // words of a column that are multiplied
  std::int64_t stride_;                 // words from one column to the next
  std::vector<std::int64_t> columns_;   // computed in the next pass
  std::vector<const void*> column_at_;  // where they are packed
  Buffer<float> packed_;                // [n_columns][stride_] floats or words
  Buffer<float> cache_;                 // [n_blocks][n_columns][kBlockPoints]
  std::vector<float> column_tails_;     // [n_columns] twice the norm of the tail, or more
  std::vector<char> whole_;             // [n_blocks][2][n_columns] of the cache: not heads alone
  bool heads_pay_ = true;
  std::vector<Lists> lists_;  // of every thread
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
  using Scores<T>::n_columns_;
  const GramMatrix& gram_;
  std::vector<Cell> cells_;
  Buffer<double> sums_;  // B: [n_blocks][n_columns][kBlockPoints]
  std::vector<float> p_, q_;
  double largest_norm_ = 0, norm_centre_ = 0;
};

// For tests: moves every score of a block by all that its bound allows, up where `up(column,
// nearest column)` says so and down elsewhere, and the scores of `heads`, unless it is null, by all
// that tails may add as well. `columns` [n_columns][n_features] are stored values.
template <class T>
void mislead(Scores<T>& scores, const Group<T>& group, const T* columns, std::int64_t n_columns,
             std::int64_t block, T* row_scratch, float* values, float* heads,
             bool (*up)(std::int64_t, std::int64_t));

extern template class DirectScores<float>;
extern template class DirectScores<double>;
extern template class GramScores<float>;
extern template class GramScores<double>;

}  // namespace ddkern::kmeans
