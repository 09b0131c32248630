// SPDX-License-Identifier: Apache-2.0
// The body of shortlist. Internal linkage only.
#pragma once

#include "core/simd/vector.h"
#include "kmeans/shortlist/shortlist.h"

namespace {

using namespace ddkern::simd;
using ddkern::kmeans::kBlockPoints;
using ddkern::kmeans::kHalfBlock;
using ddkern::kmeans::kMarginsPadding;
using ddkern::kmeans::MarginArgs;
using ddkern::kmeans::ProductArgs;

// Columns in a word of a ColumnSet.
constexpr int kWord = 64;
// Margins and what they are compared with are rounded a few times.
constexpr float kLess = 1 - 0x1p-20f, kMore = 1 + 0x1p-20f;

void by_margin(const MarginArgs& args, std::int64_t n_columns, std::uint64_t* open) noexcept {
  static_assert(kMarginsPadding % kFloats == 0);
  const floats near = floats{} + args.travelled_near;
  for (std::int64_t first = 0; first < n_columns; first += kWord) {
    const std::int64_t n = n_columns - first < kWord ? n_columns - first : kWord;
    std::uint64_t out = 0;
    for (std::int64_t i = 0; i < n; i += kFloats) {
      const floats used_up = (load<floats>(args.travelled + first + i) + near) * kMore;
      out |= std::uint64_t{lanes_above(load<floats>(args.margins + first + i) * kLess, used_up)}
             << i;
    }
    // Not the other way round: what is not a number must leave a column open.
    const std::uint64_t all = n == kWord ? ~std::uint64_t{0} : (std::uint64_t{1} << n) - 1;
    open[first / kWord] = ~out & all;
  }
}

// From the least gaps between squared distances. With D at least the distance to the nearest, and
// concave in the gap g and falling in D:  d - D >= sqrt(D^2 + g) - D = g / (sqrt(D^2 + g) + D).
// For `columns`, or, where that is null, those from `first` on.
inline void set_margins(const ProductArgs& args, const std::int32_t* columns, std::int64_t first,
                        const float* gaps, int n) {
  const float reach = args.reach, near = args.margin.travelled_near;
  const float* const travelled = args.margin.travelled;
  float* const margins = args.margin.margins;
  for (int i = 0; i < n; i += kFloats) {
    const floats gap = greater(load<floats>(gaps + i), floats{});
    const floats found = gap / (square_root(gap + reach * reach) + reach) * kLess + near;
    // Padded, so that the last ones may be written whole.
    if (columns == nullptr) {
      store(margins + first + i, found + load<floats>(travelled + first + i));
      continue;
    }
#if defined(__AVX512F__)
    const int left = n - i < kFloats ? n - i : kFloats;
    const auto lanes = static_cast<__mmask16>((1u << left) - 1);
    const __m512i at = _mm512_maskz_loadu_epi32(lanes, columns + i);
    const __m512 gone = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), lanes, at, travelled, 4);
    _mm512_mask_i32scatter_ps(margins, lanes, at, _mm512_add_ps((__m512)found, gone), 4);
#else
    float lanes[kFloats];
    store(lanes, found);
    for (int l = 0; l < kFloats && i + l < n; ++l) {
      margins[columns[i + l]] = lanes[l] + travelled[columns[i + l]];
    }
#endif
  }
}

// The open ones of `columns`, given by bits of their places.
inline void add_listed(const std::int32_t* columns, std::uint64_t places, std::uint64_t* open) {
  for (; places != 0; places &= places - 1) {
    const std::int32_t k = columns[__builtin_ctzll(places)];
    open[k / kWord] |= std::uint64_t{1} << (k % kWord);
  }
}

template <bool kListed, bool kHeads, bool kMargins>
inline void by_product_of(const ProductArgs& args, std::uint64_t* open) {
  constexpr int kParts = kHalfBlock / kFloats;
  floats limit[kParts], tail[kParts];
  for (int v = 0; v < kParts; ++v) {
    limit[v] = load<floats>(args.limit + kFloats * v);
    if constexpr (kHeads) tail[v] = load<floats>(args.tails + kFloats * v);
  }
  for (std::int64_t first = 0; first < args.n_columns; first += kWord) {
    const std::int64_t left = args.n_columns - first;
    const int n = static_cast<int>(left < kWord ? left : kWord);
    float gaps[kWord];
    std::uint64_t places = 0;
    // From the last to the first, so that a new bit is one addition away.
    for (int i = n - 1; i >= 0; --i) {
      const std::int32_t k =
          kListed ? args.columns[first + i] : static_cast<std::int32_t>(first + i);
      const float* products = args.products + k * std::int64_t{kBlockPoints};
      floats least;
      for (int v = 0; v < kParts; ++v) {
        floats gap = load<floats>(products + kFloats * v) - limit[v];
        if constexpr (kHeads) gap = less_product(gap, tail[v], args.column_tails[k]);
        least = v == 0 ? gap : lesser(gap, least);
      }
      least = least + args.base[k];
      bool is_open;
      if constexpr (kMargins) {
        gaps[i] = least_lane(least);
        is_open = !(gaps[i] > 0);
      } else {
        is_open = any_up_to(least, floats{});
      }
      places = places + places + static_cast<std::uint64_t>(is_open);
    }
    if constexpr (kListed) {
      add_listed(args.columns + first, places, open);
    } else {
      open[first / kWord] |= places;
    }
    if constexpr (kMargins) {
      for (int i = n; i < (n + kFloats - 1) / kFloats * kFloats; ++i) gaps[i] = 0;
      set_margins(args, kListed ? args.columns + first : nullptr, first, gaps, n);
    }
  }
}

template <bool kListed, bool kHeads>
inline void with_or_without_margins(const ProductArgs& args, std::uint64_t* open) {
  return args.margin.margins != nullptr ? by_product_of<kListed, kHeads, true>(args, open)
                                        : by_product_of<kListed, kHeads, false>(args, open);
}

template <bool kListed>
inline void with_or_without_heads(const ProductArgs& args, std::uint64_t* open) {
  return args.column_tails != nullptr ? with_or_without_margins<kListed, true>(args, open)
                                      : with_or_without_margins<kListed, false>(args, open);
}

void by_product(const ProductArgs& args, std::uint64_t* open) noexcept {
  return args.columns != nullptr ? with_or_without_heads<true>(args, open)
                                 : with_or_without_heads<false>(args, open);
}

std::int64_t list(const std::uint64_t* set, std::int64_t n_columns,
                  std::int32_t* columns) noexcept {
  std::int64_t n = 0;
  for (std::int64_t first = 0; first < n_columns; first += kWord) {
    std::uint64_t left = set[first / kWord];
#if defined(__AVX512F__)
    const __m512i places = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    for (auto k = static_cast<std::int32_t>(first); left != 0; left >>= 16, k += 16) {
      const auto here = static_cast<__mmask16>(left);
      const __m512i all = _mm512_add_epi32(places, _mm512_set1_epi32(k));
      _mm512_storeu_si512(columns + n, _mm512_maskz_compress_epi32(here, all));
      n += __builtin_popcount(here);
    }
#else
    for (; left != 0; left &= left - 1) {
      columns[n++] = static_cast<std::int32_t>(first) + __builtin_ctzll(left);
    }
#endif
  }
  return n;
}

}  // namespace
