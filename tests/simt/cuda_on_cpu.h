// SPDX-License-Identifier: Apache-2.0
//
// CUDA on the CPU, for tests: what the kernels of csrc use of the language and of the runtime. The
// threads of a block are fibers of one host thread that change places at barriers and at warp
// functions only; blocks run on a few host threads. Included through core/cuda/launch.h.
//
// Read once from the environment, and changed by simt::options():
//   DDKERN_SIMT_SEED       0: threads run in ascending order; 1: descending; others: shuffled
//   DDKERN_SIMT_THREADS    host threads that run blocks (2)
//   DDKERN_SIMT_MMA_ERROR  +1, -1 or alternate: every mma is off by all that its bound allows
//   DDKERN_SIMT_ASYNC      late: asynchronous copies arrive at the wait for them and not before
//   DDKERN_SIMT_MEMORY     bytes that the device has (4 GiB)
//
// A mistake that CUDA leaves undefined (a divergent barrier, a lane missing from a warp function, a
// write past the end of an allocation) prints one line that starts with "simt:" and aborts.
//
// What it cannot show: memory ordering between blocks, limits on registers, and speed. Static
// shared arrays keep what the last block left in them, while dynamic ones start as 0xCD.
#pragma once

#if defined(__CUDACC__)
#error "simt/cuda_on_cpu.h stands in for CUDA; nvcc has the real one"
#endif

#include <math.h>

#include <climits>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

// --------------------------------------------------------------------------------------- language
#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __shared__ static thread_local  // a host thread runs one block at a time

// Alignment as in CUDA, so that a vector access at a wrong address shows under UBSan.
#define DDKERN_SIMT_VECTOR2(name, type, bytes) \
  struct alignas(bytes) name {                 \
    type x, y;                                 \
  };                                           \
  inline name make_##name(type x, type y) { return name{x, y}; }
#define DDKERN_SIMT_VECTOR4(name, type, bytes) \
  struct alignas(bytes) name {                 \
    type x, y, z, w;                           \
  };                                           \
  inline name make_##name(type x, type y, type z, type w) { return name{x, y, z, w}; }

DDKERN_SIMT_VECTOR2(float2, float, 8)
DDKERN_SIMT_VECTOR2(double2, double, 16)
DDKERN_SIMT_VECTOR2(int2, int, 8)
DDKERN_SIMT_VECTOR2(uint2, unsigned, 8)
DDKERN_SIMT_VECTOR2(longlong2, long long, 16)
DDKERN_SIMT_VECTOR2(ulonglong2, unsigned long long, 16)
DDKERN_SIMT_VECTOR4(float4, float, 16)
DDKERN_SIMT_VECTOR4(int4, int, 16)
DDKERN_SIMT_VECTOR4(uint4, unsigned, 16)
DDKERN_SIMT_VECTOR4(uchar4, unsigned char, 4)
DDKERN_SIMT_VECTOR4(ushort4, unsigned short, 8)
#undef DDKERN_SIMT_VECTOR2
#undef DDKERN_SIMT_VECTOR4

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// Set by the scheduler whenever a thread goes on.
inline thread_local uint3 threadIdx{0, 0, 0};
inline thread_local uint3 blockIdx{0, 0, 0};
inline thread_local dim3 blockDim;
inline thread_local dim3 gridDim;
inline constexpr int warpSize = 32;

// ---------------------------------------------------------------------------------------- runtime
enum cudaError_t : int {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
  cudaErrorNotReady = 600,
};
enum cudaMemcpyKind : int {
  cudaMemcpyHostToHost = 0,
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4,
};
enum cudaDeviceAttr : int {
  cudaDevAttrMaxThreadsPerBlock = 1,
  cudaDevAttrMaxSharedMemoryPerBlock = 8,
  cudaDevAttrWarpSize = 10,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrMaxThreadsPerMultiProcessor = 39,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
enum cudaFuncAttribute : int {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9,
};
inline constexpr unsigned cudaEventDefault = 0, cudaEventBlockingSync = 1,
                          cudaEventDisableTiming = 2;
inline constexpr unsigned cudaStreamDefault = 0, cudaStreamNonBlocking = 1;

using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;

cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char* cudaGetErrorName(cudaError_t status);
const char* cudaGetErrorString(cudaError_t status);

cudaError_t cudaMalloc(void** pointer, std::size_t bytes);
cudaError_t cudaFree(void* pointer);
cudaError_t cudaMallocHost(void** pointer, std::size_t bytes);
cudaError_t cudaFreeHost(void* pointer);
cudaError_t cudaMemcpy(void* target, const void* source, std::size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemset(void* target, int value, std::size_t bytes);
cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total_bytes);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end);

