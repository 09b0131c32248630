// SPDX-License-Identifier: Apache-2.0
#include "kmeans/seeding.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <numeric>
#include <optional>

#include "core/simd/round.h"
#include "kmeans/screening.h"
#include "kmeans/weighted_mean.h"

namespace ddkern::kmeans {
namespace {

constexpr std::int64_t kChainLanes = 16;  // rows that Group::chains works on at once, at its widest

// Non-negative integer masses that can be drawn from: the first index whose cumulative mass exceeds
// floor(u * total). Cumulative sums are kept a block; within a block the masses are walked.
class Masses {
 public:
  explicit Masses(std::int64_t n)
      : masses_(static_cast<std::size_t>(n_blocks_of(n) * kBlockPoints), 0),
        until_(static_cast<std::size_t>(n_blocks_of(n)), 0) {}

  std::int64_t* data() { return masses_.data(); }

  void total_up() {
    std::int64_t total = 0;
    for (std::size_t b = 0; b < until_.size(); ++b) {
      for (int p = 0; p < kBlockPoints; ++p) total += masses_[b * kBlockPoints + p];
      until_[b] = total;
    }
  }
  std::int64_t total() const { return until_.back(); }

  std::int64_t draw(double u) const {
    const auto target = static_cast<std::int64_t>(u * static_cast<double>(total()));
    std::int64_t rest = std::min(target, total() - 1);
    const auto block = std::upper_bound(until_.begin(), until_.end(), rest) - until_.begin();
    if (block > 0) rest -= until_[block - 1];
    std::int64_t i = block * kBlockPoints;
    while (rest >= masses_[i]) rest -= masses_[i++];
    return i;
  }

 private:
  std::vector<std::int64_t> masses_, until_;
};

// One k-means++ run over one group.
template <class T>
class PlusPlus {
 public:
  PlusPlus(const Group<T>& group, const GramMatrix* gram, std::int64_t k, const Draws& draws,
           std::int64_t n_kept, bool mislead, const Team& team)
      : group_(group), gram_(gram), k_(k), draws_(draws), team_(team),
        n_trials_(n_seeding_trials(k)), masses_(group.n()), units_(group.n()),
        norms_(static_cast<std::size_t>(padded())), closest_(static_cast<std::size_t>(padded())),
        nearer_(static_cast<std::size_t>(n_trials_)), candidate_(group.n_features()),
        row_scratch_(team.n_threads(), group.n_features(), kBlockPoints),
        value_scratch_(team.n_threads(), group.n_features()),
        block_scratch_(gather_words() > 0 ? team.n_threads() * group.block_words() : 0),
        columns_(gather_words() * kTileColumns) {
    if (screens(group, gram)) screening_.emplace(group, n_trials_, n_kept, mislead, team);
    for (std::int64_t i = 0; i < group.n(); ++i) units_.data()[i] = group.units(i);
    units_.total_up();
    find_norms();
  }

  const Seeds& run() {
    seeds_.rows.push_back(units_.draw(draws_(0, 0)));
    start_from(seeds_.rows[0]);
    for (std::int64_t step = 1; step < k_; ++step) {
      team_.check();
      weigh();
      if (masses_.total() == 0 && !find_potential_in_float64(step)) continue;
      add_best_of_trials(step);
    }
    weigh();
    seeds_.potential =
        std::ldexp(static_cast<double>(masses_.total()), 2 * group_.frame().exponent - shift_) *
        (group_.total_weight() / static_cast<double>(group_.total_units())) * group_.mean_factor();
    return seeds_;
  }

  std::optional<SeededScores<T>> scores() const {
    if (!screening_) return {};
    return screening_->scores_of(seeds_.rows);
  }

 private:
  std::int64_t padded() const { return group_.n_blocks() * kBlockPoints; }

  static bool screens(const Group<T>& group, const GramMatrix* gram) {
    return gram == nullptr && group.format() == FastFormat::bytes;
  }
  // Of a column of chains over whole blocks.
  std::int64_t gather_words() const {
    return gram_ == nullptr && !screens(group_, gram_) ? column_stride() : 0;
  }

