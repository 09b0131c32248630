// SPDX-License-Identifier: Apache-2.0
// Exact nearest centroids from approximate scores.
//
// Four steps, each asked only where the one before could not tell:
//   1. the scan of approximate scores with their proven bounds,
//   2. float32 distances from the differences, with theirs, for the columns that may still win,
//   3. float64 distances, with theirs,
//   4. real arithmetic (ExactSum), which also finds the exact ties that go to the lowest index.
#pragma once

#include <cstdint>
#include <vector>

#include "core/parallel.h"
#include "kmeans/scores.h"

namespace ddkern::kmeans {

struct NearestCounters {
  std::int64_t n_rechecked = 0;  // rows that needed step 2
  std::int64_t n_exact = 0;      // rows that needed step 4
  std::int64_t n_compared = 0;   // distances of step 2
};

template <class T>
class Nearest {
 public:
  // centroids [n_columns][n_features] are the stored ones that `scores` approximates.
  Nearest(const Group<T>& group, const T* centroids, std::int64_t n_columns, int n_threads);

  // winners [kBlockPoints]: the nearest column of every point of the block. `near` [points of the
  // block] holds what was nearest before the columns moved, or is null.
  void block(Scores<T>& scores, std::int64_t block, const std::int32_t* near, std::int32_t* winners,
             int thread);

  // For every point of the block the n_nearest columns in order of distance, ties by index:
  // nearest [points in the block][n_nearest].
  void block_sorted(Scores<T>& scores, std::int64_t block, std::int64_t n_nearest,
                    std::int64_t* nearest, int thread);

  NearestCounters counters() const;

 private:
  struct Candidates {
    std::vector<std::int32_t> columns;
    std::vector<float> distances;
  };
  struct alignas(kThreadAlignment) Scratch {
    Candidates candidates;
    NearestCounters counters;
  };
  float* scores_scratch(int thread) {
    return scores_scratch_.data() + thread * n_columns_ * kBlockPoints;
  }
  void fetch_heads(std::int64_t first_point, std::uint32_t points) const;
  // Of the columns that may win for x, keeps those that float32 cannot rule out. `next` is
  // the row that comes after x.
  void drop_clear_losers(const T* x, const T* next, Candidates& candidates) const;
  // -1, 0, 1 as a is nearer than, exactly as near as, or farther than b.
  int compare(const T* x, std::int64_t a, double distance_a, std::int64_t b, double distance_b,
              bool* exact) const;

  const Group<T>& group_;
  const T* centroids_;
  std::int64_t n_columns_;
  Buffer<float> scores_scratch_;
  RowScratch<T> row_scratch_;
  std::vector<Scratch> scratch_;  // of every thread
};

extern template class Nearest<float>;
extern template class Nearest<double>;

}  // namespace ddkern::kmeans