// Streams run at once: whatever was put into one has happened when the call returns.
inline cudaError_t cudaMallocAsync(void** pointer, std::size_t bytes, cudaStream_t) {
  return cudaMalloc(pointer, bytes);
}
inline cudaError_t cudaFreeAsync(void* pointer, cudaStream_t) { return cudaFree(pointer); }
template <class T>
cudaError_t cudaMalloc(T** pointer, std::size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(pointer), bytes);
}
template <class T>
cudaError_t cudaMallocAsync(T** pointer, std::size_t bytes, cudaStream_t) {
  return cudaMalloc(reinterpret_cast<void**>(pointer), bytes);
}
template <class T>
cudaError_t cudaMallocHost(T** pointer, std::size_t bytes) {
  return cudaMallocHost(reinterpret_cast<void**>(pointer), bytes);
}
inline cudaError_t cudaMemcpyAsync(void* target, const void* source, std::size_t bytes,
                                   cudaMemcpyKind kind, cudaStream_t = nullptr) {
  return cudaMemcpy(target, source, bytes, kind);
}
inline cudaError_t cudaMemsetAsync(void* target, int value, std::size_t bytes,
                                   cudaStream_t = nullptr) {
  return cudaMemset(target, value, bytes);
}
inline cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  *stream = nullptr;
  return cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return cudaStreamCreate(stream);
}
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamQuery(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned = 0) {
  return cudaSuccess;
}
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
inline cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*)(Parameters...), cudaFuncAttribute, int) {
  return cudaSuccess;  // sizes are checked at the launch
}

// ------------------------------------------------------------------------------------- scheduling
namespace ddkern::simt {

struct Options {
  std::uint64_t seed = 0;
  int host_threads = 2;
  int mma_error = 0;  // +1, -1; 2 alternates between neighbouring elements; 0 rounds to nearest
  bool late_copies = false;
  std::size_t memory = std::size_t{4} << 30;
};

// Not to be changed while a kernel runs.
Options& options();

[[noreturn]] void die(const char* reason);

// Runs `thread(context)` once for every thread of the grid and returns when all have ended.
void run_grid(const char* name, dim3 grid, dim3 block, std::size_t shared_bytes,
              void (*thread)(const void*), const void* context);

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block,
            std::size_t shared_bytes, cudaStream_t, Arguments&&... arguments) {
  // The parameters are copied once a thread, as on a GPU, where a kernel may change its own.
  using Call = std::pair<void (*)(Parameters...), std::tuple<std::decay_t<Parameters>...>>;
  const Call call(kernel, std::tuple<std::decay_t<Parameters>...>(
                              static_cast<std::decay_t<Parameters>>(arguments)...));
  run_grid(
      name, grid, block, shared_bytes,
      [](const void* context) {
        const Call& made = *static_cast<const Call*>(context);
        std::apply(made.first, made.second);
      },
      &call);
}

void* dynamic_shared();
int lane();

enum class Vote { kNone, kOr, kAnd, kCount };
int block_barrier(const char* name, Vote vote, int predicate);

