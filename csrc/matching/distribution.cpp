// SPDX-License-Identifier: Apache-2.0
#include "matching/distribution.h"

#include <algorithm>
#include <atomic>

#include "core/buffer.h"
#include "core/float_mode.h"
#include "core/parallel.h"

namespace ddkern::matching {
namespace {

// Features that are handed out at a time: four cache lines of a row.
constexpr std::int64_t kFeatures = 64;
// Work for which it is worth waking another thread, which takes some microseconds: values that are
// added, and pairs of points times features.
constexpr std::int64_t kValuesPerThread = 64 * 1024;
constexpr std::int64_t kProductsPerThread = 256 * 1024;

int workers(std::int64_t work, std::int64_t per_thread, int n_threads) {
  const auto useful = std::max<std::int64_t>(1, work / per_thread);
  return static_cast<int>(std::min<std::int64_t>(safe_threads(n_threads), useful));
}

// run(number, worker) for all numbers below n, one at a time.
template <class Run>
void for_each(std::int64_t n, int n_workers, const Run& run) {
  std::atomic<bool> cancelled{false};
  Team(n_workers, nullptr, &cancelled)
      .for_ranges(n, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
        for (std::int64_t i = begin; i < end; ++i) run(i, worker);
      });
}

std::int64_t count_panels(const PointSet& points) { return (points.n + kPanel - 1) / kPanel; }

// A set of points as panels.
class Panels {
 public:
  Panels(const PointSet& points, std::int64_t n_features, const MmdOps& ops, int n_workers)
      : points_(points), n_features_(n_features),
        values_(count_panels(points) * n_features * kPanel), norms_(count_panels(points) * kPanel) {
    for_each(size(), n_workers, [&](std::int64_t i, int) {
      ops.pack(points_at(i), n_features, rows_at(i), values_.data() + i * n_features * kPanel,
               norms_.data() + i * kPanel);
    });
  }

  std::int64_t size() const { return count_panels(points_); }
  Panel operator[](std::int64_t i) const {
    return {points_at(i), rows_at(i), values_.data() + i * n_features_ * kPanel,
            norms_.data() + i * kPanel};
  }

 private:
  std::int64_t points_at(std::int64_t i) const {
    return std::min<std::int64_t>(kPanel, points_.n - i * kPanel);
  }
  const float* rows_at(std::int64_t i) const { return points_.rows + i * kPanel * n_features_; }

  PointSet points_;
  std::int64_t n_features_;
  Buffer<double> values_;
  Buffer<double> norms_;
};

// The sum over pairs of a set with itself: those of two panels once, and then twice.
double sum_within(const MmdOps& ops, const MmdKernel& kernel, const Panels& points,
                  std::int64_t i) {
  double apart = 0;
  for (std::int64_t j = i + 1; j < points.size(); ++j) {
    apart += ops.sum(kernel, points[i], points[j]);
  }
  return ops.sum(kernel, points[i], points[i]) + 2 * apart;
}

double sum_between(const MmdOps& ops, const MmdKernel& kernel, const Panel& x, const Panels& y) {
  double total = 0;
  for (std::int64_t j = 0; j < y.size(); ++j) total += ops.sum(kernel, x, y[j]);
  return total;
}

}  // namespace

void segment_means(const SegmentCall& call, int n_threads) {
  const StandardFloatMode float_mode;
  const auto& ops = segment_mean_ops(active_isa());
  const std::int64_t n_pieces = (call.n_features + kFeatures - 1) / kFeatures;
  for_each(n_pieces, workers(call.n_rows * call.n_features, kValuesPerThread, n_threads),
           [&](std::int64_t piece, int) {
             const std::int64_t begin = piece * kFeatures;
             ops.means({call.n_rows, call.n_features, call.n_classes, begin,
                        std::min(call.n_features, begin + kFeatures), call.values, call.labels,
                        call.counts, call.means});
           });
}

MmdMeans mmd_means(const PointSet& x, const PointSet& y, const MmdKernel& kernel, int n_threads) {
  const StandardFloatMode float_mode;
  const auto& ops = mmd_ops(active_isa());
  const std::int64_t n_pairs = x.n * x.n / 2 + x.n * y.n + y.n * y.n / 2;
  const int n_workers = workers(n_pairs * kernel.n_features, kProductsPerThread, n_threads);
  const Panels of_x(x, kernel.n_features, ops, n_workers);
  const Panels of_y(y, kernel.n_features, ops, n_workers);
  const std::int64_t n_x = of_x.size(), n_y = of_y.size();
  Buffer<double> sums(2 * n_x + n_y);
  for_each(sums.size(), n_workers, [&](std::int64_t i, int) {
    if (i < n_x) {
      sums[i] = sum_within(ops, kernel, of_x, i);
    } else if (i < n_x + n_y) {
      sums[i] = sum_within(ops, kernel, of_y, i - n_x);
    } else {
      sums[i] = sum_between(ops, kernel, of_x[i - n_x - n_y], of_y);
    }
  });
  const auto add = [&](std::int64_t first, std::int64_t count) {
    double total = 0;
    for (std::int64_t i = first; i < first + count; ++i) total += sums[i];
    return total;
  };
  const auto n = static_cast<double>(x.n), m = static_cast<double>(y.n);
  return {add(0, n_x) / (n * n), add(n_x + n_y, n_x) / (n * m), add(n_x, n_y) / (m * m)};
}

void mmd_pull(const PointSet& x, const PointSet& y, const MmdKernel& kernel, double own,
              double cross, float* out, int n_threads) {
  const StandardFloatMode float_mode;
  const auto& ops = mmd_ops(active_isa());
  const std::int64_t n_features = kernel.n_features;
  const int n_workers = workers(x.n * (x.n + y.n) * n_features, kProductsPerThread, n_threads);
  const Panels of_x(x, n_features, ops, n_workers), of_y(y, n_features, ops, n_workers);
  const std::int64_t n_values = kPanel * n_features;
  Buffer<double> sums(n_workers * n_values);
  for_each(of_x.size(), n_workers, [&](std::int64_t i, int worker) {
    double* const sum = sums.data() + worker * n_values;
    std::fill(sum, sum + n_values, 0.0);
    for (std::int64_t j = 0; j < of_x.size(); ++j) ops.pull(kernel, of_x[i], of_x[j], own, sum);
    for (std::int64_t j = 0; j < of_y.size(); ++j) ops.pull(kernel, of_x[i], of_y[j], cross, sum);
    float* const to = out + i * n_values;
    for (std::int64_t at = 0; at < of_x[i].n * n_features; ++at) {
      to[at] = static_cast<float>(sum[at]);
    }
  });
}

}  // namespace ddkern::matching