  void find_norms() {
    if (screening_) return;
    if (gram_ != nullptr) {
      for (std::int64_t i = 0; i < padded(); ++i) norms_[i] = gram_->row(i)[i];
      return;
    }
    team_.for_ranges(group_.n_blocks(), 4, [&](std::int64_t begin, std::int64_t end, int thread) {
      for (std::int64_t b = begin; b < end; ++b) {
        group_.kernels().dots.chain_norms(block(b, thread), group_.n_features(),
                                          norms_.data() + b * kBlockPoints);
      }
    });
  }

  const float* block(std::int64_t b, int thread) {
    return group_.f32_block(b, block_scratch_.data() + thread * group_.block_words(), row_scratch_,
                            thread);
  }

  // The packed features of row i as column c.
  void gather_column(std::int64_t i, int c) {
    const float* points = block(i / kBlockPoints, 0) + i % kBlockPoints;
    float* column = columns_.data() + c * column_stride();
    for (std::int64_t d = 0; d < group_.n_features(); ++d) column[d] = points[d * kBlockPoints];
    column_at_[c] = column;
  }
  std::int64_t column_stride() const { return apart(group_.n_features()); }

  // closest = distances to one row, 0 for rows that do not count.
  void start_from(std::int64_t row) {
    for (std::int64_t i = 0; i < padded(); ++i) {
      closest_[i] = i < group_.n() && group_.counts(i) ? 0x1p1000 : 0;
    }
    const std::vector<std::int64_t> only{row};
    if (screening_) {
      std::vector<std::int64_t> rows;
      for (std::int64_t i = 0; i < group_.n(); ++i) {
        if (group_.counts(i)) rows.push_back(i);
      }
      const std::vector<double> distances = distances_to(row, rows);
      for (std::size_t r = 0; r < rows.size(); ++r) closest_[size(rows[r])] = distances[r];
      return;
    }
    try_candidates(only, 0.0);
    closest_.swap(nearer_[0]);
  }

  static std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

  // d32 of some rows to one.
  std::vector<double> distances_to(std::int64_t row, const std::vector<std::int64_t>& rows) {
    screening_->aim(row);
    const auto n_rows = static_cast<std::int64_t>(rows.size());
    std::vector<double> distances(rows.size());
    // One stretch a thread, for rows are fetched ahead within it; of whole registers of lanes.
    const std::int64_t n_lanes = (n_rows + kChainLanes - 1) / kChainLanes;
    const std::int64_t share = (n_lanes + team_.n_threads() - 1) / team_.n_threads() * kChainLanes;
    team_.for_ranges(n_rows, std::min<std::int64_t>(share, 64 * kBlockPoints),
                     [&](std::int64_t begin, std::int64_t end, int thread) {
                       for (std::int64_t first = begin; first < end; first += kBlockPoints) {
                         const std::int64_t last = std::min(end, first + kBlockPoints);
                         const std::int64_t n_ahead =
                             std::min<std::int64_t>(kBlockPoints, end - last);
                         screening_->distances(rows.data() + first, static_cast<int>(last - first),
                                               first == begin, static_cast<int>(n_ahead),
                                               distances.data() + first, thread);
                       }
                     });
    return distances;
  }

  std::int64_t mass_of(std::int64_t i, double distance) const {
    const std::int64_t value = simd::round_f64(distance * unit_);
    return group_.weighted() ? simd::round_wide_f64(static_cast<double>(value) * group_.weight(i))
                             : value;
  }

  // What screening found out about one trial: the rows that it may be nearer to than what is
  // closest, and bounds of its gain, the mass that it takes away.
  struct alignas(kThreadAlignment) Trial {
    std::vector<std::int64_t> open;
    double least_gain = 0, most_gain = 0;
  };