// What one lane brings to a warp function and takes from it: variables on the stacks of the lanes,
// which stand still until all of them are there.
struct Exchange {
  const void* in = nullptr;
  void* out = nullptr;
  int source = 0;  // the lane that a shuffle reads
};
// Fills `out` of every lane in `mask`, lanes[0..31].
using Combine = void (*)(const Exchange* lanes, unsigned mask);
// `orders_memory`: what the lanes wrote before is visible to the others after. __syncwarp()
// promises that, shuffles and votes do not, and the thread sanitizer holds kernels to the
// difference.
void warp_function(const char* name, unsigned mask, Combine combine, const Exchange& mine,
                   bool orders_memory = false);

void combine_nothing(const Exchange* lanes, unsigned mask);
void combine_shuffle(const Exchange* lanes, unsigned mask);
void combine_ballot(const Exchange* lanes, unsigned mask);
void combine_match(const Exchange* lanes, unsigned mask);

template <class T>
std::uint64_t to_bits(const T& value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <class T>
T from_bits(std::uint64_t bits) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  T value;
  std::memcpy(static_cast<void*>(&value), &bits, sizeof(T));
  return value;
}
template <class To, class From>
To bit_cast(From value) {
  static_assert(sizeof(To) == sizeof(From));
  return from_bits<To>(to_bits(value));
}

template <class T>
T shuffle(const char* name, unsigned mask, const T& value, int source) {
  const std::uint64_t in = to_bits(value);
  std::uint64_t out = 0;
  warp_function(name, mask, &combine_shuffle, Exchange{&in, &out, source});
  return from_bits<T>(out);
}

// See core/cuda/mma.cuh. `bound` is what DDKERN_SIMT_MMA_ERROR uses up.
void mma_f16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], double bound);
void load_matrix(std::uint32_t* registers, int n_matrices, const void* shared_row);
void copy_async_16(void* shared, const void* global, bool valid);
void copy_async_commit();
void copy_async_wait(int pending);

void fence();

}  // namespace ddkern::simt

inline void __syncthreads() {
  ddkern::simt::block_barrier("__syncthreads", ddkern::simt::Vote::kNone, 0);
}
inline int __syncthreads_or(int predicate) {
  return ddkern::simt::block_barrier("__syncthreads_or", ddkern::simt::Vote::kOr, predicate);
}
inline int __syncthreads_and(int predicate) {
  return ddkern::simt::block_barrier("__syncthreads_and", ddkern::simt::Vote::kAnd, predicate);
}
inline int __syncthreads_count(int predicate) {
  return ddkern::simt::block_barrier("__syncthreads_count", ddkern::simt::Vote::kCount, predicate);
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  ddkern::simt::warp_function("__syncwarp", mask, &ddkern::simt::combine_nothing, {}, true);
}
inline void __threadfence() { ddkern::simt::fence(); }
inline void __threadfence_block() { ddkern::simt::fence(); }

// --------------------------------------------------------------------------------- warp functions
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize) {
  const int first = ddkern::simt::lane() & ~(width - 1);
  return ddkern::simt::shuffle("__shfl_sync", mask, value, first | (source & (width - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize) {
  const int lane = ddkern::simt::lane(), last = lane | (width - 1), other = lane ^ lane_mask;
  return ddkern::simt::shuffle("__shfl_xor_sync", mask, value, other <= last ? other : lane);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  const int lane = ddkern::simt::lane(), last = lane | (width - 1);
  const int other = lane + static_cast<int>(delta);
  return ddkern::simt::shuffle("__shfl_down_sync", mask, value, other <= last ? other : lane);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  const int lane = ddkern::simt::lane(), first = lane & ~(width - 1);
  const int other = lane - static_cast<int>(delta);
  return ddkern::simt::shuffle("__shfl_up_sync", mask, value, other >= first ? other : lane);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  unsigned out = 0;
  ddkern::simt::warp_function("__ballot_sync", mask, &ddkern::simt::combine_ballot,
                              {&predicate, &out, 0});
  return out;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) == mask;
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value) {
  const std::uint64_t in = ddkern::simt::to_bits(value);
  unsigned out = 0;
  ddkern::simt::warp_function("__match_any_sync", mask, &ddkern::simt::combine_match,
                              {&in, &out, 0});
  return out;
}
[[noreturn]] inline unsigned __activemask() {
  ddkern::simt::die("__activemask() says nothing that a kernel may rely on");
}

// ------------------------------------------------------------------------------------------- bits
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }
inline int __clz(int value) {
  return value == 0 ? 32 : __builtin_clz(static_cast<unsigned>(value));
}
inline int __clzll(long long value) {
  return value == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(value));
}
inline unsigned __float_as_uint(float x) { return ddkern::simt::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return ddkern::simt::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return ddkern::simt::bit_cast<float>(x); }
inline float __int_as_float(int x) { return ddkern::simt::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return ddkern::simt::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return ddkern::simt::bit_cast<double>(x); }

