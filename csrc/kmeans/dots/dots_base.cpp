// SPDX-License-Identifier: Apache-2.0
// Any CPU: four floats at a time in whatever vector registers the compiler has, FMA in software.
#include <cstdint>
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
  typedef float Pair __attribute__((vector_size(8)));
  typedef double Doubles __attribute__((vector_size(16)));
  typedef std::int64_t Bits __attribute__((vector_size(16)));
  static Doubles widen(Pair v) { return __builtin_convertvector(v, Doubles); }
  static Pair accumulate(Pair sum, Pair point, Pair column) {
    const Doubles product = widen(point) * widen(column), addend = widen(sum);
    const Doubles total = product + addend;
    const Doubles back = total - product;
    const Doubles error = (product - (total - back)) + (addend - back);
    // All bits are set where something was lost and the last bit is not set yet.
    const Bits bits = (Bits)total;
    const Bits unset = (Bits)(error != 0) & ((bits & 1) - 1);
    // Towards the lost part: away from zero (1) when it has the sign of the total, or else -1.
    const Bits step = ((Bits)(error > 0) ^ (Bits)(total > 0)) | 1;
    return __builtin_convertvector((Doubles)(bits + (step & unset)), Pair);
  }
  static Vector accumulate(Vector sum, Vector point, Vector column) {
    Pair sums[2], points[2], columns[2];
    std::memcpy(sums, &sum, sizeof(sum));
    std::memcpy(points, &point, sizeof(point));
    std::memcpy(columns, &column, sizeof(column));
    for (int half = 0; half < 2; ++half) {
      sums[half] = accumulate(sums[half], points[half], columns[half]);
    }
    std::memcpy(&sum, sums, sizeof(sum));
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
