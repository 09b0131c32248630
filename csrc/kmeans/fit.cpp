// SPDX-License-Identifier: Apache-2.0
// All groups of a call: plans, threads, restarts, results.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <optional>

#include "core/error.h"
#include "core/float_mode.h"
#include "kmeans/cost_model.h"
#include "kmeans/gram.h"
#include "kmeans/kmeans.h"
#include "kmeans/lloyd.h"
#include "kmeans/nearest.h"
#include "kmeans/seeding.h"

namespace ddkern::kmeans {
namespace {

class Stopwatch {
 public:
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - start_).count();
    start_ = now;
    return seconds;
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// first[g]: where the centroids of group g begin.
std::vector<std::int64_t> centroid_offsets(const Groups& groups) {
  std::vector<std::int64_t> first(static_cast<std::size_t>(groups.n_groups) + 1, 0);
  for (std::int64_t g = 0; g < groups.n_groups; ++g) first[g + 1] = first[g] + groups.k[g];
  return first;
}

template <class T>
Group<T> make_group(const RowReader<T>& reader, const Groups& groups, std::int64_t g,
                    const Kernels<T>& kernels) {
  const std::int64_t begin = groups.offsets[g];
  return Group<T>(reader, groups.order == nullptr ? nullptr : groups.order + begin, begin,
                  groups.n_rows(g), groups.sample_weight, kernels);
}

FastFormat fastest_format(const DotsOps& dots) {
  if (dots.fast_bytes != nullptr) return FastFormat::bytes;
  return dots.fast_bf16 != nullptr ? FastFormat::bf16 : FastFormat::f32;
}

// With restarts the bytes are needed again, for seeding.
LloydPlan lloyd_plan(const GroupPlan& plan, const FitOptions& options, const DotsOps& dots) {
  LloydPlan lloyd;
  lloyd.cache_scores = plan.cache_scores;
  lloyd.margins = plan.margins;
  lloyd.keep_finer = plan.keeps_finer_blocks;
  if (options.n_init == 1) {
    lloyd.finer_format = dots.fast_bf16 != nullptr ? FastFormat::bf16 : FastFormat::f32;
  }
  return lloyd;
}

template <class T>
GroupShape shape_of(const Groups& groups, std::int64_t g, const RowReader<T>& reader,
                    const Kernels<T>& kernels) {
  return {groups.n_rows(g),  reader.n_features(),
          groups.k[g],       static_cast<std::int64_t>(sizeof(T)),
          reader.in_place(), fastest_format(kernels.dots)};
}

// Runs solve(g, budget, team) for every group: one group a thread, or one after another with all
// threads; groups that would leave a thread idle at the end are shared. check(g, team) throws what
// solve would say of the rows of group g alone.
template <class Solve, class CheckRows>
void for_groups(const std::vector<GroupShape>& shapes, const FitOptions& options, Monitor& monitor,
                std::atomic<std::int64_t>& groups_done, const Solve& solve,
                const CheckRows& check) {
  const StandardFloatMode float_mode;
  const PoolBudget pool_budget(options.max_memory_in_bytes);
  const auto n_groups = static_cast<std::int64_t>(shapes.size());
  const int n_threads = safe_threads(options.n_threads);
  std::atomic<bool> cancelled{false};
  const Team team(n_threads, &monitor, &cancelled);
  std::vector<std::int64_t> by_cost(shapes.size());
  std::iota(by_cost.begin(), by_cost.end(), 0);
  const auto cost = [&](std::int64_t g) {
    const GroupShape& shape = shapes[g];
    return static_cast<double>(shape.n_rows) * static_cast<double>(shape.n_features) *
           static_cast<double>(shape.k + 8);
  };
  std::stable_sort(by_cost.begin(), by_cost.end(),
                   [&](std::int64_t a, std::int64_t b) { return cost(a) > cost(b); });
  std::int64_t largest_bytes = 0, largest_least_bytes = 0;
  for (const GroupShape& shape : shapes) {
    largest_bytes = std::max(largest_bytes, working_set_bytes(shape, options.init));
    largest_least_bytes = std::max(largest_least_bytes, least_bytes(shape, options, 1));
  }
  std::int64_t n_shared = n_groups;
  if (one_group_a_thread(n_groups, n_threads, largest_bytes) &&
      largest_least_bytes <= options.max_memory_in_bytes / n_threads) {
    n_shared = n_groups % n_threads;
  }
  const std::int64_t share = options.max_memory_in_bytes / n_threads;
  if (options.algorithm == Algorithm::gram) {
    // Only a forced Gram space can fail to fit, and then no work is done in vain.
    std::vector<char> shared(shapes.size(), 0);
    for (std::int64_t i = 0; i < n_shared; ++i) shared[by_cost[i]] = 1;
    for (std::size_t g = 0; g < shapes.size(); ++g) {
      plan_group(shapes[g], options, shared[g] ? options.max_memory_in_bytes : share,
                 shared[g] ? n_threads : 1);
    }
  }
  try {
    for (std::int64_t i = 0; i < n_shared; ++i) {
      solve(by_cost[i], options.max_memory_in_bytes, team);
      groups_done.fetch_add(1);
    }
    team.for_queue(n_groups - n_shared, [&](std::int64_t i, std::int64_t, int thread) {
      solve(by_cost[n_shared + i], share, team.inner(thread));
      groups_done.fetch_add(1);
    });
  } catch (const InvalidArgument&) {
    // Where several groups are at fault, chance has picked this one. The call should always say the
    // same, so the rows are looked at once more, group by group.
    std::atomic<bool> cancelled_again{false};
    const Team again(n_threads, &monitor, &cancelled_again);
    for (std::int64_t g = 0; g < n_groups; ++g) check(g, again);
    throw;
  }
}

template <class T>
void copy_rows(const Group<T>& group, const std::vector<std::int64_t>& rows, T* to,
               const Team& team) {
  team.for_ranges(static_cast<std::int64_t>(rows.size()), 1,
                  [&](std::int64_t begin, std::int64_t end, int) {
                    for (std::int64_t c = begin; c < end; ++c) {
                      T* out = to + c * group.n_features();
                      const T* x = group.row(rows[static_cast<std::size_t>(c)], out);
                      if (x != out) std::copy(x, x + group.n_features(), out);
                    }
                  });
}

void check_positive_rows(std::int64_t n_positive, const Groups& groups, std::int64_t g) {
  if (n_positive >= groups.k[g]) return;
  throw InvalidArgument("k is " + std::to_string(groups.k[g]) + " for group " +
                        std::to_string(groups.ids[g]) + ", which has " +
                        std::to_string(n_positive) +
                        " rows whose weight counts; k must not be larger");
}

// For for_groups(): what the rows of a group are to be blamed for, and nothing kept of them. With
// `seeded`, k of them must count.
template <class T>
void check_rows(const RowReader<T>& reader, const Groups& groups, std::int64_t g,
                const Kernels<T>& kernels, bool seeded, const Team& team) {
  Group<T> group = make_group(reader, groups, g, kernels);
  if (seeded) check_positive_rows(group.n_positive(), groups, g);
  Frame<T> any;
  any.centre.assign(static_cast<std::size_t>(group.n_features()), 0);
  group.prepare_in_frame(any, Residency{}, FastFormat::f32, team);
}

template <class T>
PlusPlusSeeds<T> draw_seeds(const Group<T>& group, const GramMatrix* gram,
                            const FitOptions& options, const GroupPlan& plan, std::int64_t k,
                            const Draws& draws, const Team& team) {
  if (options.init == Init::plus_plus) {
    return seed_plus_plus(group, gram, k, draws, plan.candidates_kept, plan.cache_scores,
                          options.mislead != Mislead::no, team);
  }
  return {seed_random(group, k, draws, team), {}};
}

template <class T>
void fit_group(const RowReader<T>& reader, const Groups& groups, std::int64_t g,
               std::int64_t first_centroid, const FitOptions& options, const Kernels<T>& kernels,
               const GroupShape& shape, std::int64_t budget, const Team& team, const T* given,
               FitOutput<T>& output) {
  GroupReport& report = output.reports[g];
  Stopwatch watch;
  const std::int64_t k = groups.k[g], n_features = reader.n_features();
  const GroupPlan plan = plan_group(shape, options, budget, team.n_threads());
  report.algorithm = plan.algorithm;
  Group<T> group = make_group(reader, groups, g, kernels);
  check_positive_rows(group.n_positive(), groups, g);
  group.prepare(plan.residency, plan.format, plan.head, plan.needs_f32, team);
  std::optional<GramMatrix> matrix;
  if (plan.algorithm == Algorithm::gram) matrix.emplace(group, team);
  const GramMatrix* gram = matrix ? &*matrix : nullptr;
  report.seconds_prepare = watch.lap();

  // The only run works in place; given centroids make no restarts.
  const int n_runs = options.init == Init::array ? 1 : options.n_init;
  T* const kept = output.centroids + first_centroid * n_features;
  Buffer<T> tried(n_runs > 1 ? k * n_features : 0);
  T* const centroids = n_runs > 1 ? tried.data() : kept;
  std::optional<LloydResult<T>> best;
  for (int restart = 0; restart < n_runs; ++restart) {
    std::vector<std::int64_t> seed_rows;
    std::optional<SeededScores<T>> seeded;
    if (options.init == Init::array) {
      const T* from = given + first_centroid * n_features;
      team.for_ranges(k, 1, [&](std::int64_t begin, std::int64_t end, int) {
        std::copy(from + begin * n_features, from + end * n_features,
                  centroids + begin * n_features);
      });
    } else {
      const Draws draws{{groups.seeds[g], groups.ids[g]}, static_cast<std::uint32_t>(restart)};
      PlusPlusSeeds<T> drawn = draw_seeds(group, gram, options, plan, k, draws, team);
      seed_rows = std::move(drawn.seeds.rows);
      if (drawn.scores) seeded.emplace(std::move(*drawn.scores));
      copy_rows(group, seed_rows, centroids, team);
    }
    report.seconds_seed += watch.lap();
    LloydResult<T> result = lloyd(group, gram, centroids, k, seed_rows, std::move(seeded), options,
                                  lloyd_plan(plan, options, kernels.dots), team);
    report.seconds_lloyd += watch.lap();
    report.rows_assigned += result.rows_assigned;
    report.rows_rechecked += result.rows_rechecked;
    report.rows_exact += result.rows_exact;
    report.products_skipped += result.products_skipped;
    report.cells_reseeded += result.cells_reseeded;
    if (!best || result.scaled_distortion < best->scaled_distortion) {
      best.emplace(std::move(result));
      report.restart = restart;
      if (centroids != kept) std::copy(centroids, centroids + k * n_features, kept);
    }
  }

  for (std::int64_t c = 0; c < k; ++c) {
    output.mass[first_centroid + c] =
        static_cast<double>(best->units[c]) / static_cast<double>(group.total_units());
  }
  for (std::int64_t i = 0; i < group.n(); ++i) {
    output.assignment[group.row_number(i)] = best->assignment[static_cast<std::size_t>(i)];
  }
  report.distortion = best->distortion;
  report.inertia = best->distortion * group.total_weight();
  report.history = std::move(best->history);
  report.n_iter = best->n_iter;
  report.converged = best->converged;
  report.n_empty_cells = best->n_empty_cells;
  report.products = group.format();
}

// Centroids may be anything that is finite, down to denormals, and 2^-exponent must be finite too.
constexpr int kLargestFrameExponent = 1000;

// A frame for assign(): around the mean of the group's centroids, which is near the data or, if
// not, costs nothing but speed. Any frame is correct.
template <class T>
Frame<T> frame_of(const T* centroids, std::int64_t k, std::int64_t n_features) {
  double largest = 0;
  for (std::int64_t i = 0; i < k * n_features; ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(centroids[i])));
  }
  Frame<T> frame;
  if (largest != 0) std::frexp(largest, &frame.exponent);
  frame.exponent = std::clamp(frame.exponent, -kLargestFrameExponent, kLargestFrameExponent);
  frame.centre.resize(static_cast<std::size_t>(n_features));
  for (std::int64_t j = 0; j < n_features; ++j) {
    double sum = 0;
    for (std::int64_t c = 0; c < k; ++c) {
      sum += std::ldexp(static_cast<double>(centroids[c * n_features + j]), -frame.exponent);
    }
    frame.centre[j] = static_cast<T>(sum / static_cast<double>(k));
  }
  return frame;
}