// ----------------------------------------------------------------------------------------- memory
template <class T>
T __ldg(const T* pointer) {
  return *pointer;
}
template <class T>
T __ldcg(const T* pointer) {
  return *pointer;
}
template <class T>
T __ldcs(const T* pointer) {
  return *pointer;
}
template <class T>
void __stcs(T* pointer, const T& value) {
  *pointer = value;
}
template <class T>
void __stcg(T* pointer, const T& value) {
  *pointer = value;
}

namespace ddkern::simt {

// The overloads of CUDA and no others: unsigned long, for example, does not compile there either.
template <class T>
inline constexpr bool kAtomicInteger =
    std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;
template <class T>
using Value = typename std::enable_if<true, T>::type;  // takes no part in deduction

template <class T, class Change>
T atomic_change(T* pointer, Change change) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  auto* const bits = reinterpret_cast<Bits __attribute__((may_alias))*>(pointer);
  Bits before = __atomic_load_n(bits, __ATOMIC_RELAXED);
  for (;;) {
    const T old = bit_cast<T>(before);
    if (__atomic_compare_exchange_n(bits, &before, bit_cast<Bits>(change(old)), false,
                                    __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
      return old;
    }
  }
}

}  // namespace ddkern::simt

template <class T>
T atomicAdd(T* pointer, ddkern::simt::Value<T> value) {
  static_assert(ddkern::simt::kAtomicInteger<T> || std::is_same_v<T, float> ||
                std::is_same_v<T, double>);
  if constexpr (std::is_floating_point_v<T>) {
    return ddkern::simt::atomic_change(pointer, [=](T old) { return old + value; });
  } else {
    return __atomic_fetch_add(pointer, value, __ATOMIC_RELAXED);
  }
}
template <class T>
T atomicMin(T* pointer, ddkern::simt::Value<T> value) {
  static_assert(ddkern::simt::kAtomicInteger<T> || std::is_same_v<T, long long>);
  return ddkern::simt::atomic_change(pointer, [=](T old) { return value < old ? value : old; });
}
template <class T>
T atomicMax(T* pointer, ddkern::simt::Value<T> value) {
  static_assert(ddkern::simt::kAtomicInteger<T> || std::is_same_v<T, long long>);
  return ddkern::simt::atomic_change(pointer, [=](T old) { return value > old ? value : old; });
}
template <class T>
T atomicAnd(T* pointer, ddkern::simt::Value<T> value) {
  static_assert(ddkern::simt::kAtomicInteger<T>);
  return __atomic_fetch_and(pointer, value, __ATOMIC_RELAXED);
}
template <class T>
T atomicOr(T* pointer, ddkern::simt::Value<T> value) {
  static_assert(ddkern::simt::kAtomicInteger<T>);
  return __atomic_fetch_or(pointer, value, __ATOMIC_RELAXED);
}
template <class T>
T atomicExch(T* pointer, ddkern::simt::Value<T> value) {
  static_assert(ddkern::simt::kAtomicInteger<T> || std::is_same_v<T, float>);
  return ddkern::simt::atomic_change(pointer, [=](T) { return value; });
}
template <class T>
T atomicCAS(T* pointer, ddkern::simt::Value<T> expected, ddkern::simt::Value<T> value) {
  static_assert(ddkern::simt::kAtomicInteger<T>);
  __atomic_compare_exchange_n(pointer, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;  // the old value, whichever way it went
}

// ------------------------------------------------------------------------------------- arithmetic
template <class A, class B>
std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>, std::common_type_t<A, B>> min(
    A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) {
    return std::fmin(static_cast<T>(a), static_cast<T>(b));
  } else {
    return static_cast<T>(b) < static_cast<T>(a) ? static_cast<T>(b) : static_cast<T>(a);
  }
}
template <class A, class B>
std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>, std::common_type_t<A, B>> max(
    A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) {
    return std::fmax(static_cast<T>(a), static_cast<T>(b));
  } else {
    return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(b) : static_cast<T>(a);
  }
}

