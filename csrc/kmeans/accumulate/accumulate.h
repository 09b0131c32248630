// SPDX-License-Identifier: Apache-2.0
// accumulate: rows into the exact integer sums of cells, and sums into centroids.
//
//   v[j] = row[j] * scale - shift[j]                 (float64, |v| < 2^51)
//   q[j] = v[j] rounded to an integer, ties to even
//   add:     sum[j] += q[j]                          or += RN(weight * q[j])
//   move:    sum[j] -= the same, to[j] += the same
//            sq_norm = sum of v[j]^2                 in the order of d64 (section 6)
//   finish:  mean[j] = fl64(sum[j]) / total * factor
//            centroid[j] = fl_T((mean[j] + centre[j]) * unscale)
//
// docs/numerics.md sections 4, 5 and 10. Integer addition is exact, so rows may come and go in any
// order and on any thread. The same bits at every level.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "core/simd/prefetch.h"

namespace ddkern::kmeans {

// Several rows into one sum, or out of it and each into another: a few features of all rows at a
// time, so that the sum stays in registers and is loaded and stored once. Or, where there is no one
// sum, each into a sum of its own, row after row.
constexpr int kRowsAtOnce = 32;

template <class T>
struct AddArgs {
  const T* const* rows;     // [n_rows] pointers to [n]
  int n_rows;               // at most kRowsAtOnce
  const double* weights;    // [n_rows], or null for 1
  std::int64_t* const* to;  // [n_rows] the sums [n] that the rows go to, or null to add them
  double scale;
  const double* shift;  // [n]
  std::int64_t n;
  std::int64_t* sum;  // inout [n], or null where rows only come, each to one of `to`
  double* sq_norms;   // out [n_rows], or null
  RowsAhead ahead;    // of the next call
};

// From a sum to a centroid, and on the way what is asked about both: sums of squares in the order
// of d64.
template <class T>
struct FinishArgs {
  const std::int64_t* sum;  // [n]
  double total, factor;
  const T* centre;  // [n]
  double scale, unscale;
  std::int64_t n;
  bool keep;            // the centroid as it is, and look at it only
  T* centroid;          // inout [n]
  double sq_norm = 0;   // out sum of mean^2
  double sq_off = 0;    // out sum of ((centroid * scale - centre) - mean)^2
  double sq_shift = 0;  // out squared distance from the centroid as it was
  bool moved = false;   // out whether any bit of it changed
};

template <class T>
struct AccumulateOps {
  void (*add)(const AddArgs<T>& args) noexcept;
  void (*finish)(FinishArgs<T>& args) noexcept;
};

struct AccumulateTable {
  AccumulateOps<float> f32;
  AccumulateOps<double> f64;
};

extern const AccumulateTable accumulate_base;
extern const AccumulateTable accumulate_avx2;
extern const AccumulateTable accumulate_avx512;

template <class T>
const AccumulateOps<T>& accumulate_ops(Isa isa);

}  // namespace ddkern::kmeans
