// SPDX-License-Identifier: Apache-2.0
#include "kmeans/cell_sums.h"

#include <algorithm>
#include <numeric>

namespace ddkern::kmeans {
namespace {

constexpr std::int64_t kFewestFeatures = 64;  // that a thread takes

}  // namespace

template <class T>
CellSums<T>::CellSums(const Group<T>& group, std::int64_t k, int n_threads)
    : group_(group), k_(k), n_features_(group.n_features()), sums_(k * n_features_),
      row_scratch_(n_threads, n_features_, kRowsAtOnce) {
  std::fill(sums_.data(), sums_.data() + sums_.size(), 0);
}

template <class T>
void CellSums<T>::add_all(const Moves& moves, std::vector<double>& sq_norms, const Team& team) {
  const bool with_norms = sq_norms.empty();
  sq_norms.resize(size(group_.n()));
  double* const wanted = with_norms ? sq_norms.data() : nullptr;
  if (threads_keep_sums(group_.n(), n_features_, k_, team.n_threads())) {
    add_all_in_order(moves, wanted, team);
  } else {
    add_all_by_cell(moves, wanted, team);
  }
}

// Cell by cell, so that every row is read once and the sum it leaves stays in registers. Threads
// take rows where they have sums of their own to add to, or features.
template <class T>
void CellSums<T>::transfer(const Moves& moves, const Team& team) {
  const ByCell from = sort_by_cell(moves, &Move::from);
  const auto n_rows = static_cast<std::int64_t>(from.rows.size());
  // Features begin .. end of a stretch of the rows.
  const auto move = [&](std::int64_t first, std::int64_t last, std::int64_t* sums,
                        std::int64_t begin, std::int64_t end, int thread) {
    auto c = std::upper_bound(from.first_of_cell.begin(), from.first_of_cell.end(), first) -
             from.first_of_cell.begin() - 1;
    for (std::int64_t r = first; r < last; ++c) {
      const std::int64_t last_of_cell = std::min(last, from.first_of_cell[size(c) + 1]);
      take({from.rows.data() + r, last_of_cell - r, last - last_of_cell, sums + c * n_features_,
            from.to.data() + r, sums, begin, end, nullptr},
           team, thread);
      r = last_of_cell;
    }
  };
  if (threads_keep_sums(n_rows, n_features_, k_, team.n_threads())) {
    return add_to_own_sums(
        n_rows, team, [&](std::int64_t first, std::int64_t last, std::int64_t* sums, int thread) {
          move(first, last, sums, 0, n_features_, thread);
        });
  }
  const std::int64_t share = (n_features_ + team.n_threads() - 1) / team.n_threads();
  const std::int64_t piece = std::max((share + 63) / 64 * 64, kFewestFeatures);
  team.for_ranges(n_features_, piece, [&](std::int64_t begin, std::int64_t end, int thread) {
    move(0, n_rows, sums_.data(), begin, end, thread);
  });
}

template <class T>
typename CellSums<T>::ByCell CellSums<T>::sort_by_cell(const Moves& moves,
                                                       std::int32_t Move::* cell) const {
  ByCell sorted;
  std::vector<std::int64_t>& first_of_cell = sorted.first_of_cell;
  first_of_cell.assign(size(k_) + 1, 0);
  for (const Move& move : moves) first_of_cell[size(move.*cell) + 1] += group_.counts(move.row);
  std::partial_sum(first_of_cell.begin(), first_of_cell.end(), first_of_cell.begin());
  sorted.rows.resize(size(first_of_cell.back()));
  sorted.to.resize(size(first_of_cell.back()));
  std::vector<std::int64_t> next = first_of_cell;
  for (const Move& move : moves) {
    if (!group_.counts(move.row)) continue;
    const std::size_t place = size(next[size(move.*cell)]++);
    sorted.rows[place] = move.row;
    sorted.to[place] = move.to;
  }
  return sorted;
}

template <class T>
void CellSums<T>::take(const Transfer& transfer, const Team& team, int thread) {
  const T* at[kRowsAtOnce];
  double weights[kRowsAtOnce], sq_norms[kRowsAtOnce];
  std::int64_t* to[kRowsAtOnce];
  const std::int64_t begin = transfer.begin;
  for (std::int64_t first = 0; first < transfer.n_rows; first += kRowsAtOnce) {
    team.inner(thread).check();
    const std::int64_t* const rows = transfer.rows + first;
    const std::int64_t left = transfer.n_rows - first;
    const int n = static_cast<int>(std::min<std::int64_t>(kRowsAtOnce, left));
    for (int r = 0; r < n; ++r) {
      at[r] = group_.row(rows[r], row_scratch_.get(thread, r)) + begin;
      weights[r] = group_.weight(rows[r]);
      if (transfer.to == nullptr) continue;
      to[r] = transfer.to_sums + transfer.to[first + r] * n_features_ + begin;
    }
    const void* next[kRowsAtOnce];
    const std::int64_t n_next = std::min<std::int64_t>(kRowsAtOnce, left + transfer.n_ahead - n);
    group_.kernels().accumulate.add({at, n, group_.weighted() ? weights : nullptr,
                                     transfer.to != nullptr ? to : nullptr, group_.row_scale(),
                                     group_.row_shift() + begin, transfer.end - begin,
                                     transfer.sum != nullptr ? transfer.sum + begin : nullptr,
                                     transfer.sq_norms != nullptr ? sq_norms : nullptr,
                                     group_.ahead(rows + n, static_cast<int>(n_next), next)});
    if (transfer.sq_norms == nullptr) continue;
    // In units of the sums; a power of two away from those of the rows.
    const double unit = group_.row_unit() * group_.row_unit();
    for (int r = 0; r < n; ++r) transfer.sq_norms[rows[r]] = sq_norms[r] * unit;
  }
}

// add(first, last, sums, thread): a stretch of n_rows, to sums of which every thread has its own.
template <class T>
template <class Add>
void CellSums<T>::add_to_own_sums(std::int64_t n_rows, const Team& team, const Add& add) {
  const int n_parts = team.n_threads();
  const std::int64_t n_sums = sums_.size();
  Buffer<std::int64_t> asides((n_parts - 1) * n_sums);
  team.for_ranges(n_parts, 1, [&](std::int64_t part, std::int64_t, int thread) {
    std::int64_t* const sums = part == 0 ? sums_.data() : asides.data() + (part - 1) * n_sums;
    if (part > 0) std::fill(sums, sums + n_sums, 0);
    add(n_rows * part / n_parts, n_rows * (part + 1) / n_parts, sums, thread);
  });
  for (int part = 1; part < n_parts; ++part) {
    const std::int64_t* aside = asides.data() + (part - 1) * n_sums;
    for (std::int64_t i = 0; i < n_sums; ++i) sums_[i] += aside[i];
  }
}

// In the order of the rows, which memory likes best.
template <class T>
void CellSums<T>::add_all_in_order(const Moves& moves, double* sq_norms, const Team& team) {
  std::vector<std::int64_t> rows;
  std::vector<std::int32_t> to;
  rows.reserve(size(moves.size()));
  to.reserve(size(moves.size()));
  for (const Move& move : moves) {
    if (!group_.counts(move.row)) continue;
    rows.push_back(move.row);
    to.push_back(move.to);
  }
  add_to_own_sums(static_cast<std::int64_t>(rows.size()), team,
                  [&](std::int64_t first, std::int64_t last, std::int64_t* sums, int thread) {
                    take({rows.data() + first, last - first, 0, nullptr, to.data() + first, sums, 0,
                          n_features_, sq_norms},
                         team, thread);
                  });
}

// Cell by cell, so that a sum stays in registers. Threads take equal stretches of the rows; a cell
// that an earlier thread began is summed aside.
template <class T>
void CellSums<T>::add_all_by_cell(const Moves& moves, double* sq_norms, const Team& team) {
  const ByCell sorted = sort_by_cell(moves, &Move::to);
  const auto n_rows = static_cast<std::int64_t>(sorted.rows.size());
  const int n_parts = team.n_threads();
  Buffer<std::int64_t> asides(n_parts * n_features_);
  std::fill(asides.data(), asides.data() + asides.size(), 0);
  std::vector<std::int32_t> aside_cell(size(n_parts), -1);
  team.for_ranges(n_parts, 1, [&](std::int64_t part, std::int64_t, int thread) {
    const std::int64_t begin = n_rows * part / n_parts, end = n_rows * (part + 1) / n_parts;
    for (std::int64_t r = begin; r < end;) {
      const std::int32_t cell = sorted.to[size(r)];
      const std::int64_t last = std::min(end, sorted.first_of_cell[size(cell) + 1]);
      std::int64_t* sum = sums_.data() + cell * n_features_;
      if (sorted.first_of_cell[size(cell)] < begin) {
        aside_cell[size(part)] = cell;
        sum = asides.data() + part * n_features_;
      }
      take({sorted.rows.data() + r, last - r, end - last, sum, nullptr, nullptr, 0, n_features_,
            sq_norms},
           team, thread);
      r = last;
    }
  });
  for (int part = 0; part < n_parts; ++part) {
    if (aside_cell[size(part)] < 0) continue;
    std::int64_t* sum = sums_.data() + aside_cell[size(part)] * n_features_;
    const std::int64_t* aside = asides.data() + part * n_features_;
    for (std::int64_t j = 0; j < n_features_; ++j) sum[j] += aside[j];
  }
}

template class CellSums<float>;
template class CellSums<double>;

}  // namespace ddkern::kmeans
