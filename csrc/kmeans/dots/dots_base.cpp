// SPDX-License-Identifier: Apache-2.0
// Any CPU: four floats at a time in whatever vector registers the compiler has, FMA in software.
#include <cstring>

#include "kmeans/dots/dots.inl.h"

namespace {

struct Unfused {
  using Scalar = float;
  typedef float Vector __attribute__((vector_size(16)));
  using Accumulator = Vector;
  static constexpr int kLanes = 4, kVectors = 2, kMaxWidth = 4;
  static Vector zero() { return Vector{}; }
  static Vector load(const float* p) {
    Vector v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  static Vector broadcast(const float* p) { return Vector{} + *p; }
  static Vector load_sum(const float* p) { return load(p); }
  static void store(float* p, Vector v) { std::memcpy(p, &v, sizeof(v)); }
  static Vector accumulate(Vector sum, Vector point, Vector column) { return sum + point * column; }
};

// A correctly rounded float32 a*b + s without FMA: the product is exact in float64; the sum is
// rounded to odd there (its last bit is set when anything was lost), and 53 bits rounded to odd
// round to 24 like the exact value does (Boldo and Melquiond, IEEE TC 57(4), 2008).
struct Fused : Unfused {
  static Vector accumulate(Vector sum, Vector point, Vector column) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double product = static_cast<double>(point[lane]) * static_cast<double>(column[lane]);
      const double addend = sum[lane];
      double total = product + addend;
      const double back = total - product;
      const double error = (product - (total - back)) + (addend - back);
      if (error != 0) {
        std::int64_t bits;
        std::memcpy(&bits, &total, sizeof(bits));
        if ((bits & 1) == 0) {
          // Towards the lost part: away from zero when it has the sign of the total.
          bits += ((error > 0) == (total > 0)) ? 1 : -1;
          std::memcpy(&total, &bits, sizeof(total));
        }
      }
      sum[lane] = static_cast<float>(total);
    }
    return sum;
  }
};

void chain_f32(const DotsArgs& args) noexcept { dot_tile<Fused>(args); }
void chain_norms(const float* points, std::int64_t n_features, float* out) noexcept {
  norms_of_block<Fused>(points, n_features, out);
}
void fast_f32(const DotsArgs& args) noexcept { dot_tile<Unfused>(args); }

}  // namespace

namespace ddkern::kmeans {
extern const DotsOps dots_base = {chain_f32, chain_norms, fast_f32, nullptr, 2.0, nullptr};
}
