// SPDX-License-Identifier: Apache-2.0
#include "kmeans/group.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

#include "core/error.h"
#include "kmeans/weights.h"

namespace ddkern::kmeans {
namespace {

int exponent_of(double v) {
  int exponent = 0;
  if (v != 0) std::frexp(v, &exponent);
  return exponent;
}

template <class T>
PowerOfTwo<T> power_of_two(int exponent) {
  const int largest = std::numeric_limits<T>::max_exponent - 1;
  const int first = std::min(exponent, largest);
  return {static_cast<T>(std::ldexp(1.0, first)),
          static_cast<T>(std::ldexp(1.0, exponent - first))};
}

// Bounds are kept in float32 and must not shrink on the way there.
float round_up(double v) { return static_cast<float>(v * (1 + 0x1p-20) + 0x1p-140); }

// How far y (float32) may lie from the exact centred row: half an ulp an element, and denormals.
double rounding_of_row(double norm, std::int64_t n_features, double largest_weight = 1) {
  return norm * 0x1.01p-24 + std::sqrt(static_cast<double>(n_features)) * largest_weight * 0x1p-120;
}

// Sums of squares may have been taken in float32, n_features / 16 + 8 roundings deep.
double inflation(std::int64_t n_features) {
  return 1 + (static_cast<double>(n_features) / 16 + 24) * 0x1p-23;
}

constexpr int kLargestExponent = 800;
constexpr int kSampledRows = 64;
constexpr std::int64_t kWordsMoved = 1 << 17;  // at a time, half of a second cache

// Counted by their exponents, many at a time.
template <class T>
bool all_finite(const T* x, std::int64_t n) {
  using Word = std::conditional_t<sizeof(T) == sizeof(float), std::uint32_t, std::uint64_t>;
  const T infinity = std::numeric_limits<T>::infinity();
  Word exponent, n_bad = 0;
  std::memcpy(&exponent, &infinity, sizeof(exponent));
  for (std::int64_t j = 0; j < n; ++j) {
    Word bits;
    std::memcpy(&bits, x + j, sizeof(bits));
    n_bad += (bits & exponent) == exponent;
  }
  return n_bad == 0;
}

std::int64_t words_moved_at_once(std::int64_t n_points, std::int64_t n_words) {
  return std::clamp<std::int64_t>(kWordsMoved / n_points, 1, n_words) * n_points;
}

}  // namespace

std::int64_t bytes_to_reorder(std::int64_t n_rows, int n_threads) {
  const std::int64_t n_points = n_blocks_of(n_rows) * kBlockPoints;
  // The order and a copy of one array, or what the threads move.
  return n_points * 16 + n_threads * std::max(kWordsMoved, n_points) * 4;
}

template <class T>
Group<T>::Group(const RowReader<T>& reader, const std::int64_t* rows, std::int64_t first_row,
                std::int64_t n, const double* sample_weight, const Kernels<T>& kernels)
    : reader_(reader), rows_(rows), first_(first_row), n_(n), n_features_(reader.n_features()),
      kernels_(kernels) {
  set_weights(sample_weight);
}

template <class T>
void Group<T>::set_weights(const double* sample_weight) {
  Weights found = canonical_weights(sample_weight, rows_, first_, n_);
  units_ = std::move(found.units);
  weights_ = std::move(found.canonical);
  if (!weights_.empty()) weights_.resize(static_cast<std::size_t>(n_blocks() * kBlockPoints), 0.0);
  total_units_ = found.total_units;
  n_positive_ = found.n_positive;
  total_weight_ = found.total_weight;
  grid_bits_ = found.grid_bits;
}

template <class T>
void Group<T>::prepare(const Residency& residency, FastFormat format, bool head, bool f32_needed,
                       const Team& team) {
  format_ = format;
  guess_fast_frame(head);
  set_frame(first_pass(residency, team), team);
  const bool fast_is_f32 = format == FastFormat::f32;
  if (f32_needed || fast_is_f32) {
    pack_f32(residency.f32_blocks || (residency.fast_blocks && fast_is_f32), team);
  }
  row_shift_.resize(static_cast<std::size_t>(n_features_));
  for (std::int64_t j = 0; j < n_features_; ++j) {
    row_shift_[j] = static_cast<double>(centre()[j]) * std::ldexp(1.0, grid_bits_ - row_exponent_);
  }
}

template <class T>
void Group<T>::prepare_in_frame(const Frame<T>& frame, const Residency& residency,
                                FastFormat format, const Team& team) {
  format_ = format;
  frame_ = fast_frame_ = frame;
  if (format == FastFormat::bytes) {
    RowScratch<T> row_scratch(1, n_features_, kSampledRows);
    set_byte_layout(sample_rows(row_scratch), false, false);
  }
  first_pass(residency, team);
  if (format == FastFormat::f32) pack_f32(residency.fast_blocks, team);
}

template <class T>
void Group<T>::change_format(FastFormat format, bool keep, const Team& team) {
  format_ = format;
  fast_blocks_ = Buffer<std::uint32_t>();
  tails_.clear();
  if (format == FastFormat::f32) {
    pack_f32(keep, team);
    return;
  }
  if (keep) fast_blocks_.reset(n_blocks() * fast_words());
  Buffer<std::uint32_t> scratch(keep ? 0 : team.n_threads() * fast_words());
  RowScratch<T> row_scratch(team.n_threads(), n_features_, kBlockPoints);
  team.for_ranges(n_blocks(), 4, [&](std::int64_t begin, std::int64_t end, int thread) {
    for (std::int64_t b = begin; b < end; ++b) {
      std::uint32_t* words =
          keep ? fast_blocks_.data() + b * fast_words() : scratch.data() + thread * fast_words();
      pack_fast_block_with_bounds(b, {}, words, row_scratch, thread);
    }
  });
}

template <class T>
void Group<T>::reorder(std::vector<std::int64_t> order, const Team& team) {
  for (std::int64_t p = n_; p < n_blocks() * kBlockPoints; ++p) order.push_back(p);
  const auto move = [&order](auto& values) {
    const auto before = values;
    for (std::size_t p = 0; p < values.size(); ++p) {
      values[p] = before[static_cast<std::size_t>(order[p])];
    }
  };
  for (auto* values : {&p_, &q_, &tails_}) move(*values);
  for (auto* values : {&sq_norms_, &fast_sq_norms_}) move(*values);
  if (format_ != FastFormat::f32 && !fast_blocks_.empty()) {
    move_points(order, fast_words() / kBlockPoints, fast_blocks_.data(), team);
  }
  if (!f32_blocks_.empty()) {
    move_points(order, n_features_, reinterpret_cast<std::uint32_t*>(f32_blocks_.data()), team);
  }
  order_ = std::move(order);
}

// A few words of all points at a time, so that what is read here and there is in cache.
template <class T>
void Group<T>::move_points(const std::vector<std::int64_t>& order, std::int64_t n_words,
                           std::uint32_t* blocks, const Team& team) const {
  const auto n_points = static_cast<std::int64_t>(order.size());
  const std::int64_t at_once = words_moved_at_once(n_points, n_words);
  const std::int64_t depth = at_once / n_points;
  Buffer<std::uint32_t> before(team.n_threads() * at_once);
  team.for_ranges(n_words, depth, [&](std::int64_t begin, std::int64_t end, int thread) {
    std::uint32_t* const scratch = before.data() + thread * at_once;
    for (std::int64_t first = begin; first < end; first += depth) {
      const std::int64_t n = std::min(depth, end - first) * kBlockPoints;
      for (std::int64_t b = 0; b < n_blocks(); ++b) {
        const std::uint32_t* from = blocks + (b * n_words + first) * kBlockPoints;
        std::copy(from, from + n, scratch + b * n);
      }
      for (std::int64_t b = 0; b < n_blocks(); ++b) {
        const std::uint32_t* from[kBlockPoints];
        for (int p = 0; p < kBlockPoints; ++p) {
          const std::int64_t position = order[static_cast<std::size_t>(b * kBlockPoints + p)];
          from[p] = scratch + position / kBlockPoints * n + position % kBlockPoints;
        }
        std::uint32_t* to = blocks + (b * n_words + first) * kBlockPoints;
        for (std::int64_t w = 0; w < n; w += kBlockPoints) {
          for (int p = 0; p < kBlockPoints; ++p) to[w + p] = from[p][w];
        }
      }
    }
  });
}

// The first pass: survey the rows and, where the fast blocks are not float32, pack those too while
// the rows are in cache. The canonical frame is not known yet; a certificate holds in any frame, so
// the fast blocks take one that a few rows suggest.
template <class T>
std::vector<typename Group<T>::Seen> Group<T>::first_pass(const Residency& residency,
                                                          const Team& team) {
  const std::int64_t n_padded = n_blocks() * kBlockPoints;
  p_.resize(static_cast<std::size_t>(n_padded));
  q_.resize(static_cast<std::size_t>(n_padded));
  if (residency.rows && !reader_.in_place()) converted_.reset(n_ * n_features_);
  const bool packs = format_ != FastFormat::f32;
  if (format_ == FastFormat::bytes) fast_sq_norms_.resize(static_cast<std::size_t>(n_padded));
  if (layout_.n_head_segments > 0) tails_.resize(static_cast<std::size_t>(n_padded));
  if (packs && residency.fast_blocks) fast_blocks_.reset(n_blocks() * fast_words());
  Buffer<std::uint32_t> fast_scratch(packs && fast_blocks_.empty() ? team.n_threads() * fast_words()
                                                                   : 0);
  RowScratch<T> row_scratch(team.n_threads(), n_features_, kBlockPoints);
  std::vector<Seen> seen(static_cast<std::size_t>(team.n_threads()));
  const auto size = static_cast<std::size_t>(n_features_);
  for (Seen& mine : seen) {
    mine.sums.assign(size, 0);
    mine.low.assign(size, std::numeric_limits<T>::max());
    mine.high.assign(size, std::numeric_limits<T>::lowest());
    mine.exponent = fast_frame_.exponent;
    mine.first_bad = mine.first_inexact = n_;
  }
  // Several blocks at a time, for each is fetched while the one before is worked on.
  team.for_ranges(n_blocks(), 4, [&](std::int64_t begin, std::int64_t end, int thread) {
    Seen& mine = seen[static_cast<std::size_t>(thread)];
    // Behind a bad row nothing matters any more, but pieces before it may still come.
    for (std::int64_t b = begin; b < end && b * kBlockPoints <= mine.first_bad; ++b) {
      survey_block(b, mine, row_scratch, thread);
      if (!packs) continue;
      std::uint32_t* words = fast_blocks_.empty() ? fast_scratch.data() + thread * fast_words()
                                                  : fast_blocks_.data() + b * fast_words();
      std::int64_t rows[kBlockPoints];
      const void* at[kBlockPoints];
      const std::int64_t n_next =
          b + 1 < end ? std::min<std::int64_t>(kBlockPoints, n_ - (b + 1) * kBlockPoints) : 0;
      for (std::int64_t p = 0; p < n_next; ++p) rows[p] = (b + 1) * kBlockPoints + p;
      pack_fast_block_with_bounds(b, ahead(rows, static_cast<int>(n_next), at), words, row_scratch,
                                  thread);
    }
  });
  check(seen);
  return seen;
}

// Are the rows finite, how large, integers? The range of every feature, and the sum for the centre.
// The grid of the sum hangs on the largest magnitude of all rows, so it is guessed from those seen
// so far; set_frame() adds what was summed on another grid again, which is next to nothing after
// the first blocks. Rows of weight 0 are only checked.
template <class T>
void Group<T>::survey_block(std::int64_t block, Seen& seen, RowScratch<T>& row_scratch,
                            int thread) {
  const std::int64_t begin = block * kBlockPoints, end = std::min(n_, begin + kBlockPoints);
  const T* counting[kBlockPoints];
  int n_counting = 0;
  for (std::int64_t i = begin; i < end; ++i) {
    const std::int64_t number = row_number(i);
    if (reader_.find_inexact(&number, 0, 1) >= 0) {
      seen.first_inexact = std::min(seen.first_inexact, i);
    }
    T* to = converted_.empty() ? row_scratch.get(thread, static_cast<int>(i - begin))
                               : converted_.data() + i * n_features_;
    const T* x = reader_.row(number, to);
    if (counts(i)) {
      counting[n_counting++] = x;
      seen.small_integers = seen.small_integers && kernels_.pack.small_integers(x, n_features_);
      continue;
    }
    if (!all_finite(x, n_features_)) seen.first_bad = std::min(seen.first_bad, i);
  }
  if (n_counting == 0) return;
  seen.block_sums.assign(static_cast<std::size_t>(n_features_), 0);
  SurveyArgs<T> found{counting,
                      n_counting,
                      n_features_,
                      power_of_two<T>(kCentreBits - seen.exponent),
                      seen.low.data(),
                      seen.high.data(),
                      seen.block_sums.data(),
                      0,
                      true};
  kernels_.pack.survey(found);
  if (!found.finite) {
    for (std::int64_t i = begin; i < end; ++i) {
      const T* x = row(i, row_scratch.get(thread, static_cast<int>(i - begin)));
      if (!all_finite(x, n_features_)) seen.first_bad = std::min(seen.first_bad, i);
    }
    return;
  }
  seen.max_abs = std::max(seen.max_abs, found.max_abs);
  const int exponent = exponent_of(seen.max_abs);
  if (exponent > seen.exponent) {
    seen.exponent = exponent;
    seen.summed.clear();
    std::fill(seen.sums.begin(), seen.sums.end(), 0);
    return;
  }
  if (weighted()) return;  // set_frame() adds weighted rows
  for (std::int64_t j = 0; j < n_features_; ++j) seen.sums[j] += seen.block_sums[j];
  seen.summed.emplace_back(begin, end);
}

template <class T>
void Group<T>::check(const std::vector<Seen>& seen) const {
  double max_abs = 0;
  std::int64_t first_bad = n_, first_inexact = n_;
  for (const Seen& mine : seen) {
    max_abs = std::max(max_abs, mine.max_abs);
    first_bad = std::min(first_bad, mine.first_bad);
    first_inexact = std::min(first_inexact, mine.first_inexact);
  }
  if (first_bad < n_) {
    throw InvalidArgument("x holds NaN or infinity in row " +
                          std::to_string(row_number(first_bad)) + "; every value must be finite");
  }
  if (first_inexact < n_) {
    throw InvalidArgument("x holds an integer beyond 2^53 in row " +
                          std::to_string(row_number(first_inexact)) +
                          "; 64-bit integers must be exact in float64");
  }
  // Only float64 reaches this far, and its squares would not reach any further.
  if (std::abs(exponent_of(max_abs)) > kLargestExponent) {
    char magnitude[32];
    std::snprintf(magnitude, sizeof(magnitude), "%g", max_abs);
    throw InvalidArgument(std::string("x has ") + magnitude +
                          " as its largest magnitude in a group; float64 values must lie within "
                          "2^-800 and 2^800: scale the data");
  }
}

// The canonical frame and the grid of the rows, from what all threads saw.
template <class T>
void Group<T>::set_frame(const std::vector<Seen>& seen, const Team& team) {
  double max_abs = 0;
  bool small_integers = true;
  for (const Seen& mine : seen) {
    max_abs = std::max(max_abs, mine.max_abs);
    small_integers = small_integers && mine.small_integers;
  }
  frame_.exponent = exponent_of(max_abs);

  std::vector<char> summed(static_cast<std::size_t>(n_), 0);
  std::vector<std::int64_t> total(static_cast<std::size_t>(n_features_));
  const auto join = [&](const std::vector<std::int64_t>& sums) {
    for (std::size_t j = 0; j < sums.size(); ++j) total[j] += sums[j];
  };
  for (const Seen& mine : seen) {
    if (mine.exponent != frame_.exponent) continue;
    for (const auto& [begin, end] : mine.summed) {
      std::fill(summed.begin() + begin, summed.begin() + end, 1);
    }
    join(mine.sums);
  }
  std::vector<std::int64_t> missing;
  for (std::int64_t i = 0; i < n_; ++i) {
    if (summed[static_cast<std::size_t>(i)] == 0 && counts(i)) missing.push_back(i);
  }
  const std::vector<double> no_shift(static_cast<std::size_t>(n_features_), 0.0);
  const double to_grid = std::ldexp(1.0, kCentreBits - frame_.exponent);
  RowScratch<T> scratch(team.n_threads(), n_features_);
  std::vector<std::vector<std::int64_t>> parts(static_cast<std::size_t>(team.n_threads()));
  team.for_ranges(static_cast<std::int64_t>(missing.size()), kBlockPoints,
                  [&](std::int64_t begin, std::int64_t end, int thread) {
                    auto& part = parts[static_cast<std::size_t>(thread)];
                    part.resize(static_cast<std::size_t>(n_features_));
                    for (std::int64_t r = begin; r < end; ++r) {
                      const std::int64_t i = missing[static_cast<std::size_t>(r)];
                      const T* x = row(i, scratch.get(thread));
                      const double w = weight(i);
                      kernels_.accumulate.add({&x,
                                               1,
                                               weighted() ? &w : nullptr,
                                               nullptr,
                                               to_grid,
                                               no_shift.data(),
                                               n_features_,
                                               part.data(),
                                               nullptr,
                                               {}});
                    }
                  });
  for (const auto& part : parts) join(part);

  frame_.centre.resize(static_cast<std::size_t>(n_features_));
  const double factor = mean_factor() * std::ldexp(1.0, -kCentreBits);
  float max_centred = 0;
  const PowerOfTwo<T> scale_factors = power_of_two<T>(-frame_.exponent);
  for (std::int64_t j = 0; j < n_features_; ++j) {
    const double mean = static_cast<double>(total[j]) / static_cast<double>(total_units_) * factor;
    // The exact weighted mean, rounded to T; for small integers, to an integer.
    frame_.centre[j] = small_integers ? static_cast<T>(std::nearbyint(mean * unscale()) * scale())
                                      : static_cast<T>(mean);
    // Rounding keeps order, so the largest |y| of a feature is at one end of its range.
    for (const Seen& mine : seen) {
      if (mine.low[j] > mine.high[j]) continue;  // saw no row that counts
      for (const T x : {mine.low[j], mine.high[j]}) {
        const auto y =
            static_cast<float>(x * scale_factors.first * scale_factors.second - frame_.centre[j]);
        max_centred = std::max(max_centred, std::abs(y));
      }
    }
  }
  row_exponent_ = exponent_of(max_centred);
}

// Some rows that count, from all over the group.
template <class T>
std::vector<const T*> Group<T>::sample_rows(RowScratch<T>& row_scratch) const {
  std::vector<const T*> rows;
  const std::int64_t n_sampled = std::min<std::int64_t>(n_, kSampledRows);
  for (std::int64_t s = 0; s < n_sampled; ++s) {
    const std::int64_t i = s * n_ / n_sampled;
    if (!counts(i)) continue;
    const T* x = reader_.row(row_number(i), row_scratch.get(0, static_cast<int>(s)));
    if (all_finite(x, n_features_)) rows.push_back(x);  // else the first pass will say so
  }
  return rows;
}

// The mean and the magnitude of some rows. Small integers stay integers, which bfloat16 holds
// exactly when they are not far from the centre; and if 256 integers are all there is, as in
// images, they all become bytes as they are.
template <class T>
void Group<T>::guess_fast_frame(bool head) {
  RowScratch<T> row_scratch(1, n_features_, kSampledRows);
  const std::vector<const T*> rows = sample_rows(row_scratch);
  const auto size = static_cast<std::size_t>(n_features_);
  bool small_integers = true;
  // Feature by feature, which the compiler can do many at a time.
  std::vector<T> low(size, std::numeric_limits<T>::max());
  std::vector<T> high(size, std::numeric_limits<T>::lowest());
  std::vector<double> mean(size, 0.0);
  for (const T* row : rows) {
    small_integers = small_integers && kernels_.pack.small_integers(row, n_features_);
    for (std::size_t j = 0; j < size; ++j) {
      low[j] = row[j] < low[j] ? row[j] : low[j];
      high[j] = row[j] > high[j] ? row[j] : high[j];
      mean[j] += static_cast<double>(row[j]);
    }
  }
  double least = 0, most = 0;
  if (!rows.empty()) {
    least = static_cast<double>(*std::min_element(low.begin(), low.end()));
    most = static_cast<double>(*std::max_element(high.begin(), high.end()));
  }
  const double max_abs = std::max(std::abs(least), std::abs(most));
  const bool bytes = small_integers && most - least < 2 * kByteLevels + 2;
  fast_frame_.exponent = std::clamp(exponent_of(max_abs), -kLargestExponent, kLargestExponent);
  fast_frame_.centre.assign(size, 0);
  const double n = std::max(1.0, static_cast<double>(rows.size()));
  for (std::size_t j = 0; j < size; ++j) {
    double centre = mean[j] / n;
    if (small_integers) centre = std::nearbyint(centre);
    if (bytes) centre = std::clamp(centre, most - kByteLevels, least + kByteLevels + 1);
    fast_frame_.centre[j] = static_cast<T>(centre * fast_frame_.scale());
  }
  if (format_ == FastFormat::bytes) set_byte_layout(rows, bytes, head);
}

template <class T>
void Group<T>::set_byte_layout(const std::vector<const T*>& rows, bool integers, bool head) {
  const auto size = static_cast<std::size_t>(n_features_);
  std::vector<double> largest(size, 0.0), mean_square(size, 0.0);
  const double share = 1 / std::max(1.0, static_cast<double>(rows.size()));
  for (const T* row : rows) {
    for (std::size_t j = 0; j < size; ++j) {
      const double y = static_cast<double>(row[j]) * fast_frame_.scale() -
                       static_cast<double>(fast_frame_.centre[j]);
      largest[j] = std::max(largest[j], std::abs(y));
      mean_square[j] += y * y * share;
    }
  }
  layout_ = make_byte_layout(largest, mean_square, integers ? fast_frame_.scale() : 0.0, head);
}

template <class T>
int Group<T>::find_rows(std::int64_t block, const T** rows, RowScratch<T>& row_scratch,
                        int thread) const {
  const std::int64_t begin = block * kBlockPoints;
  const int n_rows = static_cast<int>(std::min<std::int64_t>(kBlockPoints, n_ - begin));
  for (int p = 0; p < n_rows; ++p) rows[p] = row(row_at(begin + p), row_scratch.get(thread, p));
  return n_rows;
}

template <class T>
void Group<T>::pack_block(std::int64_t block, const Frame<T>& frame, float* f32,
                          std::uint32_t* bf16, double* sq_norms, double* sq_residuals,
                          RowScratch<T>& row_scratch, int thread) const {
  const T* rows[kBlockPoints];
  const int n_rows = find_rows(block, rows, row_scratch, thread);
  kernels_.pack.pack({rows, n_rows, n_features_, power_of_two<T>(-frame.exponent),
                      frame.centre.data(), f32, bf16, sq_norms, sq_residuals});
}

template <class T>
void Group<T>::pack_fast_block(std::int64_t block, std::uint32_t* words, RowScratch<T>& row_scratch,
                               int thread) const {
  if (format_ == FastFormat::bytes) {
    std::vector<float> unused(2 * layout_.segments.size() * kBlockPoints);
    pack_byte_block(block, {}, words, unused.data(),
                    unused.data() + layout_.segments.size() * kBlockPoints, row_scratch, thread);
    return;
  }
  double sq_norms[kBlockPoints], sq_residuals[kBlockPoints];
  pack_block(block, fast_frame_, nullptr, words, sq_norms, sq_residuals, row_scratch, thread);
}

template <class T>
void Group<T>::pack_byte_block(std::int64_t block, const RowsAhead& ahead, std::uint32_t* words,
                               float* sq_norms, float* sq_lost, RowScratch<T>& row_scratch,
                               int thread) const {
  const T* rows[kBlockPoints];
  const int n_rows = find_rows(block, rows, row_scratch, thread);
  kernels_.pack.pack_bytes({rows, n_rows, power_of_two<T>(-fast_frame_.exponent),
                            fast_frame_.centre.data(), layout_.segments.data(),
                            static_cast<std::int64_t>(layout_.segments.size()), words, sq_norms,
                            sq_lost, ahead});
}

template <class T>
void Group<T>::pack_fast_block_with_bounds(std::int64_t block, const RowsAhead& ahead,
                                           std::uint32_t* words, RowScratch<T>& row_scratch,
                                           int thread) {
  if (format_ == FastFormat::bf16) {
    double sq_norms[kBlockPoints], sq_residuals[kBlockPoints];
    pack_block(block, fast_frame_, nullptr, words, sq_norms, sq_residuals, row_scratch, thread);
    set_bounds(block, sq_norms, sq_residuals);
    return;
  }
  const std::size_t n_segments = layout_.segments.size();
  std::vector<float> sums(2 * n_segments * kBlockPoints);
  float* sq_lost = sums.data() + n_segments * kBlockPoints;
  pack_byte_block(block, ahead, words, sums.data(), sq_lost, row_scratch, thread);
  const double inflate = inflation(n_features_);
  for (int i = 0; i < kBlockPoints; ++i) {
    double lost_p = 0, lost_q = 0, norm_p = 0, norm_q = 0, sq_norm = 0, least_weight = 1;
    double tail = 0;
    for (std::size_t s = 0; s < n_segments; ++s) {
      const double weight = layout_.segments[s].weight;
      const double norm = sums[s * kBlockPoints + i], lost = sq_lost[s * kBlockPoints + i];
      sq_norm += norm;
      lost_p += lost / weight;
      lost_q += lost * weight;
      norm_p += norm / weight;
      norm_q += norm * weight;
      least_weight = std::min(least_weight, weight);
      if (static_cast<std::int64_t>(s) >= layout_.n_head_segments) tail += norm;
    }
    if (!tails_.empty()) {
      const double norm = std::sqrt(tail) * inflate;
      tails_[static_cast<std::size_t>(block * kBlockPoints + i)] =
          round_up(norm + rounding_of_row(norm, n_features_));
    }
    fast_sq_norms_[static_cast<std::size_t>(block * kBlockPoints + i)] = sq_norm;
    // rounding_of_row() for y itself and twice for what was measured, which rounds by as much.
    p_[block * kBlockPoints + i] =
        round_up(std::sqrt(lost_p) * inflate +
                 3 * rounding_of_row(std::sqrt(norm_p) * inflate, n_features_, 1 / least_weight));
    q_[block * kBlockPoints + i] = round_up((std::sqrt(norm_q) + std::sqrt(lost_q)) * inflate);
  }
}

template <class T>
void Group<T>::set_bounds(std::int64_t block, const double* sq_norms, const double* sq_residuals) {
  const double inflate = inflation(n_features_);
  for (int p = 0; p < kBlockPoints; ++p) {
    const double norm = std::sqrt(sq_norms[p]) * inflate;
    const double lost = std::sqrt(sq_residuals[p]) * inflate;
    p_[block * kBlockPoints + p] = round_up(lost + rounding_of_row(norm, n_features_));
    q_[block * kBlockPoints + p] = round_up(norm + lost);
  }
}

// Float32 blocks in the canonical frame, or, when they are not kept, what is measured on the way.
template <class T>
void Group<T>::pack_f32(bool keep, const Team& team) {
  const std::int64_t words = n_features_ * kBlockPoints;
  sq_norms_.resize(static_cast<std::size_t>(n_blocks() * kBlockPoints));
  if (keep) f32_blocks_.reset(n_blocks() * words);
  RowScratch<T> row_scratch(team.n_threads(), n_features_, kBlockPoints);
  team.for_ranges(n_blocks(), 1, [&](std::int64_t begin, std::int64_t end, int thread) {
    for (std::int64_t b = begin; b < end; ++b) {
      double* sq_norms = sq_norms_.data() + b * kBlockPoints;
      double sq_residuals[kBlockPoints];
      pack_block(b, frame_, keep ? f32_blocks_.data() + b * words : nullptr, nullptr, sq_norms,
                 sq_residuals, row_scratch, thread);
      if (format_ == FastFormat::f32) set_bounds(b, sq_norms, sq_residuals);
    }
  });
}

template <class T>
bool Group<T>::rows_equal(std::int64_t i, const T* value, T* scratch) const {
  const T* x = row(i, scratch);
  return std::equal(x, x + n_features_, value);
}

template <class T>
const float* Group<T>::f32_block(std::int64_t block, float* scratch, RowScratch<T>& row_scratch,
                                 int thread) const {
  if (!f32_blocks_.empty()) return f32_blocks_.data() + block * n_features_ * kBlockPoints;
  double sq_norms[kBlockPoints], sq_residuals[kBlockPoints];
  pack_block(block, frame_, scratch, nullptr, sq_norms, sq_residuals, row_scratch, thread);
  return scratch;
}

template <class T>
const void* Group<T>::fast_block(std::int64_t block, float* scratch, RowScratch<T>& row_scratch,
                                 int thread) const {
  if (format_ == FastFormat::f32) return f32_block(block, scratch, row_scratch, thread);
  if (!fast_blocks_.empty()) return fast_blocks_.data() + block * fast_words();
  pack_fast_block(block, reinterpret_cast<std::uint32_t*>(scratch), row_scratch, thread);
  return scratch;
}

template <class T>
double Group<T>::sq_norm_error() const {
  return 2 * (inflation(n_features_) - 1) + 0x1p-20;
}

template <class T>
std::vector<float> Group<T>::largest_sq_norms() const {
  std::vector<float> found(q_.size());
  for (std::size_t i = 0; i < q_.size(); ++i) {
    const double norm = q_[i];
    found[i] = round_up(format_ == FastFormat::bytes ? fast_sq_norms_[i] * (1 + sq_norm_error())
                                                     : norm * norm);
  }
  return found;
}

template <class T>
RowsAhead Group<T>::ahead(const std::int64_t* rows, int n_rows, const void** at) const {
  if (!rows_in_place()) return {};
  for (int p = 0; p < n_rows; ++p) at[p] = row(rows[p], nullptr);
  return {at, n_rows, n_features_ * static_cast<std::int64_t>(sizeof(T))};
}

template <class T>
void Group<T>::chains(const std::int64_t* rows, int n_rows, bool cold, int n_ahead,
                      const float* column, float* dots, float* norms, RowScratch<T>& row_scratch,
                      int thread) const {
  const T* at[kBlockPoints];
  const void* next[kBlockPoints];
  for (int p = 0; p < n_rows; ++p) at[p] = row(rows[p], row_scratch.get(thread, p));
  kernels_.pack.chain_rows({at, n_rows, n_features_, power_of_two<T>(-frame_.exponent), centre(),
                            column, dots, norms, cold && rows_in_place(),
                            ahead(rows + n_rows, n_ahead, next)});
}

template <class T>
void Group<T>::centred_row(std::int64_t i, float* y, T* scratch) const {
  const T* x = row(i, scratch);
  const PowerOfTwo<T> scale = power_of_two<T>(-frame_.exponent);
  for (std::int64_t j = 0; j < n_features_; ++j) {
    y[j] = static_cast<float>(x[j] * scale.first * scale.second - frame_.centre[j]);
  }
}

template <class T>
float Group<T>::p_f32(std::int64_t i) const {
  return round_up(rounding_of_row(std::sqrt(sq_norms_[static_cast<std::size_t>(i)]), n_features_));
}

template <class T>
float Group<T>::q_f32(std::int64_t i) const {
  return round_up(std::sqrt(sq_norms_[static_cast<std::size_t>(i)]));
}

template class Group<float>;
template class Group<double>;

}  // namespace ddkern::kmeans