  std::vector<Trial> screen(std::size_t n_trials) {
    std::vector<std::vector<Trial>> found(size(team_.n_threads()), std::vector<Trial>(n_trials));
    team_.for_ranges(group_.n_blocks(), 4, [&](std::int64_t begin, std::int64_t end, int thread) {
      for (std::int64_t b = begin; b < end; ++b) {
        const float* products = screening_->products(b, thread);
        for (std::size_t t = 0; t < n_trials; ++t) {
          Trial& trial = found[size(thread)][t];
          double lower[kBlockPoints], upper[kBlockPoints];
          std::uint32_t open =
              screening_->screen(static_cast<int>(t), b, products, closest_.data(), lower, upper);
          for (; open != 0; open &= open - 1) {
            const int p = __builtin_ctz(open);
            const std::int64_t i = b * kBlockPoints + p;
            const double now = closest_[size(i)], weight = unit_ * group_.weight(i);
            trial.open.push_back(i);
            trial.least_gain += weight * std::max(0.0, now - std::max(upper[p], 0.0));
            trial.most_gain += weight * (now - lower[p]);
          }
        }
      }
    });
    std::vector<Trial> trials = std::move(found[0]);
    for (std::size_t part = 1; part < found.size(); ++part) {
      for (std::size_t t = 0; t < n_trials; ++t) {
        const Trial& more = found[part][t];
        trials[t].open.insert(trials[t].open.end(), more.open.begin(), more.open.end());
        trials[t].least_gain += more.least_gain;
        trials[t].most_gain += more.most_gain;
      }
    }
    for (Trial& trial : trials) {
      // Masses are rounded to integers (twice where rows have weights, up to 2^22), and the sums
      // above are rounded too.
      const double slack =
          0x1p-30 * trial.most_gain +
          4 * (1 + static_cast<double>(trial.open.size())) * (group_.weighted() ? 0x1p23 : 1.0);
      trial.least_gain -= slack;
      trial.most_gain += slack;
    }
    return trials;
  }

  // The least potential is the largest gain. Bounds of the gains leave one or two trials in most
  // steps; only theirs are computed, and only from the rows that are open.
  void add_best_screened(const std::vector<std::int64_t>& candidates) {
    screening_->set_candidates(candidates);
    const std::vector<Trial> trials = screen(candidates.size());
    std::vector<std::size_t> order(trials.size());
    std::iota(order.begin(), order.end(), 0);
    // The most promising first: its gain, once known, rules out most of the others.
    const auto promise = [&](std::size_t t) { return trials[t].least_gain + trials[t].most_gain; };
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return promise(a) > promise(b); });
    double bar = -HUGE_VAL;
    for (const Trial& trial : trials) bar = std::max(bar, trial.least_gain);
    std::size_t best = trials.size();
    std::int64_t best_gain = 0;
    std::vector<double> best_distances;
    for (const std::size_t t : order) {
      if (trials[t].most_gain < bar) continue;
      std::vector<double> distances = distances_to(candidates[t], trials[t].open);
      std::int64_t gain = 0;
      for (std::size_t r = 0; r < distances.size(); ++r) {
        const std::int64_t i = trials[t].open[r];
        gain += masses_.data()[i] - mass_of(i, std::min(closest_[size(i)], distances[r]));
      }
      // The lowest trial among equals.
      if (best == trials.size() || gain > best_gain || (gain == best_gain && t < best)) {
        best = t;
        best_gain = gain;
        best_distances = std::move(distances);
      }
      bar = std::max(bar, static_cast<double>(best_gain) * (1 - 0x1p-50));
    }
    seeds_.rows.push_back(candidates[best]);
    for (std::size_t r = 0; r < best_distances.size(); ++r) {
      double& now = closest_[size(trials[best].open[r])];
      now = std::min(now, best_distances[r]);
    }
  }

  // The exponent of the largest distance fixes the grid; then every row's integer mass.
  void weigh() {
    const double largest = *std::max_element(closest_.begin(), closest_.end());
    shift_ = group_.grid_bits() - grid_exponent(largest);
    unit_ = std::ldexp(1.0, shift_);
    for (std::int64_t i = 0; i < group_.n(); ++i) {
      masses_.data()[i] = mass_of(i, closest_[i]);
    }
    masses_.total_up();
  }

