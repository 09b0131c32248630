// SPDX-License-Identifier: Apache-2.0
// How rows become bytes: the format of the fast products where the CPU multiplies bytes.
//
// The features are cut into segments in which values are of one size. In segment s a centred row y
// and a column c become
//   y ~ step_s * integer,   c ~ c's own step in s * integer
// with integers in [-127, 127] (rows use -128 as well), four to a word. The few segments that hold
// most of what rounding would lose are wide: of 16 bits, two to a word, with as many levels as
// their sums of products leave room for in 32 bits. Integer sums are exact, so all that a
// certificate must know is what the rounding of the values lost.
//
// Where a few features hold most of the variance, the segments with the largest values come first,
// up to a quarter of all features: the head. Its products alone, with Cauchy and Schwarz for the
// tail, rule most columns out (partial distances, Bei and Gray, IEEE Trans. Commun. 33, 1985).
#pragma once

#include <cstdint>
#include <vector>

namespace ddkern::kmeans {

constexpr int kByteLevels = 127;

struct ByteSegment {
  std::int64_t begin, end;  // features
  bool wide;                // 16 bits
  int levels;               // the integers reach from -levels to levels
  float step;               // of rows
  // What rounding loses in a segment is in proportion to its step; norms are weighted by about
  // 1 / weight where something is lost and by weight where it is multiplied, so that one product of
  // two norms bounds the sum over segments (Cauchy and Schwarz).
  double weight;

  // Of whole groups of four features.
  std::int64_t n_words() const { return (end - begin + 3) / 4 * (wide ? 2 : 1); }
};

// A segment as it is multiplied and added up in integers.
struct ByteRun {
  std::int64_t point_word, column_word, n_words;
  bool wide;
};

struct ByteLayout {
  std::vector<ByteSegment> segments;
  std::vector<ByteRun> runs;       // of every segment
  std::int64_t n_point_words = 0;  // of one point
  // Of one column, which starts with a scale (float) and a start (int32) for every segment.
  std::int64_t n_column_words = 0;
  // Of the head; 0 where the features are too much alike for one to pay.
  std::int64_t n_head_segments = 0;
  std::int64_t n_segments() const { return static_cast<std::int64_t>(segments.size()); }
};

// Heads are not worth it for fewer columns: those left open would not keep the multipliers busy
// (measured: 50 lose, 200 win).
constexpr std::int64_t kFewestColumnsForHeads = 64;

// From the magnitudes of some centred rows, [n_features] each: the largest and the mean square.
// Where the rows are integers, `integer` is the size of 1, and 0 elsewhere: as many of them as fit
// bytes are kept as they are. `head` asks for a head, should one pay.
ByteLayout make_byte_layout(const std::vector<double>& largest,
                            const std::vector<double>& mean_square, double integer, bool head);

}  // namespace ddkern::kmeans
