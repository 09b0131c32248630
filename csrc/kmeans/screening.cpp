// SPDX-License-Identifier: Apache-2.0
#include "kmeans/screening.h"

#include <algorithm>
#include <cmath>

namespace ddkern::kmeans {

template <class T>
Screening<T>::Screening(const Group<T>& group, int n_candidates, std::int64_t n_kept, bool mislead,
                        const Team& team)
    : group_(group), team_(team), n_columns_(n_kept > 0 ? n_kept : n_candidates), mislead_(mislead),
      scores_(group, n_columns_, n_kept > 0, team.n_threads()),
      column_of_row_(n_kept > 0 ? static_cast<std::size_t>(group.n()) : 0, -1),
      values_(mislead ? n_columns_ * group.n_features() : 0),
      products_(n_kept > 0 ? 0 : team.n_threads() * n_columns_ * kBlockPoints),
      row_scratch_(team.n_threads(), group.n_features(), kBlockPoints),
      value_scratch_(1, group.n_features(), n_candidates),
      wild_blocks_(static_cast<std::size_t>(group.n_blocks()), 0),
      norms_(static_cast<std::size_t>(group.n_blocks() * kBlockPoints)),
      column_norms_(static_cast<std::size_t>(n_columns_)), aim_(group.n_features()),
      chain_norms_(static_cast<std::size_t>(group.n())) {
  const Frame<T>&fast = group.fast_frame(), &canonical = group.frame();
  const double length = std::ldexp(1.0, fast.exponent - canonical.exponent);
  unit_ = length * length;
  // From the fast frame's centre to the canonical one.
  double apart = 0;
  for (std::int64_t j = 0; j < group.n_features(); ++j) {
    const double step =
        static_cast<double>(fast.centre[j]) * length - static_cast<double>(canonical.centre[j]);
    apart += step * step;
  }
  apart = std::sqrt(apart);
  const double larger = 1 + group.sq_norm_error() + 0x1p-20;
  for (std::size_t i = 0; i < norms_.size(); ++i) {
    norms_[i] = (std::sqrt(group.fast_sq_norms()[i]) * length + apart) * larger + 0x1p-100;
  }
  for (std::int64_t i = 0; i < group.n(); ++i) {
    if (group.wild(i)) wild_blocks_[static_cast<std::size_t>(i / kBlockPoints)] = 1;
  }
  // d32 is made from three chains over rows rounded to float32.
  chain_error_ = 1.05 * accumulation_bound(group.n_features(), 1.0) + 0x1p-20;
  // Every multiply-add of the three may also lose half a denormal, those of the dots twice.
  chain_underflow_ = static_cast<double>(group.n_features()) * 0x1p-147;
  if (!mislead) return;
  std::fill(values_.data(), values_.data() + values_.size(), T{0});
  // Every other candidate looks as far as it may, which is what could hide a row.
  scores_.mislead(
      {values_.data(), [](std::int64_t column, std::int64_t) { return column % 2 == 0; }});
}

template <class T>
void Screening<T>::set_candidates(const std::vector<std::int64_t>& rows) {
  columns_.clear();
  std::vector<const T*> values;
  std::vector<std::int64_t> fresh;
  if (!keeps()) n_known_ = 0;
  for (const std::int64_t row : rows) {
    if (keeps() && column_of_row_[static_cast<std::size_t>(row)] >= 0) {
      columns_.push_back(column_of_row_[static_cast<std::size_t>(row)]);
      continue;
    }
    const std::int64_t column = n_known_++;
    if (keeps()) {
      column_of_row_[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(column);
    }
    column_norms_[static_cast<std::size_t>(column)] = norms_[static_cast<std::size_t>(row)];
    const T* x = group_.row(row, value_scratch_.get(0, static_cast<int>(fresh.size())));
    if (mislead_) {
      std::copy(x, x + group_.n_features(), values_.data() + column * group_.n_features());
    }
    values.push_back(x);
    fresh.push_back(column);
    columns_.push_back(column);
  }
  scores_.update(values, fresh, team_);
}

template <class T>
std::optional<SeededScores<T>> Screening<T>::scores_of(
    const std::vector<std::int64_t>& seeds) const {
  if (!keeps()) return {};
  std::vector<std::int64_t> columns, unknown;
  for (const std::int64_t row : seeds) {
    columns.push_back(column_of_row_[static_cast<std::size_t>(row)]);
    if (columns.back() < 0) unknown.push_back(static_cast<std::int64_t>(columns.size()) - 1);
  }
  return SeededScores<T>{scores_.select(columns, team_), std::move(unknown)};
}

template <class T>
const float* Screening<T>::products(std::int64_t block, int thread) {
  return scores_.block(block, products_.data() + thread * n_columns_ * kBlockPoints, thread);
}

template <class T>
std::uint32_t Screening<T>::screen(int candidate, std::int64_t block, const float* products,
                                   const double* closest, double* lower, double* upper) const {
  const ColumnBounds& bounds = scores_.bounds();
  const auto c = static_cast<std::size_t>(columns_[static_cast<std::size_t>(candidate)]);
  const std::int64_t first = block * kBlockPoints;
  std::uint32_t open = group_.kernels().potential.screen(
      {products + c * kBlockPoints, bounds.base[c], bounds.u[c], bounds.v[c], bounds.e[c],
       scores_.p(block), scores_.q(block), group_.fast_sq_norms() + first, group_.sq_norm_error(),
       unit_, norms_.data() + first, column_norms_[c], chain_error_, chain_underflow_,
       closest + first, lower, upper});
  if (bounds.wild[c] == 0 && wild_blocks_[static_cast<std::size_t>(block)] == 0) return open;
  for (int p = 0; p < kBlockPoints; ++p) {
    if (bounds.wild[c] == 0 && !group_.wild(first + p)) continue;
    open |= static_cast<std::uint32_t>(closest[first + p] > 0) << p;
    lower[p] = 0;
    upper[p] = HUGE_VAL;
  }
  return open;
}

template <class T>
void Screening<T>::aim(std::int64_t row) {
  group_.centred_row(row, aim_.data(), row_scratch_.get(0));
  if (++n_aims_ > 1) {
    aim_chain_norm_ = chain_norms_[static_cast<std::size_t>(row)];
    return;
  }
  float dots[kBlockPoints], norms[kBlockPoints];
  group_.chains(&row, 1, true, 0, aim_.data(), dots, norms, row_scratch_, 0);
  aim_chain_norm_ = norms[0];
}

template <class T>
void Screening<T>::distances(const std::int64_t* rows, int n_rows, bool cold, int n_ahead,
                             double* out, int thread) {
  float dots[kBlockPoints], norms[kBlockPoints];
  group_.chains(rows, n_rows, cold, n_ahead, aim_.data(), dots, n_aims_ == 1 ? norms : nullptr,
                row_scratch_, thread);
  for (int p = 0; p < n_rows; ++p) {
    float& norm = chain_norms_[static_cast<std::size_t>(rows[p])];
    if (n_aims_ == 1) norm = norms[p];
    out[p] = std::max(0.0, (static_cast<double>(norm) - 2.0 * static_cast<double>(dots[p])) +
                               static_cast<double>(aim_chain_norm_));
  }
}

template class Screening<float>;
template class Screening<double>;

}  // namespace ddkern::kmeans