  // nearer_[t] and the potential for every candidate; `unit` 0 asks for the distances alone.
  std::vector<std::int64_t> try_candidates(const std::vector<std::int64_t>& rows, double unit) {
    const int n = static_cast<int>(rows.size());
    for (int t = 0; t < n; ++t) nearer_[t].resize(static_cast<std::size_t>(padded()));
    std::vector<std::int64_t> potentials(rows.size(), 0);
    const bool products = !direct_ && gram_ == nullptr;
    std::vector<const T*> values(rows.size());
    std::vector<Buffer<T>> value_copies(rows.size());
    for (int t = 0; t < n; ++t) {
      if (direct_) {
        value_copies[t].reset(group_.n_features());
        values[t] = copy_value(rows[t], value_copies[t]);
      }
    }
    for (int first = 0; first < n; first += kTileColumns) {
      const int width = std::min(kTileColumns, n - first);
      if (products) {
        for (int c = 0; c < width; ++c) gather_column(rows[first + c], c);
      }
      std::mutex mutex;
      const std::int64_t grain = products || direct_ ? 1 : 64;
      team_.for_ranges(
          group_.n_blocks(), grain, [&](std::int64_t begin, std::int64_t end, int thread) {
            alignas(64) float dots[kTileColumns * kBlockPoints];
            std::int64_t sums[kTileColumns] = {};
            for (std::int64_t b = begin; b < end; ++b) {
              if (products) {
                group_.kernels().dots.chain_f32(
                    {block(b, thread), column_at_, 1, width, group_.n_features(), kInOrder, dots});
              }
              for (int c = 0; c < width; ++c) {
                const int t = first + c;
                if (direct_) {
                  sums[c] += nearer_directly(b, values[t], unit, nearer_[t].data(), thread);
                  continue;
                }
                const float* candidate_dots = gram_ != nullptr
                                                  ? gram_->row(rows[t]) + b * kBlockPoints
                                                  : dots + c * kBlockPoints;
                sums[c] += group_.kernels().potential.potential(
                    {closest_.data() + b * kBlockPoints, norms_.data() + b * kBlockPoints,
                     candidate_dots, static_cast<double>(norms_[rows[t]]), unit,
                     group_.weighted() ? group_.weights() + b * kBlockPoints : nullptr,
                     nearer_[t].data() + b * kBlockPoints});
              }
            }
            const std::lock_guard<std::mutex> lock(mutex);
            for (int c = 0; c < width; ++c) potentials[first + c] += sums[c];
          });
    }
    return potentials;
  }

  void add_best_of_trials(std::int64_t step) {
    std::vector<std::int64_t> candidates(static_cast<std::size_t>(n_trials_));
    for (int t = 0; t < n_trials_; ++t) candidates[t] = masses_.draw(draws_(step, t));
    if (screening_ && !direct_) return add_best_screened(candidates);
    const auto potentials = try_candidates(candidates, unit_);
    const auto best = std::min_element(potentials.begin(), potentials.end()) - potentials.begin();
    seeds_.rows.push_back(candidates[best]);
    closest_.swap(nearer_[best]);
  }

  // float32 says that every row coincides with a seed. True when float64 knows better and the
  // masses have been made anew; otherwise a seed was added here.
  bool find_potential_in_float64(std::int64_t step) {
    // Once every row equals a seed, it stays so: what is added then are duplicates.
    const std::int64_t different = all_rows_are_seeds_ ? -1 : first_row_unlike_seeds();
    all_rows_are_seeds_ = different < 0;
    if (different < 0) {
      seeds_.rows.push_back(units_.draw(draws_(step, 0)));
      return false;
    }
    if (!direct_) {
      direct_ = true;
      const auto rows = seeds_.rows;
      for (std::int64_t i = 0; i < padded(); ++i) {
        closest_[i] = i < group_.n() && group_.counts(i) ? 0x1p1000 : 0;
      }
      for (const std::int64_t row : rows) {
        try_candidates({row}, 0.0);
        closest_.swap(nearer_[0]);
      }
      weigh();
      if (masses_.total() > 0) return true;
    }
    seeds_.rows.push_back(different);
    try_candidates({different}, 0.0);
    closest_.swap(nearer_[0]);
    return false;
  }

  const T* copy_value(std::int64_t row, Buffer<T>& to) {
    const T* value = group_.row(row, to.data());
    if (value != to.data()) std::copy(value, value + group_.n_features(), to.data());
    return to.data();
  }

  std::int64_t first_row_unlike_seeds() {
    for (std::int64_t i = 0; i < group_.n(); ++i) {
      if (i % 64 == 0) team_.check();
      if (!group_.counts(i) || closest_[i] != 0) {
        if (group_.counts(i)) return i;
        continue;
      }
      copy_value(i, candidate_);
      const bool known = std::any_of(seeds_.rows.begin(), seeds_.rows.end(), [&](std::int64_t row) {
        return group_.rows_equal(row, candidate_.data(), value_scratch_.get(0));
      });
      if (!known) return i;
    }
    return -1;
  }

