// SPDX-License-Identifier: Apache-2.0
#include "kmeans/group.h"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <mutex>
#include <string>
#include <utility>

#include "core/error.h"

namespace ddkern::kmeans {
namespace {

int exponent_of(double v) {
  int exponent = 0;
  if (v != 0) std::frexp(v, &exponent);
  return exponent;
}

int bit_length(unsigned __int128 v) {
  int bits = 0;
  for (; v != 0; v >>= 1) ++bits;
  return bits;
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
double rounding_of_row(double norm, std::int64_t n_features) {
  return norm * 0x1.01p-24 + std::sqrt(static_cast<double>(n_features)) * 0x1p-120;
}

constexpr int kLargestExponent = 800;

}  // namespace

template <class T>
Group<T>::Group(const RowReader<T>& reader, const std::int64_t* rows, std::int64_t first_row,
                std::int64_t n, const double* sample_weight, const Kernels<T>& kernels)
    : reader_(reader), rows_(rows), first_(first_row), n_(n), n_features_(reader.n_features()),
      kernels_(kernels) {
  set_weights(sample_weight);
}

template <class T>
void Group<T>::set_weights(const double* sample_weight) {
  double largest = 0;
  std::int64_t n_raw = n_;
  if (sample_weight != nullptr) {
    n_raw = 0;
    for (std::int64_t i = 0; i < n_; ++i) {
      const double a = sample_weight[row_number(i)];
      largest = std::max(largest, a);
      n_raw += a > 0;
    }
  }
  const int head = std::max(
      22, bit_length(static_cast<unsigned __int128>(std::max<std::int64_t>(n_raw - 1, 0))));
  grid_bits_ = 62 - head;
  if (sample_weight == nullptr) {
    n_positive_ = total_units_ = n_;
    total_weight_ = static_cast<double>(n_);
    return;
  }
  const int exponent = exponent_of(largest);
  unsigned __int128 total = 0;
  for (std::int64_t i = 0; i < n_; ++i) {
    const double b = std::ldexp(sample_weight[row_number(i)], -exponent);
    total += static_cast<std::uint64_t>(b * 0x1p40);
  }
  const int lift = head + 40 - bit_length(total);
  units_.resize(static_cast<std::size_t>(n_));
  weights_.assign(static_cast<std::size_t>(n_blocks() * kBlockPoints), 0.0);
  for (std::int64_t i = 0; i < n_; ++i) {
    const double b = std::ldexp(sample_weight[row_number(i)], -exponent);
    // std::nearbyint in the default rounding mode: ties to even.
    units_[i] = static_cast<std::int64_t>(std::nearbyint(std::ldexp(b, lift + grid_bits_)));
    weights_[i] = std::ldexp(static_cast<double>(units_[i]), -grid_bits_);
    total_units_ += units_[i];
    n_positive_ += units_[i] > 0;
  }
  total_weight_ = std::ldexp(static_cast<double>(total_units_), exponent - lift - grid_bits_);
}

// One pass over the rows: are they finite, how large, integers? And their exact sum, for the
// centre. The grid of the sum hangs on the largest magnitude of all, so it is guessed: a piece that
// is still in cache is added with the largest exponent seen so far, and rows that were added with a
// smaller one are added again at the end. After the first pieces the guess is nearly always right.
template <class T>
void Group<T>::inspect_and_centre(bool find_centre, const Team& team) {
  struct Partial {
    std::vector<std::int64_t> sums;
    int exponent = std::numeric_limits<int>::min();
    std::vector<std::pair<std::int64_t, std::int64_t>> pieces;  // added with `exponent`
    double max_abs = 0;
    bool small_integers = true;
    std::int64_t first_bad, first_inexact;
  };
  std::vector<Partial> partials(static_cast<std::size_t>(team.n_threads()));
  for (Partial& partial : partials) partial.first_bad = partial.first_inexact = n_;
  const std::vector<double> no_shift(static_cast<std::size_t>(n_features_), 0.0);
  RowScratch<T> scratch(team.n_threads(), n_features_);
  std::vector<std::pair<std::int64_t, std::int64_t>> again;
  std::mutex mutex;

  const auto add_rows = [&](Partial& partial, std::int64_t begin, std::int64_t end, int thread) {
    const double to_grid = std::ldexp(1.0, grid_bits_ - partial.exponent);
    for (std::int64_t i = begin; i < end; ++i) {
      if (!counts(i)) continue;
      kernels_.accumulate.add(row(i, scratch.get(thread)), to_grid, no_shift.data(), n_features_,
                              weight(i), partial.sums.data());
    }
    partial.pieces.emplace_back(begin, end);
  };
  const auto restart = [&](Partial& partial, int exponent) {
    const std::lock_guard<std::mutex> lock(mutex);
    again.insert(again.end(), partial.pieces.begin(), partial.pieces.end());
    partial.pieces.clear();
    partial.exponent = exponent;
    partial.sums.assign(static_cast<std::size_t>(n_features_), 0);
  };

  const std::int64_t row_bytes = n_features_ * static_cast<std::int64_t>(sizeof(T));
  const std::int64_t rows_in_cache = std::clamp<std::int64_t>((256 << 10) / row_bytes, 1, 1024);
  team.for_ranges(n_, rows_in_cache, [&](std::int64_t begin, std::int64_t end, int thread) {
    Partial& partial = partials[static_cast<std::size_t>(thread)];
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t number = row_number(i);
      if (reader_.find_inexact(&number, 0, 1) >= 0) {
        partial.first_inexact = std::min(partial.first_inexact, i);
      }
      T* to = converted_.empty() ? scratch.get(thread) : converted_.data() + i * n_features_;
      const RowFacts facts =
          kernels_.pack.inspect(reader_.row(number, to), n_features_, partial.small_integers);
      if (!facts.finite) partial.first_bad = std::min(partial.first_bad, i);
      if (!counts(i)) continue;
      partial.max_abs = std::max(partial.max_abs, facts.max_abs);
      partial.small_integers = partial.small_integers && facts.small_integers;
    }
    if (!find_centre || partial.first_bad < n_) return;
    const int exponent = exponent_of(partial.max_abs);
    if (exponent > partial.exponent) restart(partial, exponent);
    add_rows(partial, begin, end, thread);
  });

