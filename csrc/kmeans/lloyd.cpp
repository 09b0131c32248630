// SPDX-License-Identifier: Apache-2.0
#include "kmeans/lloyd.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include "kmeans/cell_sums.h"
#include "kmeans/gram_scores.h"
#include "kmeans/moves.h"
#include "kmeans/nearest.h"
#include "kmeans/weighted_mean.h"

namespace ddkern::kmeans {
namespace {

constexpr std::int64_t kBlocksInGramSpace = 8;   // at a time: few operations each
constexpr std::int64_t kFewestComparisons = 2;   // a row, that bytes may leave
constexpr std::int64_t kRowsBetweenChecks = 64;  // for Ctrl-C
// Of the last pass, where cells are settled; heads have ruled most columns out already.
constexpr std::int64_t kRowsAMove = 12, kRowsAMoveWithHeads = 20;

template <class T>
class Lloyd {
 public:
  Lloyd(Group<T>& group, const GramMatrix* gram, T* centroids, std::int64_t k,
        const std::vector<std::int64_t>& seed_rows, std::optional<SeededScores<T>> seeded,
        const FitOptions& options, const LloydPlan& plan, const Team& team)
      : group_(group), k_(k), n_features_(group.n_features()), options_(options), plan_(plan),
        team_(team), centroids_(centroids), sums_(group, k, team.n_threads()), units_(size(k), 0),
        mean_sq_norms_(size(k), 0.0), off_(size(k), 0.0), assignment_(size(group.n()), -1),
        moves_(group.n_blocks()), nearest_(group, centroids, k, team.n_threads()),
        row_scratch_(team.n_threads(), n_features_),
        previous_scratch_(team.n_threads(), n_features_), value_(n_features_) {
    if (gram != nullptr) {
      gram_scores_.emplace(group, *gram, k);
      for (std::size_t c = 0; c < seed_rows.size(); ++c) {
        gram_scores_->set_row(static_cast<std::int64_t>(c), seed_rows[c], team);
      }
    }
    moved_.resize(size(k));
    std::iota(moved_.begin(), moved_.end(), 0);
    if (seeded && plan.cache_scores) {
      direct_scores_.emplace(std::move(seeded->scores));
      moved_ = std::move(seeded->unknown);
    } else if (gram == nullptr || seed_rows.empty()) {
      // With a Gram matrix, given centroids: no combinations of rows until the first update.
      direct_scores_.emplace(group, k, plan.cache_scores && gram == nullptr, team.n_threads());
    }
  }

  LloydResult<T> run() {
    assign();
    const double tolerance = options_.tol;
    std::int64_t n_iter = 0;
    bool converged = false;
    for (;;) {
      ++n_iter;
      update_sums();
      const bool repaired = update_centroids();
      if (n_iter == 1) find_variance();
      history_.push_back(distortion_about_means());
      assign();
      converged = !repaired && (!any_counting_row_moved() || shift_ <= tolerance * variance_);
      const bool done = converged || n_iter >= options_.max_iter;
      if (!done) continue;
      // Ending with a dead cell is for groups that have no distinct row left to give it.
      if (!assignment_leaves_repairable_cell()) break;
      if (n_iter >= options_.max_iter + 100 + k_) break;
    }
    return result(n_iter, converged);
  }

 private:
  static std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

  Scores<T>& scores() {
    if (direct_scores_) return *direct_scores_;
    return *gram_scores_;
  }

  // A_it: every row to its nearest stored centroid; `moves_` holds the rows that changed cell.
  void assign() {
    if (bytes_are_too_coarse()) use_finer_format();
    if (plan_.margins) settle();
    const std::int64_t n_compared_before = nearest_.counters().n_compared;
    if (direct_scores_) {
      direct_scores_->update(centroids_, moved_, settled_ ? sq_shifts_ : std::vector<double>{},
                             team_);
    }
    Scores<T>& scores = this->scores();
    scores.mislead(misleading(options_.mislead, std::as_const(centroids_)));
    const std::int64_t grain = direct_scores_ ? 1 : kBlocksInGramSpace;
    team_.for_ranges(group_.n_blocks(), grain,
                     [&](std::int64_t begin, std::int64_t end, int thread) {
                       for (std::int64_t b = begin; b < end; ++b) assign_block(scores, b, thread);
                     });
    moves_.join();
    rows_assigned_ += group_.n();
    n_compared_ = nearest_.counters().n_compared - n_compared_before;
  }

