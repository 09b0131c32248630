// SPDX-License-Identifier: Apache-2.0
// Which rows a seeding candidate may be nearer to than any seed so far.
//
// The canonical distance d32 is one float32 chain a pair (docs/numerics.md sections 6 and 8), but
// most candidates are far from most rows: products of bytes with their bounds show that d32 cannot
// be below what is closest, and only the rest of the chains are computed. Nothing is decided on an
// approximate number.
#pragma once

#include <cstdint>
#include <vector>

#include "kmeans/scores.h"

namespace ddkern::kmeans {

template <class T>
class Screening {
 public:
  // With `perturb` every score is off by all that its bound allows: for tests.
  Screening(const Group<T>& group, int n_candidates, bool perturb, const Team& team);

  void set_candidates(const std::vector<std::int64_t>& rows);

  // Products of the candidates with one block; then for every candidate the bounds of d32 and the
  // points that are open.
  const float* products(std::int64_t block, int thread);
  std::uint32_t screen(int candidate, std::int64_t block, const float* products,
                       const double* closest, double* lower, double* upper) const;

  // d32 of up to kBlockPoints rows to a candidate; see Group::chains for the rest.
  void distances(int candidate, const std::int64_t* rows, int n_rows, bool cold, int n_ahead,
                 double* out, int thread);

 private:
  const Group<T>& group_;
  const Team& team_;
  int n_candidates_;
  bool perturb_;
  std::vector<std::int64_t> all_;
  DirectScores<T> scores_;
  Buffer<T> values_;        // [n_candidates][n_features]
  Buffer<float> columns_;   // [n_candidates][n_features] in the canonical frame
  Buffer<float> products_;  // [n_threads][n_candidates][kBlockPoints]
  RowScratch<T> row_scratch_;
  std::vector<char> wild_blocks_;        // [n_blocks] hold a row that no score is certain of
  std::vector<double> norms_;            // [n] bounds on the norms in the canonical frame
  std::vector<double> candidate_norms_;  // [n_candidates] the candidates'
  std::vector<float> chain_norms_;       // [n_candidates]
  double unit_, chain_error_;
};

extern template class Screening<float>;
extern template class Screening<double>;

}  // namespace ddkern::kmeans