// The Euclidean distance of assign() (docs/numerics.md section 10). Where the squares leave the
// range of float64 the difference is brought near 1 first; in any other case that would change no
// bit. `difference` [n_features] is scratch.
template <class T>
double euclidean_distance(const T* x, const T* c, std::int64_t n_features,
                          const DistanceOps& distance, double* difference) {
  const double squared = distance(x, c, 1.0, n_features);
  if (squared >= kSmallestCertain && squared <= 1 / kSmallestCertain) return std::sqrt(squared);
  double largest = 0;
  for (std::int64_t j = 0; j < n_features; ++j) {
    difference[j] = static_cast<double>(x[j]) - static_cast<double>(c[j]);
    largest = std::max(largest, std::abs(difference[j]));
  }
  if (largest == 0) return 0;
  int exponent = 0;
  std::frexp(largest, &exponent);
  for (std::int64_t j = 0; j < n_features; ++j) {
    difference[j] = std::ldexp(difference[j], -exponent);
  }
  return std::ldexp(std::sqrt(distance.sq_norm(difference, n_features)), exponent);
}

template <class T>
std::vector<GroupShape> shapes_of(const Groups& groups, const RowReader<T>& reader,
                                  const Kernels<T>& kernels) {
  std::vector<GroupShape> shapes;
  for (std::int64_t g = 0; g < groups.n_groups; ++g) {
    shapes.push_back(shape_of(groups, g, reader, kernels));
  }
  return shapes;
}

}  // namespace

