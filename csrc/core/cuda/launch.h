// SPDX-License-Identifier: Apache-2.0
//
// What every file with device code starts from: the CUDA runtime, launches and their errors. The
// same sources compile with nvcc for a GPU and, with DDKERN_SIMT defined, with the C++ compiler for
// the threads of tests/simt, where every kernel runs on machines without a GPU.
//
//   DDKERN_LAUNCH((my_kernel<float, 4>), grid, block, shared_bytes, stream, arguments...)
//   DDKERN_DYNAMIC_SHARED(float, tile);   // inside a kernel: float* tile, 16-byte aligned
//   DDKERN_CUDA_TRY(cudaMemsetAsync(...));
//
// To run on both, a kernel keeps to these rules: threads of a warp exchange values by the *_sync
// functions only, every lane named in a mask takes part, no thread leaves before a barrier that
// others wait at, and static shared arrays are of trivial type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#elif defined(DDKERN_SIMT)
#include "simt/cuda_on_cpu.h"
#else
#error "core/cuda/launch.h: compile with nvcc, or define DDKERN_SIMT to run on the CPU"
#endif

namespace ddkern::cuda {

// A call of the CUDA runtime failed. Python sees RuntimeError.
struct CudaError : std::runtime_error {
  CudaError(const char* what_failed, cudaError_t status)
      : std::runtime_error(std::string(what_failed) + ": " + cudaGetErrorName(status) + " (" +
                           cudaGetErrorString(status) + ")"),
        code(status) {}

  cudaError_t code;
};

inline void check(cudaError_t status, const char* what_failed) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // the failure is in the exception now; nobody else should trip over it
  throw CudaError(what_failed, status);
}

// The caller's device for the time of a call.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    check(cudaSetDevice(device), "cudaSetDevice");
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  ~OnDevice() { cudaSetDevice(before_); }

 private:
  int before_ = 0;
};

// Blocks of so many threads that n threads take.
inline unsigned blocks_for(std::int64_t n, int threads) {
  return static_cast<unsigned>((n + threads - 1) / threads);
}

// Dynamic shared memory up to here is granted without asking for it.
inline constexpr std::size_t kDefaultSharedBytes = 48 << 10;

// The target of DDKERN_LAUNCH. Arguments are converted to the parameter types of the kernel.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block,
            std::size_t shared_bytes, cudaStream_t stream, Arguments&&... arguments) {
  if (shared_bytes > kDefaultSharedBytes) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes)),
          name);
  }
#if defined(__CUDACC__)
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Arguments&&>(arguments)...);
#else
  simt::launch(name, kernel, grid, block, shared_bytes, stream,
               static_cast<Arguments&&>(arguments)...);
#endif
  check(cudaGetLastError(), name);
}

}  // namespace ddkern::cuda

#define DDKERN_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                    \
  ::ddkern::cuda::launch(#kernel, kernel, dim3(grid), dim3(block), shared_bytes, stream, \
                         __VA_ARGS__)

#define DDKERN_CUDA_TRY(call) ::ddkern::cuda::check((call), #call)

#if defined(__CUDACC__)
#define DDKERN_DYNAMIC_SHARED(type, name)                                       \
  extern __shared__ __align__(16) unsigned char ddkern_dynamic_shared_memory[]; \
  type* const name = reinterpret_cast<type*>(ddkern_dynamic_shared_memory)
#else
#define DDKERN_DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(::ddkern::simt::dynamic_shared())
#endif
