// SPDX-License-Identifier: Apache-2.0
#include "kmeans/byte_layout.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace ddkern::kmeans {
namespace {

// Segments begin at multiples of this; a short row is cut finer, for it has fewer products to hide
// the end of a segment behind.
std::int64_t chunk_of(std::int64_t n_features) { return n_features > 1024 ? 64 : 16; }

// Sums of products must stay below 2^31: those of bytes do by far, and wide segments have levels to
// spare up to this length.
constexpr std::int64_t kLongestSegment = 4096;
int wide_levels(std::int64_t n_features) {
  const double room = 0x1p31 - 1;
  return static_cast<int>(std::min(32767.0, std::sqrt(room / static_cast<double>(n_features))));
}

// Neighbours whose root mean squares differ by less share a segment. On features that fall off like
// 1 / sqrt(j), 1.2 leaves 28 % fewer rows to be compared than 1.6 (8 x 1300 x 4096, k = 50); every
// segment costs the products a few instructions a column.
constexpr double kSameSize = 1.2;
// A segment is wide when a feature of it costs the certificate this many times the average.
constexpr double kWideLoss = 3.0;
// The integers reach a little further than the largest value that was looked at, and in a wide
// segment, which has steps to spare, quite a bit. What lies beyond is cut off and measured like all
// rounding, and so is an outlier of this many root mean squares: it must not coarsen all others.
constexpr double kReach = 1.1, kReachOfWide = 1.5;
constexpr double kOutlier = 32.0;
// The head is this share of the features, and the tail has at most this share of the squares. In a
// simulation on features that fall off like 1 / sqrt(j), 128 to 4096 of them, an eighth or a half
// was no better than a quarter; their tails have 0.16 to 0.25 of the squares. The limit above that
// is a guess: where it is wrong, heads are given up after a pass.
constexpr std::int64_t kHeadShare = 4;
constexpr double kMostInTail = 1.0 / 3;

struct Size {
  double largest = 0, sum_of_squares = 0;
  std::int64_t n = 0;
  double rms() const { return std::sqrt(sum_of_squares / static_cast<double>(n)); }
  void add(const Size& other) {
    largest = std::max(largest, other.largest);
    sum_of_squares += other.sum_of_squares;
    n += other.n;
  }
  double step(double reach, int levels) const {
    const double most = reach * std::min(largest, kOutlier * rms());
    // A step of 0 would divide by 0; a segment without values has any.
    return most > 0x1p-100 ? most / levels : 1.0;
  }
  double step_of_bytes() const { return step(kReach, kByteLevels); }
};

struct SizedSegment {
  ByteSegment segment;
  Size size;
};

// Neighbouring chunks of about the same size, joined.
std::vector<SizedSegment> find_segments(const std::vector<double>& largest,
                                        const std::vector<double>& mean_square,
                                        std::int64_t chunk) {
  const auto n_features = static_cast<std::int64_t>(largest.size());
  std::vector<SizedSegment> found;
  for (std::int64_t begin = 0; begin < n_features; begin += chunk) {
    const std::int64_t end = std::min(n_features, begin + chunk);
    Size size;
    for (std::int64_t j = begin; j < end; ++j) {
      size.add({largest[static_cast<std::size_t>(j)], mean_square[static_cast<std::size_t>(j)], 1});
    }
    const bool joins = !found.empty() && size.rms() * kSameSize > found.back().size.rms() &&
                       size.rms() < found.back().size.rms() * kSameSize &&
                       end - found.back().segment.begin <= kLongestSegment;
    if (joins) {
      found.back().size.add(size);
      found.back().segment.end = end;
    } else {
      found.push_back({{begin, end, false, kByteLevels, 1.0f, 1.0}, size});
    }
  }
  return found;
}

// Brings the segments with the largest values to the front, cuts one where the head ends, and
// returns how many segments the head has: none, and nothing changed, where the tail is too large.
std::int64_t make_head(std::vector<SizedSegment>& segments, std::int64_t n_features,
                       std::int64_t chunk) {
  const std::int64_t most = n_features / kHeadShare / chunk * chunk;
  if (most == 0) return 0;
  std::vector<SizedSegment> sorted = segments;
  std::stable_sort(sorted.begin(), sorted.end(), [](const SizedSegment& a, const SizedSegment& b) {
    return a.size.rms() > b.size.rms();
  });
  double total = 0, in_head = 0;
  for (const SizedSegment& s : sorted) total += s.size.sum_of_squares;
  std::int64_t n_head = 0, room = most;
  while (room > 0) {
    SizedSegment& next = sorted[static_cast<std::size_t>(n_head)];
    const std::int64_t length = next.segment.end - next.segment.begin;
    if (length > room) {
      // Both parts are taken for as large as the whole: a segment is of one size, or nearly.
      SizedSegment rest = next;
      const double share = static_cast<double>(room) / static_cast<double>(length);
      next.segment.end = rest.segment.begin = next.segment.begin + room;
      next.size = {next.size.largest, next.size.sum_of_squares * share, room};
      rest.size = {rest.size.largest, rest.size.sum_of_squares * (1 - share), length - room};
      sorted.insert(sorted.begin() + n_head + 1, rest);
    }
    const SizedSegment& taken = sorted[static_cast<std::size_t>(n_head++)];
    in_head += taken.size.sum_of_squares;
    room -= taken.segment.end - taken.segment.begin;
  }
  if (total - in_head > kMostInTail * total) return 0;
  segments = std::move(sorted);
  return n_head;
}

}  // namespace

ByteLayout make_byte_layout(const std::vector<double>& largest,
                            const std::vector<double>& mean_square, double integer, bool head) {
  const auto n_features = static_cast<std::int64_t>(largest.size());
  const std::int64_t chunk = chunk_of(n_features);
  std::vector<SizedSegment> segments = find_segments(largest, mean_square, chunk);
  ByteLayout layout;
  if (head) layout.n_head_segments = make_head(segments, n_features, chunk);

  // What a segment adds to a bound: about step * sqrt(n) (lost by one side) times rms * sqrt(n).
  double total = 0;
  for (const auto& [segment, size] : segments) {
    total += size.step_of_bytes() * size.rms() * static_cast<double>(size.n);
  }
  double coarsest = 0;
  for (auto& [segment, size] : segments) {
    const bool exact = integer > 0 && size.largest <= (kByteLevels + 1) * integer;
    segment.wide =
        !exact && segments.size() > 1 &&
        size.step_of_bytes() * size.rms() * static_cast<double>(n_features) > kWideLoss * total;
    double step = exact ? integer : size.step_of_bytes();
    if (segment.wide) {
      segment.levels = wide_levels(segment.end - segment.begin);
      step = size.step(kReachOfWide, segment.levels);
    }
    segment.step = static_cast<float>(step);
    segment.weight = size.rms() > 0 ? step / size.rms() : 0;
    coarsest = std::max(coarsest, segment.weight);
  }
  for (SizedSegment& s : segments) {
    ByteSegment& segment = s.segment;
    segment.weight = coarsest > 0 ? std::max(segment.weight / coarsest, 0x1p-10) : 1.0;
    layout.segments.push_back(segment);
  }

  const std::int64_t header = 2 * layout.n_segments();
  layout.n_column_words = (header + 15) / 16 * 16;
  for (const ByteSegment& segment : layout.segments) {
    const std::int64_t n = segment.n_words();
    layout.runs.push_back({layout.n_point_words, layout.n_column_words, n, segment.wide});
    layout.n_point_words += n;
    layout.n_column_words += n;
  }
  return layout;
}

}  // namespace ddkern::kmeans