template <class T>
void fit(const RowSource& source, const Groups& groups, const FitOptions& options, const T* given,
         FitOutput<T>& output, Monitor& monitor, std::atomic<std::int64_t>& groups_done) {
  const RowReader<T> reader(source);
  const Kernels<T> kernels(active_isa());
  const auto first = centroid_offsets(groups);
  const auto shapes = shapes_of(groups, reader, kernels);
  output.reports.assign(static_cast<std::size_t>(groups.n_groups), GroupReport{});
  for_groups(
      shapes, options, monitor, groups_done,
      [&](std::int64_t g, std::int64_t budget, const Team& team) {
        fit_group(reader, groups, g, first[g], options, kernels, shapes[g], budget, team, given,
                  output);
      },
      [&](std::int64_t g, const Team& team) {
        check_rows(reader, groups, g, kernels, true, team);
      });
}

template <class T>
void seed(const RowSource& source, const Groups& groups, const FitOptions& options,
          std::int64_t* rows, double* potential, Monitor& monitor,
          std::atomic<std::int64_t>& groups_done) {
  const RowReader<T> reader(source);
  const Kernels<T> kernels(active_isa());
  const auto first = centroid_offsets(groups);
  const auto shapes = shapes_of(groups, reader, kernels);
  for_groups(
      shapes, options, monitor, groups_done,
      [&](std::int64_t g, std::int64_t budget, const Team& team) {
        GroupPlan plan = plan_group(shapes[g], options, budget, team.n_threads());
        plan.cache_scores = false;  // nobody iterates
        Group<T> group = make_group(reader, groups, g, kernels);
        check_positive_rows(group.n_positive(), groups, g);
        group.prepare(plan.residency, plan.format, false, plan.needs_f32, team);
        std::optional<GramMatrix> matrix;
        if (plan.algorithm == Algorithm::gram) matrix.emplace(group, team);
        const Draws draws{{groups.seeds[g], groups.ids[g]}, 0};
        const PlusPlusSeeds<T> drawn =
            draw_seeds(group, matrix ? &*matrix : nullptr, options, plan, groups.k[g], draws, team);
        for (std::int64_t c = 0; c < groups.k[g]; ++c) {
          rows[first[g] + c] = group.row_number(drawn.seeds.rows[static_cast<std::size_t>(c)]);
        }
        potential[g] = drawn.seeds.potential;
      },
      [&](std::int64_t g, const Team& team) {
        check_rows(reader, groups, g, kernels, true, team);
      });
}