  void assign_block(Scores<T>& scores, std::int64_t block, int thread) {
    std::int64_t rows[kBlockPoints];
    std::int32_t near[kBlockPoints] = {}, winners[kBlockPoints];
    const std::int64_t first = block * kBlockPoints;
    const auto n = static_cast<int>(std::min<std::int64_t>(kBlockPoints, group_.n() - first));
    for (int p = 0; p < n; ++p) {
      rows[p] = group_.row_at(first + p);
      near[p] = assignment_[size(rows[p])];
    }
    // In the first pass nothing is near yet.
    nearest_.block(scores, block, n_updates_ > 0 ? near : nullptr, winners, thread);
    moves_.clear_block(block);
    for (int p = 0; p < n; ++p) {
      if (winners[p] == near[p]) continue;
      moves_.add(block, {rows[p], near[p], winners[p]});
      assignment_[size(rows[p])] = winners[p];
    }
  }

  // Bytes save about a sixty-fourth of a comparison of stored values a feature, row and column that
  // is multiplied. The first pass is no measure: seeds are rows, which are longer than means.
  bool bytes_are_too_coarse() const {
    return direct_scores_ && group_.format() == FastFormat::bytes && n_updates_ > 1 &&
           plan_.finer_format != FastFormat::bytes &&
           n_compared_ >
               std::max(kFewestComparisons * group_.n(), direct_scores_->n_multiplied() / 8);
  }

  void use_finer_format() {
    group_.change_format(plan_.finer_format, plan_.keep_finer, team_);
    start_direct_scores();
  }

  // Margins are for the passes in which cells change little. Then blocks of rows from one cell rule
  // out columns that blocks of any rows do not.
  void settle() {
    if (settled_ || n_updates_ < 2 || !direct_scores_) return;
    const std::int64_t rows = group_.tails() != nullptr ? kRowsAMoveWithHeads : kRowsAMove;
    settled_ = moves_.size() * rows <= group_.n();
    if (settled_) sort_rows();
  }

  void sort_rows() {
    std::vector<std::int64_t> next(size(k_) + 1, 0), order(size(group_.n()));
    for (const std::int32_t c : assignment_) ++next[size(c) + 1];
    std::partial_sum(next.begin(), next.end(), next.begin());
    for (std::int64_t i = 0; i < group_.n(); ++i)
      order[size(next[size(assignment_[size(i)])]++)] = i;
    group_.reorder(std::move(order), team_);
    start_direct_scores();
  }

  void start_direct_scores() {
    products_skipped_ += direct_scores_->n_skipped();
    direct_scores_.emplace(group_, k_, plan_.cache_scores, team_.n_threads());
    moved_.resize(size(k_));
    std::iota(moved_.begin(), moved_.end(), 0);
  }

  bool any_counting_row_moved() const {
    return std::any_of(moves_.begin(), moves_.end(),
                       [this](const Move& move) { return group_.counts(move.row); });
  }

  // S, M and the changed cells from the rows that moved.
  void update_sums() {
    changed_.assign(size(k_), 0);
    for (const Move& move : moves_) {
      const std::int64_t units = group_.units(move.row);
      if (units == 0) continue;
      units_[move.to] += units;
      changed_[move.to] = 1;
      if (move.from < 0) continue;
      units_[move.from] -= units;
      changed_[move.from] = 1;
    }
    if (n_updates_++ > 0) return sums_.transfer(moves_, team_);
    sq_norms_ = group_.sq_norms();
    sums_.add_all(moves_, sq_norms_, team_);
  }

