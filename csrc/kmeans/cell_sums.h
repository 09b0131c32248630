// SPDX-License-Identifier: Apache-2.0
// The sums of the rows of every cell, exact and therefore the same in any order (docs/numerics.md
// section 4).
#pragma once

#include <cstdint>
#include <vector>

#include "kmeans/group.h"
#include "kmeans/moves.h"

namespace ddkern::kmeans {

// Whether every thread adds rows to sums of its own: where these stay in a second cache, and are
// little beside the rows.
inline bool threads_keep_sums(std::int64_t n_rows, std::int64_t n_features, std::int64_t k,
                              int n_threads) {
  constexpr std::int64_t kMostSums = std::int64_t{32} << 10;
  return n_features * k <= kMostSums && n_rows >= 8 * k * n_threads;
}

template <class T>
class CellSums {
 public:
  CellSums(const Group<T>& group, std::int64_t k, int n_threads);

  // [n_features] of cell c.
  const std::int64_t* of(std::int64_t c) const { return sums_.data() + c * n_features_; }

  // Every row arrives. `sq_norms` are found on the way if there are none yet.
  void add_all(const Moves& moves, std::vector<double>& sq_norms, const Team& team);
  // Rows leave one cell for another.
  void transfer(const Moves& moves, const Team& team);

 private:
  // Rows that count, cell by cell: those of cell c are from first_of_cell[c] on.
  struct ByCell {
    std::vector<std::int64_t> first_of_cell;  // [k + 1]
    std::vector<std::int64_t> rows;
    std::vector<std::int32_t> to;  // where they go
  };
  // Rows on their way from sums to sums, and which features of them. `n_ahead` more entries of
  // `rows` are wanted next.
  struct Transfer {
    const std::int64_t* rows;
    std::int64_t n_rows, n_ahead;
    std::int64_t* sum;       // that all of them come to or, with `to`, leave; or null
    const std::int32_t* to;  // [n_rows] cells of `to_sums`, or null
    std::int64_t* to_sums;
    std::int64_t begin, end;
    double* sq_norms;  // [n] to be found, or null
  };
  static std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

  ByCell sort_by_cell(const Moves& moves, std::int32_t Move::* cell) const;
  void take(const Transfer& transfer, const Team& team, int thread);
  template <class Add>
  void add_to_own_sums(std::int64_t n_rows, const Team& team, const Add& add);
  void add_all_in_order(const Moves& moves, double* sq_norms, const Team& team);
  void add_all_by_cell(const Moves& moves, double* sq_norms, const Team& team);

  const Group<T>& group_;
  std::int64_t k_, n_features_;
  Buffer<std::int64_t> sums_;  // [k][n_features]
  RowScratch<T> row_scratch_;
};

extern template class CellSums<float>;
extern template class CellSums<double>;

}  // namespace ddkern::kmeans
