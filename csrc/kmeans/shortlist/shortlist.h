// SPDX-License-Identifier: Apache-2.0
// shortlist: the columns that may be nearest to some point of half a block, before any are compared
// in earnest.
//
// by_margin    from what an earlier pass knew: a column whose margin (margins.h) is not used up is
//              farther than the nearest one.
// by_product   from products: a column is out where
//                  base[k] + product - tails[p] * column_tails[k] > limit[p]
//              for all points. Products of heads (byte_layout.h) come with tails, whole ones
//              without. On the way the margins of all columns that were looked at are set.
// list         of the columns that are left, for those who go through them.
//
// No number among the arguments may be NaN, but infinities may.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "kmeans/block.h"

namespace ddkern::kmeans {

// The margins of half a block: column k is out while
//     margins[k] (1 - 2^-20) > (travelled[k] + travelled_near) (1 + 2^-20).
// Both arrays are padded to kMarginsPadding columns.
struct MarginArgs {
  float* margins;          // inout [n_columns]
  const float* travelled;  // [n_columns] at least how far every column has gone so far
  float travelled_near;    // the same for the columns that were nearest
};
constexpr std::int64_t kMarginsPadding = 16, kListPadding = 16;

struct ProductArgs {
  const float* products;  // [...][kBlockPoints], those of half a block
  // Those to look at, ascending, or null for the first n_columns; they index all arrays.
  const std::int32_t* columns;
  std::int64_t n_columns;
  const float* base;
  const float* column_tails;  // null where products are whole
  const float* tails;         // [kHalfBlock]
  // [kHalfBlock] above the score of a column that is near, by the largest error of a score and what
  // this op rounds.
  const float* limit;
  MarginArgs margin;  // null where nobody wants them
  float reach;        // at least the distance of every point to the column it is near to
};

struct ShortlistOps {
  // open: a ColumnSet. by_product adds to it.
  void (*by_margin)(const MarginArgs& args, std::int64_t n_columns, std::uint64_t* open) noexcept;
  void (*by_product)(const ProductArgs& args, std::uint64_t* open) noexcept;
  // The members of a ColumnSet, ascending; returns how many. columns: as many, and kListPadding.
  std::int64_t (*list)(const std::uint64_t* set, std::int64_t n_columns,
                       std::int32_t* columns) noexcept;
};

extern const ShortlistOps shortlist_base;
extern const ShortlistOps shortlist_avx2;
extern const ShortlistOps shortlist_avx512;

const ShortlistOps& shortlist_ops(Isa isa);

}  // namespace ddkern::kmeans
