// SPDX-License-Identifier: Apache-2.0
// A sum of products of doubles without any rounding: a fixed-point number wide enough for every
// product of two finite doubles (Kulisch's long accumulator). Slow, and only asked when float64
// with an error bound cannot tell two distances apart, which in practice means an exact tie.
#pragma once

#include <cstdint>
#include <cstring>

namespace ddkern {

class ExactSum {
 public:
  // += sign * a * b, exactly. a and b are finite.
  void add_product(double a, double b, bool negative) {
    const Parts left = split(a), right = split(b);
    if (left.mantissa == 0 || right.mantissa == 0) return;
    const unsigned __int128 product =
        static_cast<unsigned __int128>(left.mantissa) * right.mantissa;
    const int position = left.exponent + right.exponent - kLowestExponent;
    const bool minus = negative != (left.negative != right.negative);
    const int limb = position / 32, shift = position % 32;
    // 106 bits shifted by up to 31 span five 32-bit limbs.
    const std::uint64_t low = static_cast<std::uint64_t>(product);
    const std::uint64_t high = static_cast<std::uint64_t>(product >> 64);
    const std::uint32_t words[5] = {
        static_cast<std::uint32_t>(low << shift),
        static_cast<std::uint32_t>(static_cast<std::uint64_t>(product >> (32 - shift))),
        static_cast<std::uint32_t>(static_cast<std::uint64_t>(product >> (64 - shift))),
        static_cast<std::uint32_t>(static_cast<std::uint64_t>(product >> (96 - shift))),
        shift == 0 ? 0 : static_cast<std::uint32_t>(high >> (64 - shift))};
    for (int w = 0; w < 5; ++w) {
      limbs_[limb + w] +=
          minus ? -static_cast<std::int64_t>(words[w]) : static_cast<std::int64_t>(words[w]);
    }
    if (++n_pending_ == kMaxPending) carry();
  }

  // -1, 0 or 1.
  int sign() {
    carry();
    if (limbs_[kLimbs - 1] < 0) return -1;
    for (int i = kLimbs - 1; i >= 0; --i) {
      if (limbs_[i] != 0) return 1;
    }
    return 0;
  }

 private:
  struct Parts {
    std::uint64_t mantissa;
    int exponent;
    bool negative;
  };
  static Parts split(double value) {
    std::uint64_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    const int biased = static_cast<int>((bits >> 52) & 0x7ff);
    const std::uint64_t fraction = bits & ((std::uint64_t{1} << 52) - 1);
    if (biased == 0) return {fraction, -1074, (bits >> 63) != 0};
    return {fraction | (std::uint64_t{1} << 52), biased - 1075, (bits >> 63) != 0};
  }

  // Leaves limbs in [0, 2^32) except the top one, which carries the sign.
  void carry() {
    for (int i = 0; i + 1 < kLimbs; ++i) {
      const std::int64_t up = limbs_[i] >> 32;
      limbs_[i] -= up * (std::int64_t{1} << 32);
      limbs_[i + 1] += up;
    }
    n_pending_ = 0;
  }

  static constexpr int kLowestExponent = 2 * -1074;
  static constexpr int kLimbs = (2 * 1074 + 2 * 1024 + 64) / 32 + 6;
  static constexpr int kMaxPending = 1 << 29;

  std::int64_t limbs_[kLimbs] = {};
  int n_pending_ = 0;
};

// The sign of ||x - a||^2 - ||x - b||^2 in real arithmetic.
template <class T>
int compare_distances(const T* x, const T* a, const T* b, std::int64_t n_features) {
  ExactSum sum;  // (x - a)^2 - (x - b)^2 = a^2 - b^2 - 2xa + 2xb
  for (std::int64_t j = 0; j < n_features; ++j) {
    if (a[j] == b[j]) continue;
    const double xj = x[j], aj = a[j], bj = b[j];
    sum.add_product(aj, aj, false);
    sum.add_product(bj, bj, true);
    sum.add_product(xj, aj, true);
    sum.add_product(xj, aj, true);
    sum.add_product(xj, bj, false);
    sum.add_product(xj, bj, false);
  }
  return sum.sign();
}

}  // namespace ddkern
