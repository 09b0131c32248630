// SPDX-License-Identifier: Apache-2.0
// scan: from approximate scores to certain winners.
//
// A score is s_k = ||c_k||^2 - 2 <x, c_k> = base[k] + product, known to within
//     E_k = p * u[k] + q * v[k] + e[k]                   (p, q of the point; u, v, e of the column)
// The winner is certain when its s_k + E_k lies below s_j - E_j of every other column. The columns
// that may still win are those with s_k - E_k <= upper, upper = min_j (s_j + E_j).
//
// The bounds passed in leave room for the roundings of this op itself.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "kmeans/block.h"

namespace ddkern::kmeans {

struct ScanArgs {
  const float* products;  // [...][kBlockPoints]
  // Those to look at, ascending, for either half of the block, or null for the first n_columns;
  // they index all arrays.
  const std::int32_t* columns[2];
  std::int64_t n_columns[2];
  const float* base;
  const float* p;  // [kBlockPoints]
  const float* q;  // [kBlockPoints]
  const float* u;
  const float* v;
  const float* e;
  float most_u, most_v, most_e;  // the largest of them
};

struct ScanResult {
  std::int32_t winner[kBlockPoints];     // column of the least s - E
  std::int32_t runner_up[kBlockPoints];  // column of the second least; meaningful with two columns
  float upper[kBlockPoints];
  std::uint32_t certain;  // bit p: no other column than the winner may win
  std::uint32_t two;      // bit p: none but the winner and the runner-up may
};

// The columns that the scan cannot rule out for a point, ascending; returns how many. out: as many
// as were scanned.
inline std::int64_t list_candidates(const ScanArgs& args, const ScanResult& result, int point,
                                    std::int32_t* out) {
  const std::int32_t* const columns = args.columns[point / kHalfBlock];
  const std::int64_t n_columns = args.n_columns[point / kHalfBlock];
  const float *products = args.products + point, *base = args.base, *u = args.u, *v = args.v,
              *e = args.e;
  const float p = args.p[point], q = args.q[point], upper = result.upper[point];
  std::int64_t n = 0;
  for (std::int64_t i = 0; i < n_columns; ++i) {
    const std::int32_t k = columns != nullptr ? columns[i] : static_cast<std::int32_t>(i);
    const float bound = p * u[k] + q * v[k] + e[k];
    const float score = products[k * std::int64_t{kBlockPoints}] + base[k];
    // Without a branch, which nobody could predict.
    out[n] = k;
    n += !(score - bound > upper);
  }
  return n;
}

struct ScanOps {
  // No number among the arguments may be NaN.
  void (*scan)(const ScanArgs& args, ScanResult& result) noexcept;
};

extern const ScanOps scan_base;
extern const ScanOps scan_avx2;
extern const ScanOps scan_avx512;

const ScanOps& scan_ops(Isa isa);

}  // namespace ddkern::kmeans
