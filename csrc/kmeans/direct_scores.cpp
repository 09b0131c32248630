// SPDX-License-Identifier: Apache-2.0
#include "kmeans/direct_scores.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace ddkern::kmeans {
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

// Heads are given up where more than this share of the tails is multiplied all the same, and
// margins where they leave more than this share of the columns once they had time to grow.
constexpr double kMostTails = 0.85, kMostCandidates = 0.97;
constexpr int kPassesToGrow = 8;

// What a column costs with half a block, against the whole block.
constexpr double kCostOfHalf = 0.62;

}  // namespace

template <class T>
DirectScores<T>::DirectScores(const Group<T>& group, std::int64_t n_columns, bool cached,
                              int n_threads)
    : Scores<T>(group, n_columns), depth_(column_words(group)), stride_(apart(depth_)),
      packed_(n_columns * stride_),
      cache_(cached ? group.n_blocks() * n_columns * kBlockPoints : 0),
      scratch_(static_cast<std::size_t>(n_threads)),
      block_scratch_(n_threads * group.block_words()),
      row_scratch_(n_threads, group.n_features(), kBlockPoints) {
  if (group.tails() != nullptr) column_tails_.resize(static_cast<std::size_t>(n_columns));
  const auto set = static_cast<std::size_t>(n_words());
  if (cached) known_.resize(4 * set * static_cast<std::size_t>(group.n_blocks()), 0);
  updated_words_.resize(set, 0);
  updated_ = {updated_words_.data(), n_words()};
  for (Scratch& scratch : scratch_) {
    scratch.sets.resize(11 * set, 0);
    std::uint64_t* next = scratch.sets.data();
    const auto take = [&] { return ColumnSet(std::exchange(next, next + set), n_words()); };
    scratch.both = take();
    scratch.list.resize(static_cast<std::size_t>(n_columns + kListPadding));
    for (int side = 0; side < 2; ++side) {
      Half& half = scratch.halves[side];
      half.side = side;
      half.with_head = take();
      half.whole = take();
      half.candidates = take();
      half.open = take();
      half.missing = take();
      half.candidate_list.resize(static_cast<std::size_t>(n_columns + kListPadding));
      half.open_list.resize(static_cast<std::size_t>(n_columns + kListPadding));
    }
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
       layout.segments.data(), layout.n_segments(), layout.runs.data(),
       reinterpret_cast<std::uint32_t*>(packed_.data() + k * stride_), sq_norms, sq_lost,
       sq_norms_uncentred});
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
  // A few roundings a run, and those of the scales. See pack_column() for the rest.
  const double gamma = static_cast<double>(4 * layout.n_segments() + 48) * 0x1.01p-24;
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
                             const std::vector<double>& sq_shifts, const Team& team) {
  std::vector<const T*> values;
  for (const std::int64_t k : moved) values.push_back(centroids + k * group_.n_features());
  update(values, moved, team);
  if (margins_pay_ && !sq_shifts.empty()) advance_margins(sq_shifts);
  // Once a product was left out, nobody but open() knows which are there.
  keeps_lists_ =
      margins_.has_value() || (has_heads() && heads_pay_) || (keeps_lists_ && !cache_.empty());
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
    columns_.assign(moved.begin(), moved.end());
  } else {
    columns_.resize(static_cast<std::size_t>(n_columns_));
    std::iota(columns_.begin(), columns_.end(), 0);
  }
  updated_.clear();
  for (const std::int32_t k : columns_) updated_.add(k);
  last_pass_ = Counters{};
  for (Scratch& scratch : scratch_) {
    last_pass_ += scratch.counters;
    scratch.counters = Counters{};
  }
  n_skipped_ += last_pass_.n_skipped;
  if (static_cast<double>(last_pass_.n_tails) >
      kMostTails * static_cast<double>(last_pass_.n_heads)) {
    heads_pay_ = false;
  }
}