// Compiled with -ffp-contract=off, so every operation rounds on its own.
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline double __fma_rn(double x, double y, double z) { return std::fma(x, y, z); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dsub_rn(double x, double y) { return x - y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __ddiv_rn(double x, double y) { return x / y; }
inline double __dsqrt_rn(double x) { return std::sqrt(x); }

inline float __double2float_rn(double x) { return static_cast<float>(x); }
inline float __double2float_ru(double x) {
  const float nearest = static_cast<float>(x);
  return nearest < x ? std::nextafter(nearest, HUGE_VALF) : nearest;
}
inline float __double2float_rd(double x) {
  const float nearest = static_cast<float>(x);
  return nearest > x ? std::nextafter(nearest, -HUGE_VALF) : nearest;
}
inline float __fmul_ru(float x, float y) {
  return __double2float_ru(static_cast<double>(x) * y);  // 48 bits: exact
}
inline float __fadd_ru(float x, float y) {
  // The sum in double and what it leaves over; together they are exact.
  const double a = x, b = y, sum = a + b, b_part = sum - a;
  const double rest = (a - (sum - b_part)) + (b - b_part);
  const float up = __double2float_ru(sum);
  return up == sum && rest > 0 ? std::nextafter(up, HUGE_VALF) : up;
}
inline float __fsqrt_ru(float x) {
  const float nearest = std::sqrt(x);
  return static_cast<double>(nearest) * nearest < x ? std::nextafter(nearest, HUGE_VALF) : nearest;
}
inline int __float2int_rn(float v) {
  if (v != v) return 0;
  if (v >= 0x1p31f) return INT_MAX;
  if (v <= -0x1p31f) return INT_MIN;
  return static_cast<int>(::nearbyintf(v));
}
inline long long __double2ll_rn(double x) {
  if (!(x < 0x1p63)) return x != x ? LLONG_MIN : LLONG_MAX;
  return x < -0x1p63 ? LLONG_MIN : std::llrint(x);
}
inline double __ll2double_rn(long long x) { return static_cast<double>(x); }
inline double __int2double_rn(int x) { return x; }

// IEEE binary16, storage only: kernels compute in float.
struct __half {
  unsigned short bits;
};
using half = __half;

inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline __half __ushort_as_half(unsigned short bits) { return __half{bits}; }
inline __half __float2half_rn(float x) {
  const std::uint32_t all = __float_as_uint(x), magnitude = all & 0x7fffffffu;
  const std::uint32_t sign = (all >> 16) & 0x8000u;
  std::uint32_t bits;
  if (magnitude > 0x7f800000u) {
    return __half{0x7fff};  // the NaN of CUDA
  } else if (magnitude >= 0x477ff000u) {
    bits = 0x7c00u;  // 65520 and above: infinity
  } else if (magnitude < 0x38800000u) {
    bits = static_cast<std::uint32_t>(std::lrint(std::fabs(x) * 0x1p24f));  // subnormal
  } else {
    bits = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  return __half{static_cast<unsigned short>(sign | bits)};
}
inline float __half2float(__half x) {
  const std::uint32_t sign = (x.bits & 0x8000u) << 16, exponent = (x.bits >> 10) & 31u;
  const std::uint32_t fraction = x.bits & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  const std::uint32_t wide = exponent == 31 ? 255u : exponent + 112u;
  return __uint_as_float(sign | (wide << 23) | (fraction << 13));
}
