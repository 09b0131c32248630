// SPDX-License-Identifier: Apache-2.0
// accumulate: rows into the exact integer sums of cells, and sums into centroids.
//
//   v[j] = row[j] * scale - shift[j]                 (float64, |v| < 2^51)
//   q[j] = v[j] rounded to an integer, ties to even
//   add:     sum[j] += q[j]                          or += RN(weight * q[j])
//   finish:  centroid[j] = fl_T((fl64(sum[j]) / total * factor + centre[j]) * unscale)
//
// docs/numerics.md sections 4 and 5. Integer addition is exact, so rows may come and go in any
// order and on any thread. The same bits at every level.
#pragma once

#include <cstdint>

#include "core/isa.h"

namespace ddkern::kmeans {

template <class T>
struct AccumulateOps {
  void (*add)(const T* row, double scale, const double* shift, std::int64_t n, double weight,
              std::int64_t* sum) noexcept;
  // Out of one cell and into another, in one pass over the row.
  void (*move)(const T* row, double scale, const double* shift, std::int64_t n, double weight,
               std::int64_t* from, std::int64_t* to) noexcept;
  // means (out, may be null) receives fl64(sum) / total * factor.
  void (*finish)(const std::int64_t* sum, double total, double factor, const T* centre,
                 double unscale, std::int64_t n, double* means, T* centroid) noexcept;
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