  // C_it from the sums; returns whether an empty cell was seeded again. Sets shift_ and moved_.
  bool update_centroids() {
    std::vector<std::pair<std::int64_t, std::int64_t>> reseeded;  // cell, row
    const bool any_empty = std::find(units_.begin(), units_.end(), 0) != units_.end();
    if (any_empty) reseeded = repair_empty_cells();
    find_single_valued_cells();

    std::vector<std::int64_t> reseeded_with(size(k_), -1), cells;
    for (const auto& [cell, row] : reseeded) reseeded_with[size(cell)] = row;
    for (std::int64_t c = 0; c < k_; ++c) {
      if ((changed_[c] && units_[c] > 0) || reseeded_with[size(c)] >= 0) cells.push_back(c);
    }
    std::vector<double> shifts(cells.size());
    std::vector<char> differs(cells.size());
    team_.for_ranges(static_cast<std::int64_t>(cells.size()), 1,
                     [&](std::int64_t begin, std::int64_t end, int thread) {
                       for (std::int64_t i = begin; i < end; ++i) {
                         const std::int64_t c = cells[size(i)];
                         const bool reseed = reseeded_with[size(c)] >= 0;
                         const std::int64_t row =
                             reseed ? reseeded_with[size(c)] : single_value_[c];
                         FinishArgs<T> found = finish_args(c, reseed || row >= 0);
                         if (row >= 0) put_row(row, found, thread);
                         // Of a cell without members there is no mean.
                         if (!reseed) finish(c, found);
                         shifts[size(i)] = found.sq_shift;
                         differs[size(i)] = found.moved;
                       }
                     });
    shift_ = 0;
    moved_.clear();
    if (plan_.margins) sq_shifts_.assign(size(k_), 0.0);
    for (std::size_t i = 0; i < cells.size(); ++i) {
      shift_ += shifts[i];
      if (plan_.margins) sq_shifts_[size(cells[i])] = shifts[i];
      if (differs[i]) moved_.push_back(cells[i]);
    }
    if (gram_scores_) follow_in_gram_space(reseeded);
    cells_reseeded_ += static_cast<std::int64_t>(reseeded.size());
    return !reseeded.empty();
  }

  void copy_row(std::int64_t row, T* to, int thread) {
    const T* x = group_.row(row, row_scratch_.get(thread));
    std::copy(x, x + n_features_, to);
  }

  FinishArgs<T> finish_args(std::int64_t c, bool keep) {
    return {sums_.of(c),
            static_cast<double>(units_[c]),
            group_.mean_factor() * group_.row_unit(),
            group_.centre(),
            group_.scale(),
            group_.unscale(),
            n_features_,
            keep,
            centroids_ + c * n_features_};
  }

  // The means of a cell, as its centroid unless that is kept; their norm, and how far it is from
  // them.
  void finish(std::int64_t c, FinishArgs<T>& args) {
    const double shift = args.sq_shift;
    const bool moved = args.moved;
    group_.kernels().accumulate.finish(args);
    if (args.keep) {
      args.sq_shift = shift;
      args.moved = moved;
    }
    mean_sq_norms_[size(c)] = args.sq_norm;
    off_[size(c)] = args.sq_off;
  }

  // A row as the centroid of a cell.
  void put_row(std::int64_t row, FinishArgs<T>& args, int thread) {
    T* previous = previous_scratch_.get(thread);
    std::copy(args.centroid, args.centroid + n_features_, previous);
    copy_row(row, args.centroid, thread);
    args.sq_shift = group_.kernels().distance(args.centroid, previous, group_.scale(), n_features_);
    args.moved = std::memcmp(args.centroid, previous, size(n_features_) * sizeof(T)) != 0;
  }

  // single_value_[c]: the first row of a changed cell all of whose rows are equal, or -1. Two rows
  // usually differ in their first elements, so this costs little more than a pass over the labels.
  void find_single_valued_cells() {
    constexpr std::int64_t kUnseen = -1, kSeveral = -2;
    single_value_.assign(size(k_), kUnseen);
    std::int64_t n_compared = 0;
    for (std::int64_t i = 0; i < group_.n(); ++i) {
      const std::int32_t c = assignment_[size(i)];
      std::int64_t& first = single_value_[c];
      if (!changed_[c] || first == kSeveral || !group_.counts(i)) continue;
      if (first == kUnseen) {
        first = i;
        continue;
      }
      if (++n_compared % kRowsBetweenChecks == 0) team_.check();
      const T* value = group_.row(first, value_.data());
      if (!group_.rows_equal(i, value, row_scratch_.get(0))) first = kSeveral;
    }
  }

  void sq_distances_to_centroids(std::vector<double>& distances) {
    distances.resize(size(group_.n()));
    team_.for_ranges(group_.n(), 64, [&](std::int64_t begin, std::int64_t end, int thread) {
      for (std::int64_t i = begin; i < end; ++i) {
        const T* x = group_.row(i, row_scratch_.get(thread));
        distances[i] = group_.kernels().distance(x, centroids_ + assignment_[size(i)] * n_features_,
                                                 group_.scale(), n_features_);
      }
    });
  }

  // The row of positive weight with the largest distance, lowest index first, or -1 when all are 0.
  std::int64_t farthest_row(const std::vector<double>& distances) const {
    std::int64_t farthest = -1;
    double largest = 0;
    for (std::int64_t i = 0; i < group_.n(); ++i) {
      if (group_.counts(i) && distances[i] > largest) {
        largest = distances[i];
        farthest = i;
      }
    }
    return farthest;
  }

