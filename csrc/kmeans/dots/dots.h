// SPDX-License-Identifier: Apache-2.0
// dots: inner products of one block of points with one tile of columns.
//
//   out[rows[c]][p] = sum_d points[d][p] * columns[c][d * column_stride]
//
// chain_f32   float32, one chain of fused multiply-adds per pair, d ascending, from 0. The same at
//             every level, bit by bit (in software where it has no FMA): seeding decides on these.
// chain_norms the chain of every point with itself: out [kBlockPoints].
// fast_f32    float32, d ascending, fused or not: at most `n_roundings_per_product` roundings a
//             product, each of relative size 2^-24. Only used under a certificate.
// fast_bf16   bfloat16 products, exact, added to a float32; one rounding a product; denormals may
//             be flushed to zero. Only used under a certificate. Null where the CPU has no such
//             product.
// fast_bytes  products of bytes, see ByteDotsArgs. Only used under a certificate.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "kmeans/block.h"
#include "kmeans/byte_layout.h"

namespace ddkern::kmeans {

struct DotsArgs {
  const void* points;          // [depth][kBlockPoints] floats or words
  const void* const* columns;  // [width] floats or words, one every column_stride
  std::int64_t column_stride;
  int width;                    // 1 .. kTileColumns
  std::int64_t depth;           // n_features, or ceil(n_features / 2) for bfloat16
  const std::int32_t* rows;     // [width] where the columns go in out
  float* out;                   // out [...][kBlockPoints]
  bool resume = false;          // go on from the sums in out instead of 0
  int n_points = kBlockPoints;  // or kHalfBlock of them
};

// The same for bytes (kmeans/byte_layout.h):
//   out[c][p] = sum over runs r of scale[c][r] * sum_w points[r, w][p] * column c[r, w]
// for every c in `columns`, over the runs begin .. end, one a segment, on top of what is in out
// unless begin is 0. The inner sums are integers and exact; two float32 roundings a run. Null where
// the CPU does not multiply bytes.
struct ByteDotsArgs {
  const std::uint32_t* points;  // [n_point_words][kBlockPoints]; bytes are biased by 128
  int n_points;                 // kBlockPoints, or kHalfBlock of them
  // Column c is packed from c * column_stride on: a header of scales and starts, then words.
  const std::uint32_t* packed;
  std::int64_t column_stride;
  const std::int32_t* columns;  // [n_columns]
  std::int64_t n_columns;
  const ByteRun* runs;  // [n_runs] all of the layout
  std::int64_t n_runs, begin, end;
  float* out;  // [...][kBlockPoints]
};

// `rows` for columns that stay in order.
inline constexpr std::int32_t kInOrder[kTileColumns] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};

struct DotsOps {
  void (*chain_f32)(const DotsArgs& args) noexcept;
  void (*chain_norms)(const float* points, std::int64_t n_features, float* out) noexcept;
  void (*fast_f32)(const DotsArgs& args) noexcept;
  void (*fast_bf16)(const DotsArgs& args) noexcept;
  double n_roundings_per_product;  // of fast_f32
  void (*fast_bytes)(const ByteDotsArgs& args) noexcept;
};

extern const DotsOps dots_base;
extern const DotsOps dots_avx2;
extern const DotsOps dots_avx512;
extern const DotsOps dots_avx512vnni;
extern const DotsOps dots_avx512bf16;

const DotsOps& dots_ops(Isa isa);

}  // namespace ddkern::kmeans
