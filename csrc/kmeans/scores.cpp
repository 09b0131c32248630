// SPDX-License-Identifier: Apache-2.0
#include "kmeans/scores.h"

#include <algorithm>
#include <cmath>
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

// Heads are given up where more than this share of the tails is multiplied all the same.
constexpr double kMostTails = 0.85;

}  // namespace

template <class T>
DirectScores<T>::DirectScores(const Group<T>& group, std::int64_t n_columns, bool cached,
                              int n_threads)
    : Scores<T>(n_columns), group_(group), depth_(column_words(group)), stride_(apart(depth_)),
      packed_(n_columns * stride_),
      cache_(cached ? group.n_blocks() * n_columns * kBlockPoints : 0),
      block_scratch_(n_threads * group.block_words()),
      row_scratch_(n_threads, group.n_features(), kBlockPoints) {
  if (group.tails() == nullptr) return;
  const auto n = static_cast<std::size_t>(n_columns);
  column_tails_.resize(n);
  if (cached) whole_.resize(2 * n * static_cast<std::size_t>(group.n_blocks()));
  lists_.resize(static_cast<std::size_t>(n_threads));
  for (Lists& lists : lists_) {
    // One more, for what is written before it is known whether it counts.
    for (auto* list : {&lists.open[0], &lists.open[1], &lists.missing}) list->resize(n + 1);
    if (!cached) lists.whole.resize(2 * n);
  }
}

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
  double least_weight = 1, tail = 0;
  for (std::size_t s = 0; s < n_segments; ++s) {
    const double weight = layout.segments[s].weight;
    sq_norm += sq_norms[s];
    sq_norm_uncentred += sq_norms_uncentred[s];
    norm_u += sq_norms[s] * weight;
    norm_v += sq_norms[s] / weight;
    lost_u += sq_lost[s] * weight;
    lost_v += sq_lost[s] / weight;
    least_weight = std::min(least_weight, weight);
    if (static_cast<std::int64_t>(s) >= layout.n_head_segments) tail += sq_norms[s];
  }
  // A few roundings a run, and those of the scales; see pack_column() for the rest.
  const double gamma = static_cast<double>(2 * layout.n_runs() + 12) * 0x1.01p-24;
  const double arithmetic = 0x1p-52 * (std::sqrt(sq_norm) + std::sqrt(sq_norm_uncentred)) +
                            std::sqrt(static_cast<double>(group_.n_features())) * 0x1p-120;
  const double lost = std::sqrt(lost_v) + arithmetic / least_weight;
  const double norm_of_u = std::sqrt(norm_u) + std::sqrt(lost_u) + arithmetic;
  const double norm_of_v = std::sqrt(norm_v) + lost;
  if (has_heads()) {
    column_tails_[static_cast<std::size_t>(k)] =
        static_cast<float>(2 * (std::sqrt(tail) + arithmetic) * (1 + 0x1p-12));
  }
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
  } else {
    columns_.resize(static_cast<std::size_t>(n_columns_));
    std::iota(columns_.begin(), columns_.end(), 0);
  }
  column_at_.clear();
  for (const std::int64_t k : columns_) column_at_.push_back(packed_.data() + k * stride_);
  // What the last pass shows.
  std::int64_t n_heads = 0, n_tails = 0;
  for (Lists& lists : lists_) {
    n_heads += lists.n_heads;
    n_tails += lists.n_tails;
    lists.n_heads = lists.n_tails = 0;
  }
  if (static_cast<double>(n_tails) > kMostTails * static_cast<double>(n_heads)) heads_pay_ = false;
}

