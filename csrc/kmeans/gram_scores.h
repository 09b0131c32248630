// SPDX-License-Identifier: Apache-2.0
// Scores from the Gram matrix of a group.
#pragma once

#include <cstdint>
#include <vector>

#include "core/buffer.h"
#include "kmeans/gram.h"
#include "kmeans/scores.h"

namespace ddkern::kmeans {

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

  const float* p(std::int64_t block) const override { return p_.data() + block * kBlockPoints; }
  const float* q(std::int64_t block) const override { return q_.data() + block * kBlockPoints; }
  const Frame<T>& frame() const override { return group_.frame(); }

 protected:
  float* multiply(std::int64_t block, float* out, int thread) override;

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

  using Scores<T>::group_;
  using Scores<T>::n_columns_;
  const GramMatrix& gram_;
  std::vector<Cell> cells_;
  Buffer<double> sums_;  // B: [n_blocks][n_columns][kBlockPoints]
  std::vector<float> p_, q_;
  double largest_norm_ = 0, norm_centre_ = 0;
};

extern template class GramScores<float>;
extern template class GramScores<double>;

}  // namespace ddkern::kmeans