// The canonical frame and that of scores differ in a centre, which distances do not see, and in a
// power of two.
template <class T>
void DirectScores<T>::advance_margins(const std::vector<double>& sq_shifts) {
  const bool grown = ++n_passes_ > kPassesToGrow;
  if (grown && static_cast<double>(last_pass_.n_candidates) >
                   kMostCandidates * static_cast<double>(last_pass_.n_columns)) {
    margins_pay_ = false;
    margins_.reset();
    return;
  }
  if (!margins_) margins_.emplace(group_.largest_sq_norms(), n_columns_);
  const double unit = std::ldexp(1.0, group_.frame().exponent - frame().exponent);
  std::vector<double> shifts;
  for (const double sq_shift : sq_shifts) {
    // Rounded n_features deep at most, and the squares may have underflowed.
    shifts.push_back((std::sqrt(sq_shift) * (1 + 0x1p-20) + 0x1p-120) * unit);
  }
  margins_->advance(shifts);
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
  std::fill(selected.known_.begin(), selected.known_.end(), ~std::uint64_t{0});
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
void DirectScores<T>::multiply_list(const void* points, int n_points, const std::int32_t* columns,
                                    std::int64_t n_columns, Part part, float* products) const {
  const DotsOps& dots = group_.kernels().dots;
  if (group_.format() == FastFormat::bytes) {
    const ByteLayout& layout = group_.byte_layout();
    dots.fast_bytes({static_cast<const std::uint32_t*>(points), n_points,
                     reinterpret_cast<const std::uint32_t*>(packed_.data()), stride_, columns,
                     n_columns, layout.runs.data(), layout.n_segments(),
                     part == Part::tail ? layout.n_head_segments : 0,
                     part == Part::head ? layout.n_head_segments : layout.n_segments(), products});
    return;
  }
  const auto product = group_.format() == FastFormat::bf16 ? dots.fast_bf16 : dots.fast_f32;
  const std::int64_t n_tiles = (n_columns + kTileColumns - 1) / kTileColumns;
  for (std::int64_t t = 0; t < n_tiles; ++t) {
    const std::int64_t first = n_columns * t / n_tiles, last = n_columns * (t + 1) / n_tiles;
    const void* at[kTileColumns];
    for (std::int64_t c = first; c < last; ++c)
      at[c - first] = packed_.data() + columns[c] * stride_;
    product({points, at, 1, static_cast<int>(last - first), depth_, columns + first, products,
             false, n_points});
  }
}

template <class T>
std::int64_t DirectScores<T>::multiply_set(const void* points, int first_point, int n_points,
                                           const ColumnSet& columns, Part part, Scratch& scratch,
                                           float* products) const {
  const std::int64_t n = list(columns, scratch.list);
  multiply_list(static_cast<const std::uint32_t*>(points) + first_point, n_points,
                scratch.list.data(), n, part, products + first_point);
  return n;
}

template <class T>
float* DirectScores<T>::multiply(std::int64_t block, float* out, int thread) {
  float* products = cache_.empty() ? out : cache_.data() + block * n_columns_ * kBlockPoints;
  multiply_updated(points_of(block, thread), Part::whole, products);
  if (!known_.empty()) {
    for (int set = 0; set < 4; ++set) {
      ColumnSet(known_.data() + (4 * block + set) * n_words(), n_words()).add(updated_);
    }
  }
  scratch_[static_cast<std::size_t>(thread)].counters.n_multiplied +=
      static_cast<std::int64_t>(columns_.size()) * kBlockPoints;
  return products;
}

template <class T>
bool DirectScores<T>::any_wild(std::int64_t first_point, int n_points) const {
  bool wild = this->bounds_.any_wild;
  for (int i = 0; i < n_points; ++i) wild = wild || group_.wild(first_point + i);
  return wild;
}

// What margins leave of the columns.
template <class T>
void DirectScores<T>::find_candidates(Half& half) {
  half.certain = !any_wild(half.first_point, half.n_points);
  half.margin = {};
  half.listed = nullptr;
  half.n_candidates = n_columns_;
  if (half.n_points == 0) {
    half.candidates.clear();
    half.n_candidates = 0;
    return;
  }
  if (margins_) {
    half.margin = margins_->follow(half.first_point / kHalfBlock, half.near, half.n_points);
  }
  if (!margins_ || !half.certain) {
    half.candidates.fill(n_columns_);
    return;
  }
  group_.kernels().shortlist.by_margin(half.margin, n_columns_, half.candidates.words());
  half.listed = half.candidate_list.data();
  half.n_candidates = list(half.candidates, half.candidate_list);
}

// What is missing in each half: both together where they want the same columns, or one after the
// other.
template <class T>
void DirectScores<T>::multiply_missing(Scratch& scratch, const void* points, Part part,
                                       float* products) const {
  auto& [first, second] = scratch.halves;
  std::int64_t n_both = 0;
  bool together = false;
  // Tails need a head in either half.
  if (part != Part::tail) {
    scratch.both.set_union(first.missing, second.missing);
    n_both = scratch.both.count();
    const std::int64_t n_apart = first.missing.count() + second.missing.count();
    together = static_cast<double>(n_both) <= kCostOfHalf * static_cast<double>(n_apart);
  }
  if (together && scratch.both == updated_) {
    multiply_updated(points, part, products);
  } else if (together) {
    multiply_set(points, 0, kBlockPoints, scratch.both, part, scratch, products);
  }
  for (Half& half : scratch.halves) {
    const ColumnSet& multiplied = together ? scratch.both : half.missing;
    const std::int64_t n = together ? n_both
                                    : multiply_set(points, half.side * kHalfBlock, kHalfBlock,
                                                   multiplied, part, scratch, products);
    half.with_head.add(multiplied);
    if (part == Part::head) {
      half.whole.remove(multiplied);
      half.n_heads += n;
    } else {
      half.whole.add(multiplied);
      half.n_whole += n;
    }
  }
}

// The candidates that their products do not rule out; what is near must be whole.
template <class T>
void DirectScores<T>::test_products(Half& half, const float* products, bool heads) const {
  const ColumnBounds& bounds = this->bounds_;
  if (!half.certain) {
    half.open.copy(half.candidates);
    return;
  }
  const float *p = group_.p() + half.first_point, *q = group_.q() + half.first_point;
  const float* sq_norms = margins_ ? margins_->sq_norms(half.first_point / kHalfBlock) : nullptr;
  products += half.side * kHalfBlock;
  float limits[kHalfBlock], sq_reach = 0;
  for (int i = 0; i < half.n_points; ++i) {
    const std::int32_t k = half.near[i];
    const float upper = products[k * kBlockPoints + i] + bounds.base[k] +
                        (p[i] * bounds.u[k] + q[i] * bounds.v[k] + bounds.e[k]);
    // A quarter more for what the test itself rounds.
    limits[i] = upper + 1.25f * (p[i] * bounds.most_u + q[i] * bounds.most_v + bounds.most_e);
    if (sq_norms != nullptr) sq_reach = std::max(sq_reach, limits[i] + sq_norms[i]);
  }
  std::fill(limits + half.n_points, limits + kHalfBlock, -HUGE_VALF);
  half.open.clear();
  group_.kernels().shortlist.by_product(
      {products, half.listed, half.n_candidates, bounds.base.data(),
       heads ? column_tails_.data() : nullptr, heads ? group_.tails() + half.first_point : nullptr,
       limits, half.margin, std::sqrt(sq_reach) * (1 + 0x1p-20f)},
      half.open.words());
}

template <class T>
OpenColumns DirectScores<T>::open(std::int64_t block, const std::int32_t* near, float* out,
                                  int thread) {
  if (near == nullptr || !keeps_lists_) return this->every(this->block(block, out, thread));
  float* products = cache_.empty() ? out : cache_.data() + block * n_columns_ * kBlockPoints;
  Scratch& scratch = scratch_[static_cast<std::size_t>(thread)];
  for (Half& half : scratch.halves) {
    half.first_point = block * kBlockPoints + half.side * kHalfBlock;
    half.n_points =
        static_cast<int>(std::clamp<std::int64_t>(group_.n() - half.first_point, 0, kHalfBlock));
    half.near = near + half.side * kHalfBlock;
    half.n_heads = half.n_whole = 0;
    if (known_.empty()) {
      half.with_head.clear();
      half.whole.clear();
    } else {
      std::uint64_t* known = known_.data() + (4 * block + 2 * half.side) * n_words();
      half.with_head = {known, n_words()};
      half.whole = {known + n_words(), n_words()};
      half.with_head.remove(updated_);
      half.whole.remove(updated_);
    }
    find_candidates(half);
  }

  auto& [first, second] = scratch.halves;
  const void* points = points_of(block, thread);
  const bool heads = has_heads() && heads_pay_ &&
                     first.n_candidates + second.n_candidates >= 2 * kFewestColumnsForHeads;
  for (Half& half : scratch.halves) {
    half.missing.set_difference(half.candidates, heads ? half.with_head : half.whole);
  }
  multiply_missing(scratch, points, heads ? Part::head : Part::whole, products);
  if (heads) {
    // What is near first, for it says what the others have to beat.
    for (Half& half : scratch.halves) {
      half.missing.clear();
      for (int i = 0; i < half.n_points; ++i) half.missing.add(half.near[i]);
      half.missing.remove(half.whole);
    }
    multiply_missing(scratch, points, Part::tail, products);
  }
  distort_open(block, products, scratch);
  for (Half& half : scratch.halves) test_products(half, products, heads);
  if (heads) {
    for (Half& half : scratch.halves) {
      half.missing.set_difference(half.open, half.whole);
    }
    multiply_missing(scratch, points, Part::tail, products);
    distort_open(block, products, scratch);
  }

  OpenColumns found{products, {}, {}};
  Counters& counters = scratch.counters;
  for (Half& half : scratch.halves) {
    found.columns[half.side] = half.open_list.data();
    found.n_columns[half.side] = list(half.open, half.open_list);
    counters.n_columns += n_columns_;
    counters.n_candidates += half.n_candidates;
    counters.n_heads += half.n_heads;
    if (heads) counters.n_tails += half.n_whole;
    counters.n_multiplied += (heads ? half.n_heads : half.n_whole) * half.n_points;
    const auto n_updated = static_cast<std::int64_t>(columns_.size());
    counters.n_skipped += std::max<std::int64_t>(n_updated - half.n_whole, 0) * half.n_points;
  }
  return found;
}

template <class T>
std::int64_t DirectScores<T>::n_multiplied() const {
  std::int64_t n = 0;
  for (const Scratch& scratch : scratch_) n += scratch.counters.n_multiplied;
  return n;
}

template <class T>
std::int64_t DirectScores<T>::n_skipped() const {
  std::int64_t n = n_skipped_;
  for (const Scratch& scratch : scratch_) n += scratch.counters.n_skipped;
  return n;
}

template <class T>
void DirectScores<T>::distort_open(std::int64_t block, float* products,
                                   const Scratch& scratch) const {
  if (this->misleading_.columns == nullptr) return;
  const ColumnSet whole[2] = {scratch.halves[0].whole, scratch.halves[1].whole};
  this->distort(block, products, has_heads() ? whole : nullptr,
                has_heads() ? group_.tails() + block * kBlockPoints : nullptr,
                column_tails_.data());
}

template class DirectScores<float>;
template class DirectScores<double>;

}  // namespace ddkern::kmeans
