// SPDX-License-Identifier: Apache-2.0
// What the kernels share: the groups of one launch, their rows and their cells, as pointers.
//
// A chunk is a set of groups that fit in the workspace together. Its rows are numbered by position,
// group after group; `order` maps a position to a row of x. Every kernel takes the tables by value.
#pragma once

#include <cstdint>

#include "core/cuda/launch.h"

namespace ddkern::kmeans::cuda {

constexpr int kTileRows = 128;      // rows of a tile: what a block of products works on
constexpr int kPadding = 64;        // packed rows are a multiple of this many features
constexpr int kMostTrials = 24;     // 2 + floor(ln k) for every k of 31 bits
constexpr int kHalfScaleBits = 13;  // |y| < 2, so y * 2^13 fits in float16
constexpr int kCentreBits = 20;     // of the grid of the centre

// What the caller fixed.
struct GroupShape {
  std::int64_t begin, n;    // positions
  std::int64_t first_cell;  // of the chunk
  std::int64_t first_tile;
  std::int64_t total_units, n_positive;
  std::int64_t gram;      // where its Gram matrix begins, in floats
  std::int64_t combined;  // where its sums of Gram rows begin, in doubles
  std::int64_t id;
  std::uint64_t seed;
  double mean_factor;  // a weighted mean of integers is fl64(sum) / fl64(units) times this
  std::int32_t k, n_trials, grid_bits, gram_stride;
};

// What its rows fix: docs/numerics.md section 3. 32- and 64-bit patterns of non-negative numbers
// are kept as integers, which compare the same way.
struct GroupFrame {
  unsigned long long largest;    // |x|, as float64
  unsigned long long first_bad;  // position of the first row that is not finite
  unsigned int largest_centred;  // |y32|
  unsigned int not_small_integers;
  int guessed_exponent;  // of the sums for the centre, from a few rows
  int exponent, row_exponent;
  double scale, unscale;             // 2^-exponent and back
  double row_scale, row_unit;        // y to units of the grid of the sums, and back
  double mean_sq_norm;               // weighted mean of ||y||^2
  float largest_lost, largest_norm;  // over the rows: bounds of the certificate
};

// Of a value of every row that counts: row_means.h.
struct GroupMean {
  double largest;
  std::int64_t sum;  // in units of the grid that follows from the largest
  double mean;
};

// One run of Lloyd's iteration.
struct GroupRun {
  int active;     // iterates still
  int any_moved;  // a row that counts changed its cell in the last pass
  int repaired;   // a cell was seeded again in the last update
  int n_iter, converged;
  int n_empty_cells;
  int dead;  // a cell without mass is to be repaired
  int far;   // the distortion needs the distances of the rows
  std::int64_t n_rechecked, n_exact, cells_reseeded, rows_assigned;
  double variance, shift;
  double scaled_distortion;
};
// Which groups a kernel is for: all, or those whose run says so.
enum class Which { all, dead, far };
inline __device__ bool takes_part(const GroupRun& run, Which which) {
  return which == Which::all || (which == Which::dead ? run.dead : run.far) != 0;
}

// The rows that came to a cell and went from it, listed from `begin`.
struct alignas(16) CellEvents {
  std::int64_t begin;
  std::int32_t n, group;
};

// One step of greedy k-means++.
struct GroupSeeding {
  double unit;  // 2^shift: distances to units of the grid of the masses
  int shift;
  int first_trial;       // the most promising
  unsigned int wanted;   // trials whose gain has to be known
  int winner;            // trial whose distances are to be applied, or -1
  int direct;            // float32 no longer tells the rows apart: distances are d64
  int slow;              // this step belongs to the slow path
  std::int64_t total;    // P
  std::int64_t n_taken;  // rows that equal a seed
  std::int64_t least_gain[kMostTrials], most_gain[kMostTrials], gain[kMostTrials];
  int candidate[kMostTrials], n_open[kMostTrials];
};

struct RowTile {
  std::int32_t group, first;  // row of the group
  std::int64_t scores;        // where its scores begin: [k][kTileRows]
};

// What is known of a cell's scores: ||c||^2 - 2 <y, c> is base - 2 * product to within
// row_lost * lost + row_norm * norm + rest.
struct alignas(16) CellBound {
  float base, lost, norm, rest;
};

// One pass may have left a row open: the columns that may still win.
constexpr int kListed = 3;
struct OpenRow {
  std::int64_t scores;  // of its column 0, or -1 where they are not kept
  std::int64_t position;
  std::int32_t group;
  std::int32_t n_columns;  // 0: all whose lower bound is at most `limit`
  std::int32_t columns[kListed];
  float limit;
};
static_assert(sizeof(OpenRow) == 40);  // no padding, which would be copied without being written

// What does not depend on the type of the values. Kernels that read none take this part alone, and
// are compiled once for all types.
struct ChunkTables {
  const std::int64_t* order;  // [n_rows] or null
  std::int64_t stride, first_row;
  std::int64_t n_rows, n_cells;
  std::int64_t most_rows, most_k;  // of a group
  int n_groups, n_features, n_padded, n_tiles;
  const GroupShape* shapes;  // [n_groups]
  GroupFrame* frames;        // [n_groups]
  GroupRun* runs;            // [n_groups]
  GroupMean* means;          // [n_groups]
  const RowTile* tiles;      // [n_tiles]
  // By position.
  const std::int64_t* units;  // or null: 1
  const double* weights;      // or null: 1
  unsigned long long* hashes;
  __half* halves;    // [n_padded] a row: y * 2^13
  float* lost;       // at least ||y - Y||, Y the packed row
  float* norms;      // at least ||Y||
  double* sq_norms;  // ||y||^2
  std::int32_t* assignment;
  std::int32_t* before;  // the cell before the last pass
  double* distances;     // scratch of repairs and of the final distortion
  // By group and feature.
  std::int64_t* column_sums;
  const std::int32_t* cell_group;  // [n_cells]
  // By cell; vectors have n_features, or n_padded where packed.
  std::int64_t* sums;
  std::int64_t* cell_units;
  double* mean_sq_norms;
  double* off;
  double* shifts;
  __half* cell_halves;
  CellBound* bounds;
  std::int32_t* source_row;  // the row whose value the centroid is, or -1
  std::int32_t* n_members;   // rows that count
  std::int32_t* first_member;
  unsigned long long *least_hash, *most_hash;
  std::int32_t *n_events, *event_cursor;
  CellEvents* cell_events;  // placed for the update at hand
  std::int32_t* reseeded;   // row of the group, or -1
  // Rows that came and went, sorted by cell: 2 a row. The sign is in the lowest bit.
  std::int32_t* events;
  float* scores;
  // Open rows of a pass.
  OpenRow *open, *ties;
  int *n_open, *n_ties;
  // Gram space.
  std::int64_t* n_terms;  // by cell: that came to its sums and went, from the start of the run
  float* gram;
  double* combined;

  __device__ std::int64_t row_number(std::int64_t position) const {
    return order != nullptr ? order[position] : first_row + position;
  }
  __device__ std::int64_t units_at(std::int64_t position) const {
    return units == nullptr ? 1 : units[position];
  }
  __device__ bool counts(std::int64_t position) const { return units_at(position) > 0; }
};

template <class T>
struct Chunk : ChunkTables {
  const T* x;    // row r begins at x + r * stride
  T* centre;     // [n_features] a group
  T* centroids;  // [n_features] a cell

  __device__ const T* row(std::int64_t position) const { return x + row_number(position) * stride; }
};

// Whether every row begins at a multiple of 16 bytes and has a whole number of them.
template <class T>
bool rows_are_aligned(const Chunk<T>& chunk) {
  constexpr std::int64_t kValues = 16 / sizeof(T);
  return reinterpret_cast<std::uintptr_t>(chunk.x) % 16 == 0 && chunk.stride % kValues == 0 &&
         chunk.n_features % kPadding == 0;
}

}  // namespace ddkern::kmeans::cuda
