// SPDX-License-Identifier: Apache-2.0
// cosine: what the angle between two rows is made of, and its derivative; one block of a row.
//
//   products: dot = sum a * b,   square_a = sum a^2,   square_b = sum b^2
//   combine:  out = of_a * a + of_b * b, the derivative of a function of the three
//
// Numerics. Values are float32 or bfloat16. Products of two are exact in float64, in which they are
// summed: value i goes to chain i mod 32, the chains are added pairwise (core/simd/chains.h), so
// the relative error of a sum of squares is below (n / 32 + 6) * 2^-53, and of `dot` as much of sum
// |a * b|; the bits are the same at every level. `combine` is float64, each of its three operations
// rounded, for near a minimum its two terms cancel; the result is rounded to float32, and for
// bfloat16 once more. NaN and infinities spread as in the formulas.
#pragma once

#include <cstdint>

#include "core/bfloat16.h"
#include "core/isa.h"

namespace ddkern::matching {

template <class T>
struct ProductsBlock {
  std::int64_t n;
  const T* a;  // [n]
  const T* b;  // [n]
};

struct RowProducts {
  double dot;
  double square_a;
  double square_b;
};

template <class T>
struct CombineBlock {
  std::int64_t n;
  const T* a;  // [n]
  const T* b;  // [n]
  double of_a;
  double of_b;
  T* out;  // out [n]
};

template <class T>
struct CosineOps {
  RowProducts (*products)(const ProductsBlock<T>& block) noexcept;
  void (*combine)(const CombineBlock<T>& block) noexcept;
};

struct CosineTable {
  CosineOps<float> f32;
  CosineOps<Bfloat16> bf16;
};

extern const CosineTable cosine_base;
extern const CosineTable cosine_avx2;
extern const CosineTable cosine_avx512;

// T is float or Bfloat16.
template <class T>
const CosineOps<T>& cosine_ops(Isa isa);

}  // namespace ddkern::matching