  // Rows for the empty cells, in ascending order of the cells, by distance to the centroids that
  // the assignment was made with.
  std::vector<std::pair<std::int64_t, std::int64_t>> repair_empty_cells() {
    std::vector<std::pair<std::int64_t, std::int64_t>> reseeded;
    std::vector<double> distances;
    sq_distances_to_centroids(distances);
    for (std::int64_t c = 0; c < k_; ++c) {
      if (units_[c] > 0) continue;
      const std::int64_t row = farthest_row(distances);
      if (row < 0) break;
      reseeded.emplace_back(c, row);
      copy_row(row, value_.data(), 0);
      team_.for_ranges(group_.n(), 64, [&](std::int64_t begin, std::int64_t end, int thread) {
        for (std::int64_t i = begin; i < end; ++i) {
          if (distances[i] == 0) continue;
          const T* x = group_.row(i, row_scratch_.get(thread));
          distances[i] = std::min(distances[i], group_.kernels().distance(
                                                    x, value_.data(), group_.scale(), n_features_));
        }
      });
    }
    return reseeded;
  }

  bool assignment_leaves_repairable_cell() {
    std::vector<std::int64_t> units = units_;
    for (const Move& move : moves_) {
      units[move.to] += group_.units(move.row);
      if (move.from >= 0) units[move.from] -= group_.units(move.row);
    }
    if (std::find(units.begin(), units.end(), 0) == units.end()) return false;
    std::vector<double> distances;
    sq_distances_to_centroids(distances);
    return farthest_row(distances) >= 0;
  }

  void follow_in_gram_space(const std::vector<std::pair<std::int64_t, std::int64_t>>& reseeded) {
    using Change = typename GramScores<T>::Change;
    std::vector<Change> changes;
    std::vector<std::int64_t> place(size(k_), -1);
    for (std::int64_t c = 0; c < k_; ++c) {
      if (!changed_[c]) continue;
      if (units_[c] == 0) {
        gram_scores_->keep(c);
        continue;
      }
      place[c] = static_cast<std::int64_t>(changes.size());
      changes.push_back({c, {}, {}});
    }
    for (const Move& move : moves_) {
      if (!group_.counts(move.row)) continue;
      if (place[move.to] >= 0) changes[place[move.to]].came.push_back(move.row);
      if (move.from >= 0 && place[move.from] >= 0) {
        changes[place[move.from]].left.push_back(move.row);
      }
    }
    gram_scores_->apply(changes, assignment_, team_);
    for (const auto& [cell, row] : reseeded) gram_scores_->set_row(cell, row, team_);
    // From the first update on every centroid is a row or a mean of rows, unless a given one never
    // won anything.
    if (direct_scores_ && n_updates_ == 1) {
      const bool all_known =
          std::find(units_.begin(), units_.end(), 0) == units_.end() ||
          static_cast<std::int64_t>(reseeded.size()) == std::count(units_.begin(), units_.end(), 0);
      if (all_known) direct_scores_.reset();
    }
  }

  // V, and the weighted mean of ||y||^2 that the history needs.
  void find_variance() {
    mean_sq_norm_ = weighted_mean(group_, sq_norms_);
    std::vector<std::int64_t> sum(size(n_features_), 0);
    for (std::int64_t c = 0; c < k_; ++c) {
      for (std::int64_t j = 0; j < n_features_; ++j) sum[size(j)] += sums_.of(c)[j];
    }
    std::vector<double> mean(size(n_features_));
    for (std::int64_t j = 0; j < n_features_; ++j) {
      mean[size(j)] = static_cast<double>(sum[size(j)]) /
                      static_cast<double>(group_.total_units()) *
                      (group_.mean_factor() * group_.row_unit());
    }
    const double within =
        mean_sq_norm_ - group_.kernels().distance.sq_norm(mean.data(), n_features_);
    variance_ = std::max(0.0, within) / static_cast<double>(n_features_);
  }

  // The mean squared distance to the means of the cells, by subtraction.
  double spread_within() const {
    double between = 0;
    for (std::int64_t c = 0; c < k_; ++c) {
      if (units_[c] == 0) continue;
      between += static_cast<double>(units_[c]) / static_cast<double>(group_.total_units()) *
                 mean_sq_norms_[c];
    }
    return mean_sq_norm_ - between;
  }

