// SPDX-License-Identifier: Apache-2.0
// Exact, reproducible, weighted k-means over ragged groups: the contract of the library's core.
//
// For every group g find k_g centroids that lower  sum_i a_i min_k ||x_i - c_k||^2 / sum_i a_i  by
// Lloyd's iteration from the given or drawn seeds. docs/numerics.md defines every bit of the
// result; n_threads, max_memory_in_bytes, algorithm and the instruction-set level only change the
// time.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "core/parallel.h"
#include "core/rows.h"

namespace ddkern::kmeans {

enum class Init { plus_plus, random, array };
enum class Algorithm { automatic, gram, streaming };
// What the products under the certificate are made of.
enum class FastFormat { f32, bf16, bytes };

// Rows sorted by group, and what every group wants.
struct Groups {
  const std::int64_t* order;    // [n_rows] row numbers, or null for 0, 1, 2, ...
  const std::int64_t* offsets;  // [n_groups + 1] into order
  const std::int64_t* k;        // [n_groups]
  const std::int64_t* ids;      // [n_groups] key the random streams
  const std::uint64_t* seeds;   // [n_groups] key the random streams
  const double* sample_weight;  // [n_rows] by row number, or null for 1
  std::int64_t n_groups;

  std::int64_t n_rows(std::int64_t g) const { return offsets[g + 1] - offsets[g]; }
};

// For tests: replaces every score by the worst that its bound allows. `closer`: the nearest column
// looks far and the others near, which could hide who wins. `apart`: the other way round, which
// could hide who comes close.
enum class Mislead { no, closer, apart };

// The defaults are those of ddkern.quantize; tests/architecture compares the two.
struct FitOptions {
  Init init = Init::plus_plus;
  int n_init = 1;
  std::int64_t max_iter = 300;
  double tol = 1e-4;
  Algorithm algorithm = Algorithm::automatic;
  int n_threads = 1;
  std::int64_t max_memory_in_bytes = std::int64_t{1} << 30;
  Mislead mislead = Mislead::no;
};

struct GroupReport {
  double distortion = 0, inertia = 0;
  std::vector<double> history;  // [n_iter]
  std::int64_t n_iter = 0;
  bool converged = false;
  std::int64_t n_empty_cells = 0;  // cells of mass 0 in the result
  std::int64_t restart = 0;        // the one that was kept
  Algorithm algorithm = Algorithm::streaming;
  FastFormat products = FastFormat::f32;                               // in the last pass
  std::int64_t rows_assigned = 0, rows_rechecked = 0, rows_exact = 0;  // over all passes
  std::int64_t products_skipped = 0, cells_reseeded = 0;
  double seconds_prepare = 0, seconds_seed = 0, seconds_lloyd = 0;
};

// T is float, or double for the dtypes that float cannot hold.
template <class T>
struct FitOutput {
  T* centroids;                      // out [sum k][n_features]
  double* mass;                      // out [sum k]
  std::int64_t* assignment;          // out [n_rows] by row number: index within the group
  std::vector<GroupReport> reports;  // out [n_groups]
};

// `given` [sum k][n_features] are the centroids to start from, null unless init is array.
// `groups_done` is advanced as groups finish. Throws InvalidArgument when the data cannot be used;
// what `monitor` throws ends the call.
template <class T>
void fit(const RowSource& source, const Groups& groups, const FitOptions& options, const T* given,
         FitOutput<T>& output, Monitor& monitor, std::atomic<std::int64_t>& groups_done);

// Seeds alone: row numbers [sum k] and the k-means++ potential of every group [n_groups].
template <class T>
void seed(const RowSource& source, const Groups& groups, const FitOptions& options,
          std::int64_t* rows, double* potential, Monitor& monitor,
          std::atomic<std::int64_t>& groups_done);

// The n_nearest centroids of every row in its group, in order: assignment [n_rows][n_nearest],
// index within the group, and their Euclidean distances [n_rows][n_nearest] (or null).
template <class T>
void assign(const RowSource& source, const Groups& groups, const FitOptions& options,
            const T* centroids, std::int64_t n_nearest, std::int64_t* assignment, double* distance,
            Monitor& monitor, std::atomic<std::int64_t>& groups_done);

}  // namespace ddkern::kmeans
