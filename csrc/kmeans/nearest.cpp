// SPDX-License-Identifier: Apache-2.0
#include "kmeans/nearest.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "core/exact_sum.h"

namespace ddkern::kmeans {

template <class T>
Nearest<T>::Nearest(const Group<T>& group, const T* centroids, std::int64_t n_columns,
                    int n_threads)
    : group_(group), centroids_(centroids), n_columns_(n_columns),
      scores_scratch_(n_threads * n_columns * kBlockPoints),
      row_scratch_(n_threads, group.n_features()), scratch_(static_cast<std::size_t>(n_threads)) {}

template <class T>
int Nearest<T>::compare(const T* x, std::int64_t a, double distance_a, std::int64_t b,
                        double distance_b, bool* exact) const {
  const double error = relative_error(group_.n_features());
  const double low = std::min(distance_a, distance_b), high = std::max(distance_a, distance_b);
  if (low * (1 + error) < high * (1 - error) && high > kSmallestCertain) {
    return distance_a < distance_b ? -1 : 1;
  }
  *exact = true;
  const std::int64_t n = group_.n_features();
  return compare_distances(x, centroids_ + a * n, centroids_ + b * n, n);
}

// A float32 look at the stored values: its error is relative to the distance, not to the norms, so
// it leaves next to nothing to float64.
template <class T>
void Nearest<T>::drop_clear_losers(const T* x, const T* next, Candidates& candidates) const {
  std::vector<std::int32_t>& columns = candidates.columns;
  if constexpr (std::is_same_v<T, float>) {
    constexpr std::size_t kAtOnce = 16;
    const std::int64_t n = group_.n_features();
    std::vector<float>& distances = candidates.distances;
    distances.resize(columns.size());
    for (std::size_t first = 0; first < columns.size(); first += kAtOnce) {
      const std::size_t width = std::min(kAtOnce, columns.size() - first);
      const float* rows[kAtOnce];
      for (std::size_t c = 0; c < width; ++c) rows[c] = centroids_ + columns[first + c] * n;
      group_.kernels().distance.quick(x, rows, static_cast<int>(width), n, next,
                                      distances.data() + first);
    }
    const double least = *std::min_element(distances.begin(), distances.end());
    const double error = group_.kernels().distance.quick_error(n);
    const double underflow = static_cast<double>(n) * kQuickUnderflow;
    const double limit = (least * (1 + error) + 2 * underflow) * (1 + error) * (1 + error);
    // Near the end of float32 its errors are not relative: what overflowed may be nearer.
    if (!(limit < std::numeric_limits<float>::max() * (1 - 2 * error))) return;
    std::size_t n_left = 0;
    for (std::size_t c = 0; c < columns.size(); ++c) {
      if (!(distances[c] > limit)) columns[n_left++] = columns[c];
    }
    columns.resize(n_left);
  }
}

// The beginnings of rows that will be looked at, all at once: a short row takes no longer to
// compare than to come from memory, and a long one is fetched during the one before.
template <class T>
void Nearest<T>::fetch_heads(std::int64_t first_point, std::uint32_t points) const {
  constexpr std::int64_t kMostBytes = 1024;
  if (!group_.rows_in_place()) return;
  const auto n_bytes = std::min(kMostBytes, group_.n_features() * std::int64_t{sizeof(T)});
  for (; points != 0; points &= points - 1) {
    const auto* row = reinterpret_cast<const char*>(
        group_.row(group_.row_at(first_point + __builtin_ctz(points)), nullptr));
    for (std::int64_t byte = 0; byte < n_bytes; byte += 64) __builtin_prefetch(row + byte);
  }
}

template <class T>
void Nearest<T>::block(Scores<T>& scores, std::int64_t block, const std::int32_t* near,
                       std::int32_t* winners, int thread) {
  const ColumnBounds& bounds = scores.bounds();
  const OpenColumns open = scores.open(block, near, scores_scratch(thread), thread);
  const ScanArgs args{open.products,
                      {open.columns[0], open.columns[1]},
                      {open.n_columns[0], open.n_columns[1]},
                      bounds.base.data(),
                      scores.p(block),
                      scores.q(block),
                      bounds.u.data(),
                      bounds.v.data(),
                      bounds.e.data(),
                      bounds.most_u,
                      bounds.most_v,
                      bounds.most_e};
  ScanResult found;
  group_.kernels().scan.scan(args, found);
  const std::int64_t begin = block * kBlockPoints;
  const int n_points = static_cast<int>(std::min<std::int64_t>(kBlockPoints, group_.n() - begin));
  std::uint32_t wild_points = 0;
  for (int p = 0; p < n_points; ++p) {
    wild_points |= static_cast<std::uint32_t>(bounds.any_wild || group_.wild(begin + p)) << p;
    winners[p] = found.winner[p];
  }
  const std::uint32_t all = ~std::uint32_t{0} >> (kBlockPoints - n_points);
  const std::uint32_t uncertain = (~found.certain | wild_points) & all;
  fetch_heads(begin, uncertain);
  Scratch& scratch = scratch_[static_cast<std::size_t>(thread)];
  Candidates& candidates = scratch.candidates;
  std::vector<std::int32_t>& columns = candidates.columns;
  NearestCounters& counters = scratch.counters;
  counters.n_rechecked += __builtin_popcount(uncertain);
  for (std::uint32_t left = uncertain; left != 0; left &= left - 1) {
    const int p = __builtin_ctz(left);
    const bool wild = (wild_points >> p & 1) != 0;
    const T* x = group_.row(group_.row_at(begin + p), row_scratch_.get(thread));
    columns.clear();
    if (!wild && (found.two >> p & 1) != 0) {
      columns.push_back(std::min(found.winner[p], found.runner_up[p]));
      columns.push_back(std::max(found.winner[p], found.runner_up[p]));
    } else {
      const int half = p / kHalfBlock;
      columns.resize(static_cast<std::size_t>(open.n_columns[half]));
      if (wild) {
        for (std::size_t c = 0; c < columns.size(); ++c) {
          columns[c] = open.column(half, static_cast<std::int64_t>(c));
        }
      } else {
        const std::int64_t n = list_candidates(args, found, p, columns.data());
        columns.resize(static_cast<std::size_t>(n));
      }
    }
    counters.n_compared += static_cast<std::int64_t>(columns.size());
    // The row that will be asked for next.
    const std::uint32_t later = left & (left - 1);
    const T* next = x;
    if (group_.rows_in_place() && later != 0) {
      next = group_.row(group_.row_at(begin + __builtin_ctz(later)), nullptr);
    }
    drop_clear_losers(x, next, candidates);
    std::int64_t best = columns[0];
    bool exact = false;
    if (columns.size() > 1) {
      const std::int64_t n = group_.n_features();
      double best_distance = 0;
      // Columns come in ascending order, so an exact tie keeps the lower index.
      for (const std::int32_t k : columns) {
        const double distance = group_.kernels().distance(x, centroids_ + k * n, group_.scale(), n);
        if (k == columns[0] || compare(x, k, distance, best, best_distance, &exact) < 0) {
          best = k;
          best_distance = distance;
        }
      }
    }
    winners[p] = static_cast<std::int32_t>(best);
    counters.n_exact += exact;
  }
}

template <class T>
NearestCounters Nearest<T>::counters() const {
  NearestCounters all;
  for (const Scratch& scratch : scratch_) {
    all.n_rechecked += scratch.counters.n_rechecked;
    all.n_exact += scratch.counters.n_exact;
    all.n_compared += scratch.counters.n_compared;
  }
  return all;
}

template <class T>
void Nearest<T>::block_sorted(Scores<T>& scores, std::int64_t block, std::int64_t n_nearest,
                              std::int64_t* nearest, int thread) {
  const float* values = scores.block(block, scores_scratch(thread), thread);
  const ColumnBounds& bounds = scores.bounds();
  const bool any_wild = bounds.any_wild;
  const std::int64_t begin = block * kBlockPoints;
  const int n_points = static_cast<int>(std::min<std::int64_t>(kBlockPoints, group_.n() - begin));
  std::vector<float> uppers(static_cast<std::size_t>(n_columns_));
  std::vector<std::int64_t> candidates;
  std::vector<double> distances(static_cast<std::size_t>(n_columns_));
  NearestCounters& counters = scratch_[static_cast<std::size_t>(thread)].counters;
  counters.n_rechecked += n_points;
  for (int p = 0; p < n_points; ++p) {
    const auto bound = [&](std::int64_t k) {
      return scores.p(block)[p] * bounds.u[k] + scores.q(block)[p] * bounds.v[k] + bounds.e[k];
    };
    const auto score = [&](std::int64_t k) {
      return values[k * kBlockPoints + p] + bounds.base[k];
    };
    // At least n_nearest columns have a score below this, so a column whose score must lie above it
    // is not among them.
    float limit = __builtin_inff();
    if (!any_wild && !group_.wild(begin + p)) {
      for (std::int64_t k = 0; k < n_columns_; ++k) uppers[k] = score(k) + bound(k);
      std::nth_element(uppers.begin(), uppers.begin() + (n_nearest - 1), uppers.end());
      limit = uppers[n_nearest - 1];
    }
    candidates.clear();
    const T* x = group_.row(group_.row_at(begin + p), row_scratch_.get(thread));
    for (std::int64_t k = 0; k < n_columns_; ++k) {
      if (score(k) - bound(k) > limit) continue;
      candidates.push_back(k);
      distances[k] = group_.kernels().distance(x, centroids_ + k * group_.n_features(),
                                               group_.scale(), group_.n_features());
    }
    bool exact = false;
    std::partial_sort(candidates.begin(), candidates.begin() + n_nearest, candidates.end(),
                      [&](std::int64_t a, std::int64_t b) {
                        if (a == b) return false;
                        const int order = compare(x, a, distances[a], b, distances[b], &exact);
                        return order != 0 ? order < 0 : a < b;
                      });
    std::copy(candidates.begin(), candidates.begin() + n_nearest, nearest + p * n_nearest);
    counters.n_exact += exact;
  }
}

template class Nearest<float>;
template class Nearest<double>;

}  // namespace ddkern::kmeans
