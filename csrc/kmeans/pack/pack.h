// SPDX-License-Identifier: Apache-2.0
// pack: look at rows, centre and scale them, and lay them out for the product kernels.
//
//   y[j] = fl32(fl32(row[j] * scale) - centre[j])          T = float
//   y[j] = fl32(row[j] * scale - centre[j])                T = double
//
// docs/numerics.md section 3. The same bits at every level, except for the bfloat16 layout, which
// only exists where the CPU multiplies bfloat16.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "core/simd/prefetch.h"
#include "kmeans/byte_layout.h"

namespace ddkern::kmeans {

// Half of the bits of the sum that the centre is made from: 2^20 units a largest value.
constexpr int kCentreBits = 20;

// A power of two 2^exponent as two factors, for float cannot hold 2^148, which lifts denormals.
template <class T>
struct PowerOfTwo {
  T first, second;
};

// The first look at up to kBlockPoints rows, while they come into cache.
template <class T>
struct SurveyArgs {
  const T* const* rows;  // [n_rows] pointers to [n_features]
  int n_rows;
  std::int64_t n_features;
  PowerOfTwo<T> to_grid;  // of the sums
  T* low;                 // inout [n_features] least value of every feature
  T* high;                // inout [n_features] largest
  std::int64_t* sums;  // inout [n_features] += the rows in units of the grid, ties to even; garbage
                       // when a value is 2^22 units or more
  double max_abs;      // out largest |value|; meaningless when not finite
  bool finite;         // out
};

template <class T>
struct PackArgs {
  const T* const* rows;  // [n_rows] pointers to [n_features]
  int n_rows;            // 0 .. kBlockPoints; missing rows become zeros
  std::int64_t n_features;
  PowerOfTwo<T> scale;
  const T* centre;             // [n_features]
  float* packed_f32;           // out [n_features][kBlockPoints], or null
  std::uint32_t* packed_bf16;  // out [ceil(n_features / 2)][kBlockPoints], or null
  double* sq_norms;      // out [kBlockPoints] sum of (row * scale - centre)^2, 16 lanes of float64;
                         // with packed_bf16 alone: of y^2, in float32
  double* sq_residuals;  // out [kBlockPoints] sum of (y - bfloat16(y))^2; 0 without packed_bf16
};

// One centroid, centred and scaled like the rows but in float64 first: z = c * 2^-e - centre.
template <class T>
struct ColumnArgs {
  const T* centroid;  // [n_features]
  double scale;
  const T* centre;  // [n_features]
  std::int64_t n_features;
  float* column_f32;           // out [n_features] -2 * fl32(z), or null
  std::uint32_t* column_bf16;  // out [ceil(n_features / 2)] -2 * bfloat16(z), or null
  double sq_norm;              // out sum of z^2
  double sq_residual;          // out sum of (z - what was packed)^2
  double sq_norm_uncentred;    // out sum of (c * 2^-e)^2
};

// Rows as bytes, or 16 bits where a segment is wide, segment after segment.
template <class T>
struct ByteRowsArgs {
  const T* const* rows;  // [n_rows] pointers to [n_features]
  int n_rows;            // 0 .. kBlockPoints; missing rows become zeros
  PowerOfTwo<T> scale;
  const T* centre;              // [n_features]
  const ByteSegment* segments;  // [n_segments]
  std::int64_t n_segments;
  std::uint32_t* packed;  // out [n_point_words][kBlockPoints]
  float* sq_norms;        // out [n_segments][kBlockPoints] sum of y^2
  float* sq_lost;         // out [n_segments][kBlockPoints] sum of (y - bytes)^2
  RowsAhead ahead;        // of the next call
};

// One centroid as bytes times -2, with its header.
template <class T>
struct ByteColumnArgs {
  const T* centroid;  // [n_features]
  double scale;
  const T* centre;              // [n_features]
  const ByteSegment* segments;  // [n_segments]
  std::int64_t n_segments;
  const ByteRun* runs;         // [n_segments]
  std::uint32_t* column;       // out [n_column_words]
  double* sq_norms;            // out [n_segments] sum of z^2
  double* sq_lost;             // out [n_segments] sum of (z - bytes)^2
  double* sq_norms_uncentred;  // out [n_segments] sum of (c * 2^-e)^2
};

// Chains (dots.h) of scattered rows with one column, and of every row with itself.
template <class T>
struct ChainRowsArgs {
  const T* const* rows;  // [n_rows] pointers to [n_features]
  int n_rows;            // 1 .. kBlockPoints
  std::int64_t n_features;
  PowerOfTwo<T> scale;
  const T* centre;      // [n_features]
  const float* column;  // [n_features] y of the other row
  float* dots;          // out [kBlockPoints]
  float* norms;         // out [kBlockPoints], or null
  bool cold;            // nobody fetched the rows ahead
  RowsAhead ahead;      // of the next call
};

template <class T>
struct PackOps {
  void (*survey)(SurveyArgs<T>& args) noexcept;
  // Whether every value is an integer of magnitude at most 256.
  bool (*small_integers)(const T* row, std::int64_t n_features) noexcept;
  void (*pack)(const PackArgs<T>& args) noexcept;
  void (*pack_column)(ColumnArgs<T>& args) noexcept;  // one of the two outputs is null
  // Null where the CPU does not multiply bytes.
  void (*pack_bytes)(const ByteRowsArgs<T>& args) noexcept;
  void (*pack_column_bytes)(const ByteColumnArgs<T>& args) noexcept;
  void (*chain_rows)(const ChainRowsArgs<T>& args) noexcept;
};

struct PackTable {
  PackOps<float> f32;
  PackOps<double> f64;
};

extern const PackTable pack_base;
extern const PackTable pack_avx2;
extern const PackTable pack_avx512;
extern const PackTable pack_avx512vnni;
extern const PackTable pack_avx512bf16;

template <class T>
const PackOps<T>& pack_ops(Isa isa);

}  // namespace ddkern::kmeans
