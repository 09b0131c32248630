// SPDX-License-Identifier: Apache-2.0
#include "simt/checks.h"

#include "core/cuda/launch.h"
#include "core/cuda/mma.cuh"

namespace ddkern::simt_checks {
namespace {

using cuda::copy_async_16;
using cuda::copy_async_commit;
using cuda::copy_async_wait;
using cuda::load_matrix_x2;
using cuda::load_matrix_x4;
using cuda::mma_f16;

constexpr unsigned kAllLanes = 0xffffffffu;

// Device memory with the contents of `source`, or unwritten where that is null.
template <class T>
class DeviceArray {
 public:
  DeviceArray(const T* source, std::size_t n) : bytes_(n * sizeof(T)) {
    DDKERN_CUDA_TRY(cudaMalloc(&data_, bytes_));
    if (source) DDKERN_CUDA_TRY(cudaMemcpy(data_, source, bytes_, cudaMemcpyHostToDevice));
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* get() const { return data_; }
  void copy_to(T* target) const {
    DDKERN_CUDA_TRY(cudaMemcpy(target, data_, bytes_, cudaMemcpyDeviceToHost));
  }

 private:
  T* data_ = nullptr;
  std::size_t bytes_;
};

template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    block_sums_kernel(const float* x, int n, float* sums, int n_sums, double* total, Bug bug) {
  __shared__ float partial[kThreads];
  const int thread = static_cast<int>(threadIdx.x);
  const int i = static_cast<int>(blockIdx.x) * kThreads + thread;
  partial[thread] = i < n ? x[i] : 0.0f;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (thread < half) partial[thread] += partial[thread + half];
    if (bug == Bug::kMissingBarrier) continue;
    if (bug == Bug::kDivergentBarrier && thread >= kThreads / 2) continue;
    __syncthreads();
  }
  if (thread == 0) {
    sums[blockIdx.x] = partial[0];
    if (bug == Bug::kWriteOutside && blockIdx.x == 0) sums[n_sums] = partial[0];
    atomicAdd(total, static_cast<double>(partial[0]));
  }
}

__global__ void __launch_bounds__(128)
    nearest_rows_kernel(const float* x, int n, const float* c, int k, int* nearest, Bug bug) {
  const int row = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (row >= n) return;
  if (bug == Bug::kMissingLanes && lane >= k) return;
  float best = INFINITY;
  int best_j = k;
  for (int j = lane; j < k; j += 32) {
    const float difference = __fsub_rn(x[row], __ldg(&c[j]));
    const float distance = __fmul_rn(difference, difference);
    if (distance < best) {
      best = distance;
      best_j = j;
    }
  }
  for (int step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, best, step);
    const int other_j = __shfl_xor_sync(kAllLanes, best_j, step);
    if (other < best || (other == best && other_j < best_j)) {
      best = other;
      best_j = other_j;
    }
  }
  if (lane == 0) nearest[row] = best_j;
}

// One warp for each 16 x 8 tile of d. A row of 16 halves is 32 bytes: two 16-byte pieces.
__global__ void __launch_bounds__(32)
    tile_product_kernel(const std::uint16_t* a, const std::uint16_t* b, int m, int n, int depth,
                        float* d, Bug bug) {
  DDKERN_DYNAMIC_SHARED(std::uint16_t, tiles);  // two stages of A [16 x 16] and B [8 x 16]
  constexpr int kStage = (16 + 8) * 16;
  const int lane = static_cast<int>(threadIdx.x);
  const int first_row = static_cast<int>(blockIdx.y) * 16;
  const int first_column = static_cast<int>(blockIdx.x) * 8;

  const auto start = [&](int step) {
    std::uint16_t* const stage = tiles + (step % 2) * kStage;
    for (int piece = lane; piece < (16 + 8) * 2; piece += 32) {
      const int row = piece / 2, column = (piece % 2) * 8;
      const bool is_a = row < 16;
      const int source_row = is_a ? first_row + row : first_column + row - 16;
      const bool valid = source_row < (is_a ? m : n) && step * 16 < depth;
      const std::uint16_t* const from =
          (is_a ? a : b) +
          (valid ? static_cast<std::int64_t>(source_row) * depth + step * 16 + column : 0);
      copy_async_16(stage + row * 16 + column, from, valid);
    }
    copy_async_commit();
  };

  float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  const int n_steps = depth / 16;
  start(0);
  for (int step = 0; step < n_steps; ++step) {
    start(step + 1);
    if (bug != Bug::kMissingWait) copy_async_wait<1>();
    __syncwarp();
    const std::uint16_t* const stage = tiles + (step % 2) * kStage;
    std::uint32_t a_pairs[4], b_pairs[2];
    // Matrices: top left, bottom left, top right, bottom right.
    load_matrix_x4(a_pairs, stage + (lane % 16) * 16 + (lane / 16) * 8);
    load_matrix_x2(b_pairs, stage + (16 + lane % 8) * 16 + (lane / 8 % 2) * 8);
    mma_f16(sums, a_pairs, b_pairs);
    __syncwarp();
  }
  copy_async_wait<0>();
  if (bug == Bug::kSharedOverrun) tiles[2 * kStage + lane] = 0;

  for (int i = 0; i < 4; ++i) {
    const int row = first_row + lane / 4 + 8 * (i / 2);
    const int column = first_column + 2 * (lane % 4) + i % 2;
    if (row < m && column < n) d[static_cast<std::int64_t>(row) * n + column] = sums[i];
  }
}

__global__ void __launch_bounds__(64)
    warp_neighbours_kernel(const float* x, int n, float* out, Bug bug) {
  __shared__ float values[64];
  const int thread = static_cast<int>(threadIdx.x);
  const int i = static_cast<int>(blockIdx.x) * 64 + thread;
  values[thread] = i < n ? x[i] : 0.0f;
  if (bug != Bug::kMissingWarpBarrier) __syncwarp();
  const float before = thread % 32 == 0 ? 0.0f : values[thread - 1];
  const float after = thread % 32 == 31 ? 0.0f : values[thread + 1];
  if (i < n) out[i] = before + after;
}

__global__ void __launch_bounds__(64) collectives_kernel(const int* x, int n, int* out) {
  const int thread = static_cast<int>(threadIdx.x);
  const int i = static_cast<int>(blockIdx.x) * 64 + thread;
  const int value = x[i];
  const unsigned half_warp = thread % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
  const int results[kResults] = {
      __shfl_sync(kAllLanes, value, 5),
      __shfl_sync(kAllLanes, value, 3, 8),
      __shfl_xor_sync(kAllLanes, value, 6),
      __shfl_down_sync(kAllLanes, value, 3),
      __shfl_down_sync(half_warp, value, 3u, 8),
      __shfl_up_sync(kAllLanes, value, 3),
      static_cast<int>(__ballot_sync(kAllLanes, value > 2)),
      __any_sync(half_warp, value > 5) + 2 * __all_sync(half_warp, value > 0),
      static_cast<int>(__match_any_sync(kAllLanes, value)),
      __syncthreads_or(value > 6) != 0,
      __syncthreads_and(value > 0) != 0,
      __syncthreads_count(value > 3),
      static_cast<int>(__shfl_xor_sync(kAllLanes, static_cast<double>(value), 1)),
  };
  for (int r = 0; r < kResults; ++r) out[r * n + i] = results[r];
}

unsigned blocks(int n, int each) { return static_cast<unsigned>((n + each - 1) / each); }

}  // namespace

