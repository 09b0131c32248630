// SPDX-License-Identifier: Apache-2.0
#include "kmeans/gram_scores.h"

#include <algorithm>
#include <cmath>

namespace ddkern::kmeans {

template <class T>
GramScores<T>::GramScores(const Group<T>& group, const GramMatrix& gram, std::int64_t n_columns)
    : Scores<T>(group, n_columns), gram_(gram), cells_(static_cast<std::size_t>(n_columns)),
      sums_(gram.stride() * n_columns) {
  const std::int64_t n_padded = gram.stride();
  p_.resize(static_cast<std::size_t>(n_padded));
  q_.resize(static_cast<std::size_t>(n_padded));
  for (std::int64_t i = 0; i < n_padded; ++i) {
    p_[i] = group.p_f32(i);
    q_[i] = group.q_f32(i);
    if (i < group.n() && group.counts(i)) {
      largest_norm_ = std::max(largest_norm_, std::sqrt(group.sq_norms()[i]));
    }
  }
  for (std::int64_t j = 0; j < group.n_features(); ++j) {
    norm_centre_ += static_cast<double>(group.centre()[j]) * static_cast<double>(group.centre()[j]);
  }
  norm_centre_ = std::sqrt(norm_centre_);
}

// For cell k let y^ be its exact weighted mean of float32 rows, A the weighted mean of their norms.
//   B/W against <x^, y^>:      (gamma + rounding of the float64 sums) ||x^|| A
//   T/W^2 against ||y^||^2:    the same with A for ||x^||
//   the stored centroid c against y^ (rounding to T, to the grid, and of the rows to float32): rho
//   ||c||^2 - 2<x, c> against ||y^||^2 - 2<x^, y^>:  2 A rho + rho^2 + 2 ||x^|| rho + 2 p (A + rho)
template <class T>
void GramScores<T>::set_bounds(std::int64_t k) {
  const Cell& cell = cells_[k];
  this->bounds_.base[k] = static_cast<float>(cell.self);
  const auto n_features = static_cast<double>(group_.n_features());
  const double mean_norm = cell.norm_sum / cell.weight;
  const double gamma = accumulation_bound(group_.n_features(), 1.0);
  const double sums =
      (cell.n_operations + 8) * 0x1p-52 * cell.traffic * largest_norm_ / cell.weight;
  const double product = gamma * mean_norm + sums;  // times ||x^||
  const double stored_ulp = sizeof(T) == sizeof(float) ? 0x1.01p-24 : 0x1.01p-53;
  // Stored centroids so small that T has fewer digits left for them.
  const double half_denormal = sizeof(T) == sizeof(float) ? 0x1p-150 : 0x1p-1074;
  const double grid = std::sqrt(n_features) * group_.row_unit() *
                      (1 + static_cast<double>(cell.n_rows) / cell.weight);
  // ||c + centre|| <= ||centre|| + A + rho, and rho is far below A.
  const double rho = stored_ulp * 1.01 * (norm_centre_ + mean_norm) + 0x1.02p-24 * mean_norm +
                     grid + std::sqrt(n_features) * (0x1p-120 + half_denormal * group_.scale());
  this->bounds_.set(
      k, 2 * (mean_norm + rho), 2 * product + 2 * rho + 0x1p-20 * mean_norm,
      product * mean_norm + 2 * mean_norm * rho + rho * rho + 0x1p-20 * mean_norm * mean_norm);
}

template <class T>
void GramScores<T>::set_row(std::int64_t k, std::int64_t row, const Team& team) {
  const float* entries = gram_.row(row);
  team.for_ranges(group_.n_blocks(), 64, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t b = begin; b < end; ++b) {
      double* sums = sums_.data() + (b * n_columns_ + k) * kBlockPoints;
      for (int p = 0; p < kBlockPoints; ++p) sums[p] = entries[b * kBlockPoints + p];
    }
  });
  Cell& cell = cells_[k];
  cell = Cell{};
  cell.norm_sum = std::sqrt(group_.sq_norms()[row]);
  cell.traffic = 1;
  cell.n_rows = 1;
  cell.self = entries[row];
  set_bounds(k);
  this->bounds_.settle();
}

template <class T>
void GramScores<T>::apply(const std::vector<Change>& changes,
                          const std::vector<std::int32_t>& assignment, const Team& team) {
  const auto n_changes = static_cast<std::int64_t>(changes.size());
  std::vector<char> rebuild(static_cast<std::size_t>(n_columns_), 0);
  std::vector<std::vector<std::int64_t>> members(static_cast<std::size_t>(n_columns_));
  for (const Change& change : changes) {
    Cell& cell = cells_[change.column];
    // From a single row to a mean, or after many comings and goings: start again from the members.
    rebuild[change.column] = cell.rebuild_next || cell.n_operations > 4096;
  }
  std::vector<char> changed(static_cast<std::size_t>(n_columns_), 0);
  for (const Change& change : changes) changed[change.column] = 1;
  for (std::int64_t i = 0; i < group_.n(); ++i) {
    const std::int32_t k = assignment[i];
    if (changed[k] && group_.counts(i)) members[k].push_back(i);
  }
  team.for_ranges(n_changes, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t c = begin; c < end; ++c) {
      const Change& change = changes[c];
      const std::int64_t k = change.column;
      Cell& cell = cells_[k];
      std::vector<const float*> rows;
      std::vector<double> weights;
      const auto add = [&](const std::vector<std::int64_t>& added, double sign) {
        for (const std::int64_t i : added) {
          rows.push_back(gram_.row(i));
          weights.push_back(sign * group_.weight(i));
        }
      };
      if (rebuild[k]) {
        cell = Cell{};
        cell.rebuild_next = false;
        cell.traffic = 0;
        add(members[k], 1);
      } else {
        add(change.came, 1);
        add(change.left, -1);
      }
      for (const double weight : weights) cell.traffic += std::abs(weight);
      cell.n_operations += static_cast<double>(weights.size());
      group_.kernels().gram_sum.add(
          {rows.data(), weights.data(), static_cast<std::int64_t>(rows.size()), group_.n_blocks(),
           n_columns_ * kBlockPoints, rebuild[k] != 0, sums_.data() + k * kBlockPoints});
      cell.weight = cell.norm_sum = cell.self = 0;
      cell.n_rows = static_cast<std::int64_t>(members[k].size());
      for (const std::int64_t i : members[k]) {
        const double w = group_.weight(i);
        cell.weight += w;
        cell.norm_sum += w * std::sqrt(group_.sq_norms()[i]);
        cell.self +=
            w * sums_[(i / kBlockPoints * n_columns_ + k) * kBlockPoints + i % kBlockPoints];
      }
      cell.self /= cell.weight * cell.weight;
      set_bounds(k);
    }
  });
  this->bounds_.settle();
}

template <class T>
float* GramScores<T>::multiply(std::int64_t block, float* out, int) {
  for (std::int64_t k = 0; k < n_columns_; ++k) {
    const double* sums = sums_.data() + (block * n_columns_ + k) * kBlockPoints;
    group_.kernels().gram_sum.products(sums, -2 / cells_[k].weight, out + k * kBlockPoints);
  }
  return out;
}

template class GramScores<float>;
template class GramScores<double>;

}  // namespace ddkern::kmeans