  double max_abs = 0;
  small_integers_ = true;
  std::int64_t first_bad = n_, first_inexact = n_;
  for (const Partial& partial : partials) {
    max_abs = std::max(max_abs, partial.max_abs);
    small_integers_ = small_integers_ && partial.small_integers;
    first_bad = std::min(first_bad, partial.first_bad);
    first_inexact = std::min(first_inexact, partial.first_inexact);
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
  exponent_ = exponent_of(max_abs);
  // Only float64 reaches this far, and its squares would not reach any further.
  if (std::abs(exponent_) > kLargestExponent) {
    char magnitude[32];
    std::snprintf(magnitude, sizeof(magnitude), "%g", max_abs);
    throw InvalidArgument(std::string("x has ") + magnitude +
                          " as its largest magnitude in a group; float64 values must lie within "
                          "2^-800 and 2^800: scale the data");
  }
  if (!find_centre) return;

  for (Partial& partial : partials) {
    if (partial.exponent != exponent_) restart(partial, exponent_);
  }
  team.for_ranges(static_cast<std::int64_t>(again.size()), 1,
                  [&](std::int64_t begin, std::int64_t end, int thread) {
                    for (std::int64_t i = begin; i < end; ++i) {
                      add_rows(partials[static_cast<std::size_t>(thread)], again[i].first,
                               again[i].second, thread);
                    }
                  });
  std::vector<std::int64_t> total(static_cast<std::size_t>(n_features_));
  for (const Partial& partial : partials) {
    for (std::size_t j = 0; j < partial.sums.size(); ++j) total[j] += partial.sums[j];
  }
  set_centre(total);
}

// The exact weighted mean, rounded to T; for small integers, to an integer.
template <class T>
void Group<T>::set_centre(const std::vector<std::int64_t>& sums) {
  centre_.resize(static_cast<std::size_t>(n_features_));
  const double factor = mean_factor() * std::ldexp(1.0, -grid_bits_);
  for (std::int64_t j = 0; j < n_features_; ++j) {
    const double mean = static_cast<double>(sums[j]) / static_cast<double>(total_units_) * factor;
    centre_[j] = small_integers_ ? static_cast<T>(std::nearbyint(mean * unscale()) * scale())
                                 : static_cast<T>(mean);
  }
}

template <class T>
void Group<T>::pack_block(std::int64_t block, float* f32, std::uint32_t* bf16, double* sq_norms,
                          float* max_abs, double* sq_residuals, RowScratch<T>& row_scratch,
                          int thread) const {
  const T* rows[kBlockPoints];
  const std::int64_t begin = block * kBlockPoints;
  const int n_rows = static_cast<int>(std::min<std::int64_t>(kBlockPoints, n_ - begin));
  for (int p = 0; p < n_rows; ++p) rows[p] = row(begin + p, row_scratch.get(thread, p));
  PackArgs<T> args{rows,           n_rows,      n_features_, power_of_two<T>(-exponent_),
                   centre_.data(), f32,         bf16,        sq_norms,
                   max_abs,        sq_residuals};
  kernels_.pack.pack(args);
}

template <class T>
void Group<T>::pack(const Residency& residency, const Team& team) {
  const std::int64_t n_padded = n_blocks() * kBlockPoints;
  const std::int64_t bf16_stride = (n_features_ + 1) / 2 * kBlockPoints;
  if (residency.f32_blocks || (residency.fast_blocks && !fast_bf16_)) {
    f32_blocks_.reset(n_blocks() * n_features_ * kBlockPoints);
  }
  if (residency.fast_blocks && fast_bf16_) bf16_blocks_.reset(n_blocks() * bf16_stride);
  sq_norms_.resize(static_cast<std::size_t>(n_padded));
  p_.resize(static_cast<std::size_t>(n_padded));
  q_.resize(static_cast<std::size_t>(n_padded));
  const bool measure_bf16 = fast_bf16_;
  Buffer<std::uint32_t> bf16_scratch(
      measure_bf16 && bf16_blocks_.empty() ? team.n_threads() * bf16_stride : 0);
  RowScratch<T> row_scratch(team.n_threads(), n_features_, kBlockPoints);
  std::mutex mutex;
  float max_abs = 0;
  team.for_ranges(n_blocks(), 1, [&](std::int64_t begin, std::int64_t end, int thread) {
    for (std::int64_t b = begin; b < end; ++b) {
      float* f32 =
          f32_blocks_.empty() ? nullptr : f32_blocks_.data() + b * n_features_ * kBlockPoints;
      std::uint32_t* bf16 = !bf16_blocks_.empty() ? bf16_blocks_.data() + b * bf16_stride
                            : measure_bf16        ? bf16_scratch.data() + thread * bf16_stride
                                                  : nullptr;
      double residuals[kBlockPoints];
      float largest[kBlockPoints];
      pack_block(b, f32, bf16, sq_norms_.data() + b * kBlockPoints, largest, residuals, row_scratch,
                 thread);
      float block_max = 0;
      for (int p = 0; p < kBlockPoints; ++p) {
        const std::int64_t i = b * kBlockPoints + p;
        const double norm = std::sqrt(sq_norms_[i]);
        // The residual was summed in float32, n_features / 16 + 8 roundings deep.
        const double inflate = 1 + (static_cast<double>(n_features_) / 16 + 24) * 0x1p-23;
        const double lost = std::sqrt(residuals[p]) * inflate;
        p_[i] = round_up(lost + rounding_of_row(norm, n_features_));
        q_[i] = round_up(norm + lost);
        if (i < n_ && counts(i)) block_max = std::max(block_max, largest[p]);
      }
      const std::lock_guard<std::mutex> lock(mutex);
      max_abs = std::max(max_abs, block_max);
    }
  });
  row_exponent_ = exponent_of(max_abs);
}

template <class T>
void Group<T>::prepare(const Residency& residency, bool fast_bf16, const Team& team) {
  fast_bf16_ = fast_bf16;
  if (residency.rows && !reader_.in_place()) converted_.reset(n_ * n_features_);
  inspect_and_centre(true, team);
  pack(residency, team);
  row_shift_.resize(static_cast<std::size_t>(n_features_));
  for (std::int64_t j = 0; j < n_features_; ++j) {
    row_shift_[j] = static_cast<double>(centre_[j]) * std::ldexp(1.0, grid_bits_ - row_exponent_);
  }
}

template <class T>
void Group<T>::prepare_with_centre(const std::vector<T>& centre, int exponent,
                                   const Residency& residency, bool fast_bf16, const Team& team) {
  fast_bf16_ = fast_bf16;
  if (residency.rows && !reader_.in_place()) converted_.reset(n_ * n_features_);
  inspect_and_centre(false, team);
  exponent_ = exponent;
  centre_ = centre;
  pack(residency, team);
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
  double sq_norms[kBlockPoints], residuals[kBlockPoints];
  float max_abs[kBlockPoints];
  pack_block(block, scratch, nullptr, sq_norms, max_abs, residuals, row_scratch, thread);
  return scratch;
}

template <class T>
const void* Group<T>::fast_block(std::int64_t block, float* scratch, RowScratch<T>& row_scratch,
                                 int thread) const {
  if (!fast_bf16_) return f32_block(block, scratch, row_scratch, thread);
  if (!bf16_blocks_.empty()) {
    return bf16_blocks_.data() + block * ((n_features_ + 1) / 2 * kBlockPoints);
  }
  double sq_norms[kBlockPoints], residuals[kBlockPoints];
  float max_abs[kBlockPoints];
  pack_block(block, nullptr, reinterpret_cast<std::uint32_t*>(scratch), sq_norms, max_abs,
             residuals, row_scratch, thread);
  return scratch;
}

template <class T>
float Group<T>::p_f32(std::int64_t i) const {
  return round_up(rounding_of_row(std::sqrt(sq_norms_[i]), n_features_));
}

template <class T>
float Group<T>::q_f32(std::int64_t i) const {
  return round_up(std::sqrt(sq_norms_[i]));
}

template class Group<float>;
template class Group<double>;

}  // namespace ddkern::kmeans
