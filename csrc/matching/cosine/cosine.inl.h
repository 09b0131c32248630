// SPDX-License-Identifier: Apache-2.0
// The body of cosine. Internal linkage only.
#pragma once

#include "core/simd/chains.h"
#include "matching/cosine/cosine.h"

namespace {

using namespace ddkern::simd;
using ddkern::Bfloat16;
using ddkern::matching::CombineBlock;
using ddkern::matching::ProductsBlock;
using ddkern::matching::RowProducts;

struct Chains {
  doubles dot[kChainRegisters] = {};
  doubles square_a[kChainRegisters] = {};
  doubles square_b[kChainRegisters] = {};
};

template <class T>
inline void add_products(const T* a, const T* b, Chains& sums) {
  doubles x[kChainRegisters], y[kChainRegisters];
  widen_chains(a, x);
  widen_chains(b, y);
  for (int r = 0; r < kChainRegisters; ++r) {
    sums.dot[r] += x[r] * y[r];
    sums.square_a[r] += x[r] * x[r];
    sums.square_b[r] += y[r] * y[r];
  }
}

template <class T>
RowProducts products(const ProductsBlock<T>& block) noexcept {
  Chains sums;
  std::int64_t i = 0;
  for (; i + kChains <= block.n; i += kChains) add_products(block.a + i, block.b + i, sums);
  if (i < block.n) {
    // What lies beyond the end is 0 in both, and adds 0.
    const auto bytes = static_cast<std::size_t>(block.n - i) * sizeof(T);
    T a[kChains] = {}, b[kChains] = {};
    std::memcpy(a, block.a + i, bytes);
    std::memcpy(b, block.b + i, bytes);
    add_products(a, b, sums);
  }
  return {sum_chains<T>(sums.dot), sum_chains<T>(sums.square_a), sum_chains<T>(sums.square_b)};
}

template <class T>
inline void combine_values(const T* a, const T* b, double of_a, double of_b, T* out) {
  doubles x[kChainRegisters], y[kChainRegisters];
  widen_chains(a, x);
  widen_chains(b, y);
  for (int r = 0; r < kChainRegisters; ++r) x[r] = of_a * x[r] + of_b * y[r];
  narrow_chains(x, out);
}

template <class T>
void combine(const CombineBlock<T>& block) noexcept {
  std::int64_t i = 0;
  for (; i + kChains <= block.n; i += kChains) {
    combine_values(block.a + i, block.b + i, block.of_a, block.of_b, block.out + i);
  }
  if (i < block.n) {
    const auto bytes = static_cast<std::size_t>(block.n - i) * sizeof(T);
    T a[kChains] = {}, b[kChains] = {}, out[kChains];
    std::memcpy(a, block.a + i, bytes);
    std::memcpy(b, block.b + i, bytes);
    combine_values(a, b, block.of_a, block.of_b, out);
    std::memcpy(block.out + i, out, bytes);
  }
}

}  // namespace