void block_sums(const float* x, int n, float* sums, int n_sums, double* total, Bug bug) {
  const DeviceArray<float> x_device(x, static_cast<std::size_t>(n));
  const DeviceArray<float> sums_device(nullptr, static_cast<std::size_t>(n_sums));
  const DeviceArray<double> total_device(total, 1);
  DDKERN_LAUNCH((block_sums_kernel<256>), blocks(n, 256), 256, 0, nullptr, x_device.get(), n,
                sums_device.get(), n_sums, total_device.get(), bug);
  DDKERN_CUDA_TRY(cudaDeviceSynchronize());
  sums_device.copy_to(sums);
  total_device.copy_to(total);
}

void nearest_rows(const float* x, int n, const float* c, int k, int* nearest, Bug bug) {
  const DeviceArray<float> x_device(x, static_cast<std::size_t>(n));
  const DeviceArray<float> c_device(c, static_cast<std::size_t>(k));
  const DeviceArray<int> nearest_device(nullptr, static_cast<std::size_t>(n));
  DDKERN_LAUNCH(nearest_rows_kernel, blocks(n, 4), 128, 0, nullptr, x_device.get(), n,
                c_device.get(), k, nearest_device.get(), bug);
  DDKERN_CUDA_TRY(cudaDeviceSynchronize());
  nearest_device.copy_to(nearest);
}

void tile_product(const std::uint16_t* a, const std::uint16_t* b, int m, int n, int depth, float* d,
                  Bug bug) {
  const DeviceArray<std::uint16_t> a_device(a, static_cast<std::size_t>(m) * depth);
  const DeviceArray<std::uint16_t> b_device(b, static_cast<std::size_t>(n) * depth);
  const DeviceArray<float> d_device(nullptr, static_cast<std::size_t>(m) * n);
  DDKERN_LAUNCH(tile_product_kernel, dim3(blocks(n, 8), blocks(m, 16)), 32,
                2 * (16 + 8) * 16 * sizeof(std::uint16_t), nullptr, a_device.get(), b_device.get(),
                m, n, depth, d_device.get(), bug);
  DDKERN_CUDA_TRY(cudaDeviceSynchronize());
  d_device.copy_to(d);
}

void warp_neighbours(const float* x, int n, float* out, Bug bug) {
  const DeviceArray<float> x_device(x, static_cast<std::size_t>(n));
  const DeviceArray<float> out_device(nullptr, static_cast<std::size_t>(n));
  DDKERN_LAUNCH(warp_neighbours_kernel, blocks(n, 64), 64, 0, nullptr, x_device.get(), n,
                out_device.get(), bug);
  DDKERN_CUDA_TRY(cudaDeviceSynchronize());
  out_device.copy_to(out);
}

void collectives(const int* x, int n, int* out) {
  const DeviceArray<int> x_device(x, static_cast<std::size_t>(n));
  const DeviceArray<int> out_device(nullptr, static_cast<std::size_t>(n) * kResults);
  DDKERN_LAUNCH(collectives_kernel, blocks(n, 64), 64, 0, nullptr, x_device.get(), n,
                out_device.get());
  DDKERN_CUDA_TRY(cudaDeviceSynchronize());
  out_device.copy_to(out);
}

}  // namespace ddkern::simt_checks