template <class T>
DirectScores<T> DirectScores<T>::select(const std::vector<std::int64_t>& columns,
                                        const Team& team) const {
  const auto n = static_cast<std::int64_t>(columns.size());
  DirectScores selected(group_, n, true, team.n_threads());
  for (std::int64_t c = 0; c < n; ++c) {
    if (columns[c] < 0) continue;
    selected.bounds_.copy(c, this->bounds_, columns[c]);
    if (has_heads()) selected.column_tails_[c] = column_tails_[columns[c]];
  }
  // Seeding multiplies whole columns.
  std::fill(selected.whole_.begin(), selected.whole_.end(), 1);
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
const void* DirectScores<T>::points_of(std::int64_t block, int thread) {
  return group_.fast_block(block, block_scratch_.data() + thread * group_.block_words(),
                           row_scratch_, thread);
}

template <class T>
void DirectScores<T>::multiply_tile(const void* points, int n_points, const void* const* columns,
                                    int width, Part part, const std::int64_t* rows,
                                    float* products) const {
  const DotsOps& dots = group_.kernels().dots;
  if (group_.format() == FastFormat::bytes) {
    const ByteLayout& layout = group_.byte_layout();
    dots.fast_bytes({points, n_points, columns, width, layout.runs.data(), layout.n_runs(),
                     part == Part::tail ? layout.n_head_runs : 0,
                     part == Part::head ? layout.n_head_runs : layout.n_runs(), rows, products});
    return;
  }
  const auto product = group_.format() == FastFormat::bf16 ? dots.fast_bf16 : dots.fast_f32;
  product({points, columns, 1, width, depth_, rows, products});
}

template <class T>
void DirectScores<T>::multiply_moved(const void* points, Part part, float* products) const {
  const auto n = static_cast<std::int64_t>(columns_.size());
  const std::int64_t n_tiles = (n + kTileColumns - 1) / kTileColumns;
  for (std::int64_t t = 0; t < n_tiles; ++t) {
    const std::int64_t first = n * t / n_tiles, last = n * (t + 1) / n_tiles;
    multiply_tile(points, kBlockPoints, column_at_.data() + first, static_cast<int>(last - first),
                  part, columns_.data() + first, products);
  }
}

template <class T>
void DirectScores<T>::multiply_tails(const std::uint32_t* points, const std::int32_t* columns,
                                     std::int64_t n_columns, float* products) const {
  const std::int64_t n_tiles = (n_columns + kTileColumns - 1) / kTileColumns;
  for (std::int64_t t = 0; t < n_tiles; ++t) {
    const std::int64_t first = n_columns * t / n_tiles, last = n_columns * (t + 1) / n_tiles;
    const void* at[kTileColumns];
    std::int64_t rows[kTileColumns];
    for (std::int64_t c = first; c < last; ++c) {
      rows[c - first] = columns[c];
      at[c - first] = packed_.data() + columns[c] * stride_;
    }
    multiply_tile(points, kHalfBlock, at, static_cast<int>(last - first), Part::tail, rows,
                  products);
  }
}

template <class T>
const float* DirectScores<T>::block(std::int64_t block, float* out, int thread) {
  float* products = cache_.empty() ? out : cache_.data() + block * n_columns_ * kBlockPoints;
  multiply_moved(points_of(block, thread), Part::whole, products);
  if (!whole_.empty()) {
    char* whole = whole_.data() + 2 * block * n_columns_;
    for (const std::int64_t k : columns_) whole[k] = whole[n_columns_ + k] = 1;
  }
  return products;
}

// The columns that heads do not rule out. `products` are read for the columns in `near` alone.
template <class T>
std::int64_t DirectScores<T>::test_heads(std::int64_t block, int half, const std::int32_t* near,
                                         const float* products, const float* heads,
                                         std::int32_t* open) const {
  const ColumnBounds& bounds = this->bounds_;
  float limits[kHalfBlock];
  bool wild = bounds.any_wild;
  for (int i = 0; i < kHalfBlock; ++i) {
    const int point = half * kHalfBlock + i;
    const std::int64_t row = block * kBlockPoints + point;
    if (row >= group_.n()) {
      limits[i] = -HUGE_VALF;
      continue;
    }
    wild = wild || group_.wild(row);
    const std::int32_t k = near[point];
    const float p = this->p(block)[point], q = this->q(block)[point];
    const float upper = products[k * kBlockPoints + point] + bounds.base[k] +
                        (p * bounds.u[k] + q * bounds.v[k] + bounds.e[k]);
    // A quarter more for what the test itself rounds.
    limits[i] = upper + 1.25f * (p * bounds.most_u + q * bounds.most_v + bounds.most_e);
  }
  if (wild) {
    std::iota(open, open + n_columns_, 0);
    return n_columns_;
  }
  return group_.kernels().scan.open_columns(
      {heads + half * kHalfBlock, n_columns_, bounds.base.data(), column_tails_.data(),
       tails(block) + half * kHalfBlock, limits},
      open);
}

template <class T>
OpenColumns DirectScores<T>::open(std::int64_t block, const std::int32_t* near, float* out,
                                  int thread) {
  if (!has_heads() || near == nullptr || (cache_.empty() && !heads_pay_)) {
    return this->every(this->block(block, out, thread));
  }
  float* products = cache_.empty() ? out : cache_.data() + block * n_columns_ * kBlockPoints;
  const auto* points = static_cast<const std::uint32_t*>(points_of(block, thread));
  const auto n_moved = static_cast<std::int64_t>(columns_.size());
  const bool heads = heads_pay_ && n_moved >= kFewestColumnsForHeads;
  multiply_moved(points, heads ? Part::head : Part::whole, products);
  Lists& lists = lists_[static_cast<std::size_t>(thread)];
  char* whole = whole_.empty() ? lists.whole.data() : whole_.data() + 2 * block * n_columns_;
  std::int32_t* missing = lists.missing.data();
  OpenColumns found{products, {}, {}};
  for (int half = 0; half < 2; ++half, whole += n_columns_) {
    if (n_moved == n_columns_) {
      std::fill(whole, whole + n_columns_, !heads);
    } else {
      for (const std::int64_t k : columns_) whole[k] = !heads;
    }
    const int first = half * kHalfBlock;
    const auto n_points = static_cast<int>(
        std::clamp<std::int64_t>(group_.n() - block * kBlockPoints - first, 0, kHalfBlock));
    // What is near first, for it says what the others have to beat.
    std::int64_t n_missing = 0;
    for (int i = first; i < first + n_points; ++i) {
      missing[n_missing] = near[i];
      n_missing += whole[near[i]] == 0;
      whole[near[i]] = 1;
    }
    multiply_tails(points + first, missing, n_missing, products + first);
    std::int64_t n_tails = n_missing;

    std::int32_t* open = lists.open[half].data();
    const std::int64_t n_open = test_heads(block, half, near, products, products, open);
    n_missing = 0;
    for (std::int64_t i = 0; i < n_open; ++i) {
      missing[n_missing] = open[i];
      n_missing += whole[open[i]] == 0;
      whole[open[i]] = 1;
    }
    multiply_tails(points + first, missing, n_missing, products + first);
    n_tails += n_missing;
    if (heads) {
      lists.n_heads += n_moved;
      lists.n_tails += n_tails;
      lists.n_skipped += std::max<std::int64_t>(n_moved - n_tails, 0) * n_points;
    }
    found.columns[half] = open;
    found.n_columns[half] = n_open;
  }
  return found;
}

template <class T>
std::int64_t DirectScores<T>::n_skipped() const {
  std::int64_t n = 0;
  for (const Lists& lists : lists_) n += lists.n_skipped;
  return n;
}

template <class T>
OpenColumns DirectScores<T>::open_by_heads(std::int64_t block, const std::int32_t* near,
                                           const float* products, const float* heads, int thread) {
  Lists& lists = lists_[static_cast<std::size_t>(thread)];
  OpenColumns found{products, {}, {}};
  for (int half = 0; half < 2; ++half) {
    found.columns[half] = lists.open[half].data();
    found.n_columns[half] = test_heads(block, half, near, products, heads, lists.open[half].data());
  }
  return found;
}

// ------------------------------------------------------------------------------------ GramScores

template <class T>
GramScores<T>::GramScores(const Group<T>& group, const GramMatrix& gram, std::int64_t n_columns)
    : Scores<T>(n_columns), group_(group), gram_(gram), cells_(static_cast<std::size_t>(n_columns)),
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
const float* GramScores<T>::block(std::int64_t block, float* out, int) {
  for (std::int64_t k = 0; k < n_columns_; ++k) {
    const double* sums = sums_.data() + (block * n_columns_ + k) * kBlockPoints;
    group_.kernels().gram_sum.products(sums, -2 / cells_[k].weight, out + k * kBlockPoints);
  }
  return out;
}

// ---------------------------------------------------------------------------------- misleading

template <class T>
void mislead(Scores<T>& scores, const Group<T>& group, const T* columns, std::int64_t n_columns,
             std::int64_t block, T* row_scratch, float* values, float* heads,
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
      if (heads == nullptr) continue;
      const double tail = static_cast<double>(scores.tails(block)[p]) * scores.column_tails()[k];
      heads[k * kBlockPoints + p] = static_cast<float>(
          (up(k, nearest) ? perturbed + tail : perturbed - tail) - bounds.base[k]);
    }
  }
}

template void mislead(Scores<float>&, const Group<float>&, const float*, std::int64_t, std::int64_t,
                      float*, float*, float*, bool (*)(std::int64_t, std::int64_t));
template void mislead(Scores<double>&, const Group<double>&, const double*, std::int64_t,
                      std::int64_t, double*, float*, float*, bool (*)(std::int64_t, std::int64_t));

template class DirectScores<float>;
template class DirectScores<double>;
template class GramScores<float>;
template class GramScores<double>;

}  // namespace ddkern::kmeans