  std::int64_t nearer_directly(std::int64_t b, const T* value, double unit, double* nearer,
                               int thread) {
    std::int64_t sum = 0;
    for (std::int64_t i = b * kBlockPoints; i < (b + 1) * kBlockPoints; ++i) {
      nearer[i] = closest_[i];
      if (i >= group_.n() || closest_[i] == 0) continue;
      const T* x = group_.row(i, value_scratch_.get(thread));
      nearer[i] = std::min(
          closest_[i], group_.kernels().distance(x, value, group_.scale(), group_.n_features()));
      const std::int64_t q = simd::round_f64(nearer[i] * unit);
      sum +=
          group_.weighted() ? simd::round_wide_f64(static_cast<double>(q) * group_.weight(i)) : q;
    }
    return sum;
  }

  const Group<T>& group_;
  const GramMatrix* gram_;
  std::int64_t k_;
  const Draws& draws_;
  const Team& team_;
  int n_trials_;
  Masses masses_, units_;
  std::vector<float> norms_;
  std::vector<double> closest_;
  std::vector<std::vector<double>> nearer_;
  Buffer<T> candidate_;
  RowScratch<T> row_scratch_, value_scratch_;
  Buffer<float> block_scratch_, columns_;
  const void* column_at_[kTileColumns] = {};
  Seeds seeds_;
  double unit_ = 1;
  int shift_ = 0;
  std::optional<Screening<T>> screening_;
  bool direct_ = false;
  bool all_rows_are_seeds_ = false;
};

}  // namespace

int n_seeding_trials(std::int64_t k) {
  return 2 + static_cast<int>(std::floor(std::log(static_cast<double>(k))));
}

template <class T>
PlusPlusSeeds<T> seed_plus_plus(const Group<T>& group, const GramMatrix* gram, std::int64_t k,
                                const Draws& draws, std::int64_t n_kept, bool hand_over,
                                bool mislead, const Team& team) {
  PlusPlus<T> plus_plus(group, gram, k, draws, n_kept, mislead, team);
  const Seeds& seeds = plus_plus.run();
  if (!hand_over) return {seeds, {}};
  return {seeds, plus_plus.scores()};
}

template <class T>
Seeds seed_random(const Group<T>& group, std::int64_t k, const Draws& draws, const Team& team) {
  Masses eligible(group.n()), all(group.n());
  for (std::int64_t i = 0; i < group.n(); ++i) {
    eligible.data()[i] = all.data()[i] = group.units(i);
  }
  all.total_up();
  eligible.total_up();
  Seeds seeds;
  Buffer<T> value(group.n_features());
  RowScratch<T> scratch(team.n_threads(), group.n_features());
  for (std::int64_t step = 0; step < k; ++step) {
    team.check();
    const double u = draws(step, 0);
    if (eligible.total() == 0) {
      seeds.rows.push_back(all.draw(u));
      continue;
    }
    const std::int64_t row = eligible.draw(u);
    seeds.rows.push_back(row);
    const T* drawn = group.row(row, value.data());
    if (drawn != value.data()) std::copy(drawn, drawn + group.n_features(), value.data());
    team.for_ranges(group.n(), 1024, [&](std::int64_t begin, std::int64_t end, int thread) {
      for (std::int64_t i = begin; i < end; ++i) {
        if (eligible.data()[i] != 0 && group.rows_equal(i, value.data(), scratch.get(thread))) {
          eligible.data()[i] = 0;
        }
      }
    });
    eligible.total_up();
  }
  return seeds;
}

template PlusPlusSeeds<float> seed_plus_plus(const Group<float>&, const GramMatrix*, std::int64_t,
                                             const Draws&, std::int64_t, bool, bool, const Team&);
template PlusPlusSeeds<double> seed_plus_plus(const Group<double>&, const GramMatrix*, std::int64_t,
                                              const Draws&, std::int64_t, bool, bool, const Team&);
template Seeds seed_random(const Group<float>&, std::int64_t, const Draws&, const Team&);
template Seeds seed_random(const Group<double>&, std::int64_t, const Draws&, const Team&);

}  // namespace ddkern::kmeans
