// SPDX-License-Identifier: Apache-2.0
// Scores from products of the packed rows with the packed centroids.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/buffer.h"
#include "core/parallel.h"
#include "kmeans/margins.h"
#include "kmeans/scores.h"

namespace ddkern::kmeans {

// With `cached`, the products of columns that did not move are kept from one pass to the next.
//
// open() multiplies as little as it can. Margins rule columns out without a product; where rows
// have heads (byte_layout.h) those come first, and whole columns only where some point of half a
// block asks for it.
template <class T>
class DirectScores final : public Scores<T> {
 public:
  DirectScores(const Group<T>& group, std::int64_t n_columns, bool cached, int n_threads);

  // Packs the columns to compute in the next pass: those in `moved` when the scores are cached, all
  // otherwise. centroids [n_columns][n_features]. `sq_shifts` [n_columns]: how far every column has
  // moved since the last pass, squared, in the canonical frame; empty for no margins.
  void update(const T* centroids, const std::vector<std::int64_t>& moved,
              const std::vector<double>& sq_shifts, const Team& team);
  // The same, from one pointer a moved column, and without margins.
  void update(const std::vector<const T*>& values, const std::vector<std::int64_t>& moved,
              const Team& team);

  // Cached scores of some columns, in that order, with the products that are known; -1 stands for
  // a column that is not, to be updated first.
  DirectScores select(const std::vector<std::int64_t>& columns, const Team& team) const;

  OpenColumns open(std::int64_t block, const std::int32_t* near, float* out, int thread) override;
  const float* p(std::int64_t block) const override { return group_.p() + block * kBlockPoints; }
  const float* q(std::int64_t block) const override { return group_.q() + block * kBlockPoints; }
  const Frame<T>& frame() const override { return group_.fast_frame(); }

  // Products of a point and a column in the last pass, the whole or the head, and those of moved
  // columns that were left out or at the head in all passes.
  std::int64_t n_multiplied() const;
  std::int64_t n_skipped() const;

 protected:
  float* multiply(std::int64_t block, float* out, int thread) override;

 private:
  struct Counters {
    std::int64_t n_columns = 0, n_candidates = 0;  // of every half
    std::int64_t n_heads = 0, n_tails = 0;         // multiplied
    std::int64_t n_multiplied = 0, n_skipped = 0;  // products
    Counters& operator+=(const Counters& other) {
      n_columns += other.n_columns;
      n_candidates += other.n_candidates;
      n_heads += other.n_heads;
      n_tails += other.n_tails;
      n_multiplied += other.n_multiplied;
      n_skipped += other.n_skipped;
      return *this;
    }
  };
  // Half a block on its way from all columns to those that are open.
  struct Half {
    int side = 0;
    std::int64_t first_point = 0;
    int n_points = 0;
    const std::int32_t* near = nullptr;  // [n_points]
    bool certain = true;                 // false where nothing can be ruled out
    MarginArgs margin{};
    // `with_head` are the columns whose product is there, whole or its head alone.
    ColumnSet with_head, whole, candidates, open, missing;
    std::vector<std::int32_t> candidate_list, open_list;  // [n_columns + kListPadding]
    const std::int32_t* listed = nullptr;                 // the candidates, or null for all columns
    std::int64_t n_candidates = 0;
    std::int64_t n_heads = 0, n_whole = 0;  // multiplied
  };
  struct alignas(kThreadAlignment) Scratch {
    std::array<Half, 2> halves;
    std::vector<std::uint64_t> sets;  // room for those of this thread
    ColumnSet both;
    std::vector<std::int32_t> list;  // [n_columns + kListPadding]
    Counters counters;               // of this pass
  };
  // Parts of the runs of FastFormat::bytes; the other formats know the whole alone.
  enum class Part { whole, head, tail };

  std::int64_t list(const ColumnSet& set, std::vector<std::int32_t>& columns) const {
    return group_.kernels().shortlist.list(set.words(), n_columns_, columns.data());
  }
  bool has_heads() const { return !column_tails_.empty(); }
  const void* points_of(std::int64_t block, int thread);
  // Products with the columns of this pass, and with any.
  void multiply_updated(const void* points, Part part, float* products) const {
    multiply_list(points, kBlockPoints, columns_.data(), static_cast<std::int64_t>(columns_.size()),
                  part, products);
  }
  // Returns how many columns these are.
  std::int64_t multiply_set(const void* points, int first_point, int n_points,
                            const ColumnSet& columns, Part part, Scratch& scratch,
                            float* products) const;
  void multiply_list(const void* points, int n_points, const std::int32_t* columns,
                     std::int64_t n_columns, Part part, float* products) const;
  void multiply_missing(Scratch& scratch, const void* points, Part part, float* products) const;
  bool any_wild(std::int64_t first_point, int n_points) const;
  void find_candidates(Half& half);
  void test_products(Half& half, const float* products, bool heads) const;
  void distort_open(std::int64_t block, float* products, const Scratch& scratch) const;
  std::int64_t n_words() const { return ColumnSet::n_words_of(n_columns_); }
  void advance_margins(const std::vector<double>& sq_shifts);
  void pack_column(std::int64_t k, const T* centroid);
  void pack_column_bytes(std::int64_t k, const T* centroid);

  using Scores<T>::group_;
  using Scores<T>::n_columns_;
  std::int64_t depth_;                 // words of a column that are multiplied
  std::int64_t stride_;                // words from one column to the next
  std::vector<std::int32_t> columns_;  // computed in the next pass
  Buffer<float> packed_;               // [n_columns][stride_] floats or words
  Buffer<float> cache_;                // [n_blocks][n_columns][kBlockPoints]
  std::vector<float> column_tails_;    // [n_columns] twice the norm of the tail, or more
  // [n_blocks][2 halves][2][n_words()] of the cache: columns with a head, and whole ones
  std::vector<std::uint64_t> known_;
  std::vector<std::uint64_t> updated_words_;
  ColumnSet updated_;  // columns_
  bool heads_pay_ = true, margins_pay_ = true, keeps_lists_ = false;
  std::optional<Margins> margins_;
  int n_passes_ = 0;              // with margins
  std::vector<Scratch> scratch_;  // of every thread
  Counters last_pass_;
  std::int64_t n_skipped_ = 0;
  Buffer<float> block_scratch_;
  RowScratch<T> row_scratch_;
};

// What seeding knows of the seeds: column c is seed c.
template <class T>
struct SeededScores {
  DirectScores<T> scores;
  std::vector<std::int64_t> unknown;  // columns without products
};

extern template class DirectScores<float>;
extern template class DirectScores<double>;

}  // namespace ddkern::kmeans