  double distortion_about_means() const {
    return std::ldexp(std::max(0.0, spread_within()), 2 * group_.frame().exponent);
  }

  // Of the returned centroids and assignment, in the group's frame. The sums of that assignment are
  // made first: they tell the means of its cells, and from those and the centroids the distortion
  // follows without a pass over the rows, unless the subtraction would cancel.
  double final_distortion() {
    update_sums();
    team_.for_ranges(k_, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t c = begin; c < end; ++c) {
        if (units_[c] == 0 || !changed_[c]) continue;
        FinishArgs<T> found = finish_args(c, true);
        finish(c, found);
      }
    });
    const double within = spread_within();
    if (within < mean_sq_norm_ / 8) {
      std::vector<double> distances;
      sq_distances_to_centroids(distances);
      return weighted_mean(group_, distances);
    }
    double total_off = 0;
    for (std::int64_t c = 0; c < k_; ++c) {
      if (units_[c] == 0) continue;
      total_off += static_cast<double>(units_[c]) / static_cast<double>(group_.total_units()) *
                   off_[size(c)];
    }
    return within + total_off;
  }

  LloydResult<T> result(std::int64_t n_iter, bool converged) {
    LloydResult<T> result;
    result.scaled_distortion = final_distortion();
    result.distortion = std::ldexp(result.scaled_distortion, 2 * group_.frame().exponent);
    result.assignment = std::move(assignment_);
    result.n_empty_cells = std::count(units_.begin(), units_.end(), 0);
    result.units = std::move(units_);
    result.history = std::move(history_);
    result.n_iter = n_iter;
    result.converged = converged;
    result.rows_assigned = rows_assigned_;
    result.rows_rechecked = nearest_.counters().n_rechecked;
    result.rows_exact = nearest_.counters().n_exact;
    result.cells_reseeded = cells_reseeded_;
    if (direct_scores_) result.products_skipped = products_skipped_ + direct_scores_->n_skipped();
    return result;
  }

  Group<T>& group_;
  std::int64_t k_, n_features_;
  const FitOptions& options_;
  const LloydPlan plan_;
  const Team& team_;
  T* centroids_;  // [k][n_features]
  CellSums<T> sums_;
  std::vector<std::int64_t> units_;       // [k] of the assignment that the sums were made from
  std::vector<double> mean_sq_norms_;     // [k]
  std::vector<double> off_;               // [k] squared distances from the means to the centroids
  std::vector<double> sq_norms_;          // [n]
  std::vector<std::int32_t> assignment_;  // [n]
  Moves moves_;
  std::vector<char> changed_;               // [k] cells whose members changed
  std::vector<std::int64_t> moved_;         // cells whose stored centroid changed
  std::vector<double> sq_shifts_;           // [k] of the centroids, where margins are kept
  std::vector<std::int64_t> single_value_;  // [k]
  std::optional<DirectScores<T>> direct_scores_;
  std::optional<GramScores<T>> gram_scores_;
  Nearest<T> nearest_;
  RowScratch<T> row_scratch_, previous_scratch_;
  Buffer<T> value_;
  std::vector<double> history_;
  double mean_sq_norm_ = 0, variance_ = 0, shift_ = 0;
  std::int64_t n_compared_ = 0;  // in the last pass
  bool settled_ = false;
  std::int64_t n_updates_ = 0, rows_assigned_ = 0, cells_reseeded_ = 0, products_skipped_ = 0;
};

}  // namespace

template <class T>
LloydResult<T> lloyd(Group<T>& group, const GramMatrix* gram, T* centroids, std::int64_t k,
                     const std::vector<std::int64_t>& seed_rows,
                     std::optional<SeededScores<T>> seeded, const FitOptions& options,
                     const LloydPlan& plan, const Team& team) {
  return Lloyd<T>(group, gram, centroids, k, seed_rows, std::move(seeded), options, plan, team)
      .run();
}

template LloydResult<float> lloyd(Group<float>&, const GramMatrix*, float*, std::int64_t,
                                  const std::vector<std::int64_t>&,
                                  std::optional<SeededScores<float>>, const FitOptions&,
                                  const LloydPlan&, const Team&);
template LloydResult<double> lloyd(Group<double>&, const GramMatrix*, double*, std::int64_t,
                                   const std::vector<std::int64_t>&,
                                   std::optional<SeededScores<double>>, const FitOptions&,
                                   const LloydPlan&, const Team&);

}  // namespace ddkern::kmeans