template <class T>
void assign(const RowSource& source, const Groups& groups, const FitOptions& options,
            const T* centroids, std::int64_t n_nearest, std::int64_t* assignment, double* distance,
            Monitor& monitor, std::atomic<std::int64_t>& groups_done) {
  const RowReader<T> reader(source);
  const Kernels<T> kernels(active_isa());
  const auto first = centroid_offsets(groups);
  const auto shapes = shapes_of(groups, reader, kernels);
  const std::int64_t n_features = reader.n_features();
  for_groups(
      shapes, options, monitor, groups_done,
      [&](std::int64_t g, std::int64_t budget, const Team& team) {
        const std::int64_t k = groups.k[g];
        const T* mine = centroids + first[g] * n_features;
        Group<T> group = make_group(reader, groups, g, kernels);
        FitOptions streaming = options;
        streaming.algorithm = Algorithm::streaming;
        streaming.init = Init::array;
        const GroupPlan plan = plan_group(shapes[g], streaming, budget, team.n_threads());
        group.prepare_in_frame(frame_of(mine, k, n_features), plan.residency, plan.format, team);
        DirectScores<T> scores(group, k, false, team.n_threads());
        scores.mislead(misleading(options.mislead, mine));
        std::vector<std::int64_t> all(static_cast<std::size_t>(k));
        std::iota(all.begin(), all.end(), 0);
        scores.update(mine, all, {}, team);
        Nearest<T> nearest(group, mine, k, team.n_threads());
        RowScratch<T> row_scratch(team.n_threads(), n_features);
        RowScratch<double> difference_scratch(distance == nullptr ? 0 : team.n_threads(),
                                              n_features);
        team.for_ranges(group.n_blocks(), 1, [&](std::int64_t begin, std::int64_t end, int thread) {
          std::vector<std::int64_t> sorted(static_cast<std::size_t>(kBlockPoints * n_nearest));
          for (std::int64_t b = begin; b < end; ++b) {
            if (n_nearest == 1) {
              std::int32_t winners[kBlockPoints];
              nearest.block(scores, b, nullptr, winners, thread);
              std::copy(winners, winners + kBlockPoints, sorted.begin());
            } else {
              nearest.block_sorted(scores, b, n_nearest, sorted.data(), thread);
            }
            const std::int64_t last = std::min(group.n(), (b + 1) * kBlockPoints);
            for (std::int64_t i = b * kBlockPoints; i < last; ++i) {
              const std::int64_t* from = sorted.data() + (i - b * kBlockPoints) * n_nearest;
              const std::int64_t to = group.row_number(i) * n_nearest;
              std::copy(from, from + n_nearest, assignment + to);
              if (distance == nullptr) continue;
              const T* x = group.row(i, row_scratch.get(thread));
              for (std::int64_t m = 0; m < n_nearest; ++m) {
                distance[to + m] =
                    euclidean_distance(x, mine + from[m] * n_features, n_features, kernels.distance,
                                       difference_scratch.get(thread));
              }
            }
          }
        });
      },
      [&](std::int64_t g, const Team& team) {
        check_rows(reader, groups, g, kernels, false, team);
      });
}

template void fit(const RowSource&, const Groups&, const FitOptions&, const float*,
                  FitOutput<float>&, Monitor&, std::atomic<std::int64_t>&);
template void fit(const RowSource&, const Groups&, const FitOptions&, const double*,
                  FitOutput<double>&, Monitor&, std::atomic<std::int64_t>&);
template void seed<float>(const RowSource&, const Groups&, const FitOptions&, std::int64_t*,
                          double*, Monitor&, std::atomic<std::int64_t>&);
template void seed<double>(const RowSource&, const Groups&, const FitOptions&, std::int64_t*,
                           double*, Monitor&, std::atomic<std::int64_t>&);
template void assign(const RowSource&, const Groups&, const FitOptions&, const float*, std::int64_t,
                     std::int64_t*, double*, Monitor&, std::atomic<std::int64_t>&);
template void assign(const RowSource&, const Groups&, const FitOptions&, const double*,
                     std::int64_t, std::int64_t*, double*, Monitor&, std::atomic<std::int64_t>&);

}  // namespace ddkern::kmeans
