// SPDX-License-Identifier: Apache-2.0
#include "kmeans/screening.h"

#include <cmath>
#include <numeric>

namespace ddkern::kmeans {

template <class T>
Screening<T>::Screening(const Group<T>& group, int n_candidates, bool perturb, const Team& team)
    : group_(group), team_(team), n_candidates_(n_candidates), perturb_(perturb),
      all_(static_cast<std::size_t>(n_candidates)),
      scores_(group, n_candidates, false, team.n_threads()),
      values_(n_candidates * group.n_features()), columns_(n_candidates * group.n_features()),
      products_(team.n_threads() * n_candidates * kBlockPoints),
      row_scratch_(team.n_threads(), group.n_features(), kBlockPoints),
      wild_blocks_(static_cast<std::size_t>(group.n_blocks()), 0),
      norms_(static_cast<std::size_t>(group.n_blocks() * kBlockPoints)),
      candidate_norms_(all_.size()), chain_norms_(all_.size()) {
  std::iota(all_.begin(), all_.end(), 0);
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
}

template <class T>
void Screening<T>::set_candidates(const std::vector<std::int64_t>& rows) {
  const std::int64_t n = group_.n_features();
  for (std::size_t c = 0; c < rows.size(); ++c) {
    const auto offset = static_cast<std::int64_t>(c) * n;
    T* value = values_.data() + offset;
    const T* x = group_.row(rows[c], value);
    if (x != value) std::copy(x, x + n, value);
    float* column = columns_.data() + offset;
    group_.centred_row(rows[c], column, row_scratch_.get(0));
    candidate_norms_[c] = norms_[static_cast<std::size_t>(rows[c])];
    float dots[kBlockPoints], norms[kBlockPoints];
    group_.chains(&rows[c], 1, true, 0, column, dots, norms, row_scratch_, 0);
    chain_norms_[c] = norms[0];
  }
  std::vector<std::int64_t> used(all_.begin(),
                                 all_.begin() + static_cast<std::int64_t>(rows.size()));
  scores_.update(values_.data(), used, team_);
}

template <class T>
const float* Screening<T>::products(std::int64_t block, int thread) {
  float* out = products_.data() + thread * n_candidates_ * kBlockPoints;
  const float* products = scores_.block(block, out, thread);
  if (perturb_) {
    // Every other candidate looks as far as it may, which is what could hide a row.
    mislead(scores_, group_, values_.data(), n_candidates_, block, row_scratch_.get(thread), out,
            [](std::int64_t candidate, std::int64_t) { return candidate % 2 == 0; });
  }
  return products;
}

template <class T>
std::uint32_t Screening<T>::screen(int candidate, std::int64_t block, const float* products,
                                   const double* closest, double* lower, double* upper) const {
  const ColumnBounds& bounds = scores_.bounds();
  const auto c = static_cast<std::size_t>(candidate);
  const std::int64_t first = block * kBlockPoints;
  std::uint32_t open = group_.kernels().potential.screen(
      {products + candidate * kBlockPoints, bounds.base[c], bounds.u[c], bounds.v[c], bounds.e[c],
       scores_.p(block), scores_.q(block), group_.fast_sq_norms() + first, group_.sq_norm_error(),
       unit_, norms_.data() + first, candidate_norms_[c], chain_error_, closest + first, lower,
       upper});
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
void Screening<T>::distances(int candidate, const std::int64_t* rows, int n_rows, bool cold,
                             int n_ahead, double* out, int thread) {
  float dots[kBlockPoints], norms[kBlockPoints];
  const auto c = static_cast<std::size_t>(candidate);
  group_.chains(rows, n_rows, cold, n_ahead, columns_.data() + candidate * group_.n_features(),
                dots, norms, row_scratch_, thread);
  for (int p = 0; p < n_rows; ++p) {
    out[p] = std::max(0.0, (static_cast<double>(norms[p]) - 2.0 * static_cast<double>(dots[p])) +
                               static_cast<double>(chain_norms_[c]));
  }
}

template class Screening<float>;
template class Screening<double>;

}  // namespace ddkern::kmeans
