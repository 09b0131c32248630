// SPDX-License-Identifier: Apache-2.0
// Which rows a seeding candidate may be nearer to than any seed so far.
//
// The canonical distance d32 is one float32 chain a pair (docs/numerics.md sections 6 and 8), but
// most candidates are far from most rows: products of bytes with their bounds show that d32 cannot
// be below what is closest, and only the rest of the chains are computed. Nothing is decided on an
// approximate number.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kmeans/direct_scores.h"

namespace ddkern::kmeans {

template <class T>
class Screening {
 public:
  // Up to n_candidates at a time. With n_kept > 0 the products of that many rows are kept, which
  // must be all that are ever drawn. With `mislead` every score is off by all that its bound
  // allows: for tests.
  Screening(const Group<T>& group, int n_candidates, std::int64_t n_kept, bool mislead,
            const Team& team);

  void set_candidates(const std::vector<std::int64_t>& rows);

  // Products of the candidates with one block; then for every candidate the bounds of d32 and the
  // points that are open.
  const float* products(std::int64_t block, int thread);
  std::uint32_t screen(int candidate, std::int64_t block, const float* products,
                       const double* closest, double* lower, double* upper) const;

  // What is kept of the products of some rows.
  std::optional<SeededScores<T>> scores_of(const std::vector<std::int64_t>& seeds) const;

  // The row that distances() are from. The first one meets every row that counts: their norms
  // are found on the way.
  void aim(std::int64_t row);
  // d32 of up to kBlockPoints rows; see Group::chains for the rest.
  void distances(const std::int64_t* rows, int n_rows, bool cold, int n_ahead, double* out,
                 int thread);

 private:
  bool keeps() const { return !column_of_row_.empty(); }

  const Group<T>& group_;
  const Team& team_;
  std::int64_t n_columns_;
  bool mislead_;
  DirectScores<T> scores_;
  std::vector<std::int32_t> column_of_row_;  // [n] where products are kept, or -1
  std::int64_t n_known_ = 0;                 // columns in use
  std::vector<std::int64_t> columns_;        // [candidates] of the scores
  Buffer<T> values_;                         // [n_columns][n_features] for tests
  Buffer<float> products_;                   // [n_threads][n_columns][kBlockPoints]
  RowScratch<T> row_scratch_, value_scratch_;
  std::vector<char> wild_blocks_;     // [n_blocks] hold a row that no score is certain of
  std::vector<double> norms_;         // [n] bounds on the norms in the canonical frame
  std::vector<double> column_norms_;  // [n_columns] the columns'
  int n_aims_ = 0;
  Buffer<float> aim_;  // [n_features] in the canonical frame
  float aim_chain_norm_ = 0;
  std::vector<float> chain_norms_;  // [n] canonical
  double unit_, chain_error_, chain_underflow_;
};

extern template class Screening<float>;
extern template class Screening<double>;

}  // namespace ddkern::kmeans
