// SPDX-License-Identifier: Apache-2.0
#include "kmeans/scores.h"

#include <algorithm>
#include <numeric>

namespace ddkern::kmeans {

// ---------------------------------------------------------------------------------- DirectScores

namespace {

template <class T>
std::int64_t column_words(const Group<T>& group) {
  switch (group.format()) {
    case FastFormat::f32: return group.n_features();
    case FastFormat::bf16: return (group.n_features() + 1) / 2;
    case FastFormat::bytes: return group.byte_layout().n_column_words;
  }
  return 0;
}

}  // namespace

template <class T>
DirectScores<T>::DirectScores(const Group<T>& group, std::int64_t n_columns, bool cached,
                              int n_threads)
    : Scores<T>(n_columns), group_(group), n_columns_(n_columns), depth_(column_words(group)),
      stride_(apart(depth_)), packed_(n_columns * stride_),
      cache_(cached ? group.n_blocks() * n_columns * kBlockPoints : 0),
      block_scratch_(n_threads * group.block_words()),
      row_scratch_(n_threads, group.n_features(), kBlockPoints) {}

// As for the other formats, with norms weighted by segment.
template <class T>
void DirectScores<T>::pack_column_bytes(std::int64_t k, const T* centroid) {
  const ByteLayout& layout = group_.byte_layout();
  const std::size_t n_segments = layout.segments.size();
  std::vector<double> sums(3 * n_segments);
  double *sq_norms = sums.data(), *sq_lost = sq_norms + n_segments;
  double* sq_norms_uncentred = sq_lost + n_segments;
  group_.kernels().pack.pack_column_bytes(
      {centroid, group_.fast_frame().scale(), group_.fast_frame().centre.data(),
       layout.segments.data(), static_cast<std::int64_t>(n_segments), layout.runs.data(),
       layout.n_runs(), reinterpret_cast<std::uint32_t*>(packed_.data() + k * stride_), sq_norms,
       sq_lost, sq_norms_uncentred});
  double sq_norm = 0, sq_norm_uncentred = 0, norm_u = 0, norm_v = 0, lost_u = 0, lost_v = 0;
  double least_weight = 1;
  for (std::size_t s = 0; s < n_segments; ++s) {
    const double weight = layout.segments[s].weight;
    sq_norm += sq_norms[s];
    sq_norm_uncentred += sq_norms_uncentred[s];
    norm_u += sq_norms[s] * weight;
    norm_v += sq_norms[s] / weight;
    lost_u += sq_lost[s] * weight;
    lost_v += sq_lost[s] / weight;
    least_weight = std::min(least_weight, weight);
  }
  // A few roundings a run, and those of the scales; see pack_column() for the rest.
  const double gamma = static_cast<double>(2 * layout.n_runs() + 12) * 0x1.01p-24;
  const double arithmetic = 0x1p-52 * (std::sqrt(sq_norm) + std::sqrt(sq_norm_uncentred)) +
                            std::sqrt(static_cast<double>(group_.n_features())) * 0x1p-120;
  const double lost = std::sqrt(lost_v) + arithmetic / least_weight;
  const double norm_of_u = std::sqrt(norm_u) + std::sqrt(lost_u) + arithmetic;
  const double norm_of_v = std::sqrt(norm_v) + lost;
  this->bounds_.base[k] = static_cast<float>(sq_norm);
  this->bounds_.set(k, 2 * norm_of_u, 2 * lost + (2 * gamma + 0x1p-20) * norm_of_v,
                    0x1p-20 * (sq_norm + lost * lost));
}

template <class T>
void DirectScores<T>::pack_column(std::int64_t k, const T* centroid) {
  if (group_.format() == FastFormat::bytes) return pack_column_bytes(k, centroid);
  const std::int64_t n_features = group_.n_features();
  const bool bf16 = group_.format() == FastFormat::bf16;
  float* words = packed_.data() + k * stride_;
  ColumnArgs<T> args{centroid,
                     group_.fast_frame().scale(),
                     group_.fast_frame().centre.data(),
                     n_features,
                     bf16 ? nullptr : words,
                     bf16 ? reinterpret_cast<std::uint32_t*>(words) : nullptr,
                     0,
                     0,
                     0};
  group_.kernels().pack.pack_column(args);
  const DotsOps& dots = group_.kernels().dots;
  const double gamma = accumulation_bound(n_features, bf16 ? 1.0 : dots.n_roundings_per_product);
  const double norm = std::sqrt(args.sq_norm);
  // Beside what was measured: the float64 arithmetic of z itself, and denormals.
  const double lost = std::sqrt(args.sq_residual) +
                      0x1p-52 * (norm + std::sqrt(args.sq_norm_uncentred)) +
                      std::sqrt(static_cast<double>(n_features)) * 0x1p-120;
  this->bounds_.base[k] = static_cast<float>(args.sq_norm);
  this->bounds_.set(k, 2 * (norm + lost), 2 * lost + (2 * gamma + 0x1p-20) * (norm + lost),
                    0x1p-20 * (args.sq_norm + lost * lost));
}

template <class T>
void DirectScores<T>::update(const T* centroids, const std::vector<std::int64_t>& moved,
                             const Team& team) {
  std::vector<const T*> values;
  for (const std::int64_t k : moved) values.push_back(centroids + k * group_.n_features());
  update(values, moved, team);
}

template <class T>
void DirectScores<T>::update(const std::vector<const T*>& values,
                             const std::vector<std::int64_t>& moved, const Team& team) {
  team.for_ranges(static_cast<std::int64_t>(moved.size()), 1,
                  [&](std::int64_t begin, std::int64_t end, int) {
                    for (std::int64_t i = begin; i < end; ++i) pack_column(moved[i], values[i]);
                  });
  this->bounds_.settle();
  if (!cache_.empty()) {
    columns_ = moved;
  } else if (columns_.empty()) {
    columns_.resize(static_cast<std::size_t>(n_columns_));
    std::iota(columns_.begin(), columns_.end(), 0);
  }
  const auto n = static_cast<std::int64_t>(columns_.size());
  column_at_.clear();
  for (const std::int64_t k : columns_) column_at_.push_back(packed_.data() + k * stride_);
  const std::int64_t n_tiles = (n + kTileColumns - 1) / kTileColumns;
  tiles_.clear();
  for (std::int64_t t = 0; t < n_tiles; ++t) {
    const std::int64_t first = n * t / n_tiles, last = n * (t + 1) / n_tiles;
    tiles_.push_back({first, static_cast<int>(last - first)});
  }
}

template <class T>
DirectScores<T> DirectScores<T>::select(const std::vector<std::int64_t>& columns,
                                        const Team& team) const {
  const auto n = static_cast<std::int64_t>(columns.size());
  DirectScores selected(group_, n, true, team.n_threads());
  for (std::int64_t c = 0; c < n; ++c) {
    if (columns[c] >= 0) selected.bounds_.copy(c, this->bounds_, columns[c]);
  }
  team.for_ranges(group_.n_blocks(), 4, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t b = begin; b < end; ++b) {
      for (std::int64_t c = 0; c < n; ++c) {
        if (columns[c] < 0) continue;
        const float* from = cache_.data() + (b * n_columns_ + columns[c]) * kBlockPoints;
        std::copy(from, from + kBlockPoints, selected.cache_.data() + (b * n + c) * kBlockPoints);
      }
    }
  });
  return selected;
}

