// SPDX-License-Identifier: Apache-2.0
// How rows become bytes: the format of the fast products where the CPU multiplies bytes.
//
// The features are cut into segments in which values are of one size. In segment s a centred row y
// and a column c become
//   y ~ step_s * (high + low / 254),   c ~ c's own step in s * (high + low / 254)
// with bytes in [-127, 127] (rows use -128 as well). `low` is kept, by both, only in the few
// segments that hold most of what rounding would lose; there a product is
// high*high + (high*low + low*high) / 254. Integer sums are exact, so all that a certificate must
// know is what the rounding of the values lost, and how large low*low may be.
//
// Where a few features hold most of the variance, the segments with the largest values come first,
// up to a quarter of all features: the head. Its products alone, with Cauchy and Schwarz for the
// tail, rule most columns out (partial distances, Bei and Gray, IEEE Trans. Commun. 33, 1985).
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace ddkern::kmeans {

constexpr int kByteLevels = 127;
constexpr float kLowByte = 254.0f;  // steps of the low byte in a step of the high one

struct ByteSegment {
  std::int64_t begin, end;  // features
  bool doubled;             // has low bytes
  float step;               // of the high byte of rows
  // What rounding loses in a segment is in proportion to its step; norms are weighted by about
  // 1 / weight where something is lost and by weight where it is multiplied, so that one product of
  // two norms bounds the sum over segments (Cauchy and Schwarz).
  double weight;

  std::int64_t n_words() const { return (end - begin + 3) / 4; }
  // The largest norm of what the low bytes of a row hold.
  double largest_low() const {
    return doubled ? step * 128.0 / kLowByte * std::sqrt(static_cast<double>(end - begin)) : 0.0;
  }
};

// One stretch of words that is multiplied and added up in integers. A word is four features.
struct ByteRun {
  std::int64_t point_word, column_word, n_words;
};

struct ByteLayout {
  std::vector<ByteSegment> segments;
  std::vector<ByteRun> runs;        // a segment's high bytes, then, where doubled, its cross terms
  std::int64_t n_point_words = 0;   // of one point
  std::int64_t n_column_words = 0;  // of one column, with its header
  // Of the head; 0 where the features are too much alike for one to pay.
  std::int64_t n_head_segments = 0, n_head_runs = 0;
  std::int64_t n_runs() const { return static_cast<std::int64_t>(runs.size()); }
  // A column starts with a scale (float) and a start (int32) for every run.
  std::int64_t header_words() const { return (2 * n_runs() + 15) / 16 * 16; }
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