template <class T>
const float* DirectScores<T>::block(std::int64_t block, float* out, int thread) {
  float* scores = cache_.empty() ? out : cache_.data() + block * n_columns_ * kBlockPoints;
  const void* points = group_.fast_block(
      block, block_scratch_.data() + thread * group_.block_words(), row_scratch_, thread);
  const DotsOps& dots = group_.kernels().dots;
  if (group_.format() == FastFormat::bytes) {
    const ByteLayout& layout = group_.byte_layout();
    for (const Tile& tile : tiles_) {
      dots.fast_bytes({points, column_at_.data() + tile.first, tile.width, layout.runs.data(),
                       layout.n_runs(), columns_.data() + tile.first, scores});
    }
    return scores;
  }
  const auto product = group_.format() == FastFormat::bf16 ? dots.fast_bf16 : dots.fast_f32;
  for (const Tile& tile : tiles_) {
    product({points, column_at_.data() + tile.first, 1, tile.width, depth_,
             columns_.data() + tile.first, scores});
  }
  return scores;
}

// ------------------------------------------------------------------------------------ GramScores

template <class T>
GramScores<T>::GramScores(const Group<T>& group, const GramMatrix& gram, std::int64_t n_columns)
    : Scores<T>(n_columns), group_(group), gram_(gram), n_columns_(n_columns),
      cells_(static_cast<std::size_t>(n_columns)), sums_(gram.stride() * n_columns) {
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
      const auto add = [&](std::int64_t row, double weight) {
        const float* entries = gram_.row(row);
        for (std::int64_t b = 0; b < group_.n_blocks(); ++b) {
          double* sums = sums_.data() + (b * n_columns_ + k) * kBlockPoints;
          for (int p = 0; p < kBlockPoints; ++p) {
            sums[p] += weight * static_cast<double>(entries[b * kBlockPoints + p]);
          }
        }
        cell.traffic += std::abs(weight);
        cell.n_operations += 1;
      };
      if (rebuild[k]) {
        for (std::int64_t b = 0; b < group_.n_blocks(); ++b) {
          double* sums = sums_.data() + (b * n_columns_ + k) * kBlockPoints;
          std::fill(sums, sums + kBlockPoints, 0.0);
        }
        cell = Cell{};
        cell.rebuild_next = false;
        cell.traffic = 0;
        for (const std::int64_t i : members[k]) add(i, group_.weight(i));
      } else {
        for (const std::int64_t i : change.came) add(i, group_.weight(i));
        for (const std::int64_t i : change.left) add(i, -group_.weight(i));
      }
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
const float* GramScores<T>::block(std::int64_t block, float* out, int) {
  for (std::int64_t k = 0; k < n_columns_; ++k) {
    const double* sums = sums_.data() + (block * n_columns_ + k) * kBlockPoints;
    const double factor = -2 / cells_[k].weight;
    float* scores = out + k * kBlockPoints;
    for (int p = 0; p < kBlockPoints; ++p) {
      scores[p] = static_cast<float>(factor * sums[p]);
    }
  }
  return out;
}

// ---------------------------------------------------------------------------------- misleading

template <class T>
void mislead(Scores<T>& scores, const Group<T>& group, const T* columns, std::int64_t n_columns,
             std::int64_t block, T* row_scratch, float* values,
             bool (*up)(std::int64_t, std::int64_t)) {
  const ColumnBounds& bounds = scores.bounds();
  const std::int64_t n = group.n_features();
  const double scale = scores.frame().scale();
  std::vector<double> distances(static_cast<std::size_t>(n_columns));
  for (int p = 0; p < kBlockPoints; ++p) {
    const std::int64_t i = block * kBlockPoints + p;
    if (i >= group.n()) break;
    const T* x = group.row(i, row_scratch);
    double sq_norm = 0;
    for (std::int64_t j = 0; j < n; ++j) {
      const double y =
          static_cast<double>(x[j]) * scale - static_cast<double>(scores.frame().centre[j]);
      sq_norm += y * y;
    }
    std::int64_t nearest = 0;
    for (std::int64_t k = 0; k < n_columns; ++k) {
      distances[k] = group.kernels().distance(x, columns + k * n, scale, n);
      if (distances[k] < distances[nearest]) nearest = k;
    }
    for (std::int64_t k = 0; k < n_columns; ++k) {
      const double score = distances[k] - sq_norm;
      const double bound = static_cast<double>(scores.p(block)[p]) * bounds.u[k] +
                           static_cast<double>(scores.q(block)[p]) * bounds.v[k] + bounds.e[k];
      // What the scan rounds on its own is part of the bound and not ours to use up.
      const double room = std::max(
          0.0, bound - 0x1p-21 * (std::abs(score) + bound + std::abs(double{bounds.base[k]})));
      const double perturbed = up(k, nearest) ? score + room : score - room;
      values[k * kBlockPoints + p] = static_cast<float>(perturbed - bounds.base[k]);
    }
  }
}

template void mislead(Scores<float>&, const Group<float>&, const float*, std::int64_t, std::int64_t,
                      float*, float*, bool (*)(std::int64_t, std::int64_t));
template void mislead(Scores<double>&, const Group<double>&, const double*, std::int64_t,
                      std::int64_t, double*, float*, bool (*)(std::int64_t, std::int64_t));

template class DirectScores<float>;
template class DirectScores<double>;
template class GramScores<float>;
template class GramScores<double>;

}  // namespace ddkern::kmeans
