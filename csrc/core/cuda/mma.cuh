// SPDX-License-Identifier: Apache-2.0
//
// Tensor-core and asynchronous-copy instructions of sm_80 and later, one function each. Every lane
// of the warp takes part in every call of the first three. With g = lane / 4 and t = lane % 4, a
// register of two f16 holding the smaller column (A) or row (B) in its lower half:
//
//   A  [16 x 16]   a[0] row g,      columns 2t, 2t + 1      a[2] row g,      columns 2t + 8, 2t + 9
//                  a[1] row g + 8,  columns 2t, 2t + 1      a[3] row g + 8,  columns 2t + 8, 2t + 9
//   B  [16 x 8]    b[0] rows 2t, 2t + 1, column g           b[1] rows 2t + 8, 2t + 9, column g
//   D  [16 x 8]    d[0], d[1] row g, columns 2t, 2t + 1     d[2], d[3] row g + 8, same columns
#pragma once

#include <cstdint>

#include "core/cuda/launch.h"

namespace ddkern::cuda {

// Bound of one m16n8k16 step, in units of the largest magnitude that takes part: the accumulator, a
// product or a partial sum. 17 terms, each cut to 24 bits below the largest, or twice nine where
// the device takes two steps of eight; and what the results of those steps are cut by.
inline constexpr int kMmaErrorUnits = 20;  // of 2^-23
inline constexpr double kMmaError = kMmaErrorUnits / static_cast<double>(1 << 23);

// d += a b: f16 products, exact; float sums, within kMmaError.
__device__ __forceinline__ void mma_f16(float (&d)[4], const std::uint32_t (&a)[4],
                                        const std::uint32_t (&b)[2]) {
#if defined(__CUDA_ARCH__)
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif defined(DDKERN_SIMT)
  simt::mma_f16(d, a, b, kMmaError);
#endif
}

// Four 8 x 8 matrices of f16 from shared memory. Lane 8 i + j passes the address of row j of matrix
// i, 16 bytes at a multiple of 16; r[i] receives row g, columns 2t and 2t + 1 of matrix i. The rows
// of a row-major A tile in the order (top left, bottom left, top right, bottom right) give a[0..3].
__device__ __forceinline__ void load_matrix_x4(std::uint32_t (&r)[4], const void* shared_row) {
#if defined(__CUDA_ARCH__)
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
#elif defined(DDKERN_SIMT)
  simt::load_matrix(r, 4, shared_row);
#endif
}

// Two matrices; the addresses of lanes 0 to 15 count, those of the others must be valid only.
__device__ __forceinline__ void load_matrix_x2(std::uint32_t (&r)[2], const void* shared_row) {
#if defined(__CUDA_ARCH__)
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(address)
               : "memory");
#elif defined(DDKERN_SIMT)
  simt::load_matrix(r, 2, shared_row);
#endif
}

// Starts copying 16 bytes, both addresses at a multiple of 16. Where `valid` is false, `global` is
// not read and 16 zero bytes arrive. The bytes are there for this thread after copy_async_wait()
// and for the others after a barrier that follows it.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid) {
#if defined(__CUDA_ARCH__)
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
#elif defined(DDKERN_SIMT)
  simt::copy_async_16(shared, global, valid);
#endif
}

// Closes the group of copies that this thread started since the last call.
__device__ __forceinline__ void copy_async_commit() {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.commit_group;" ::: "memory");
#elif defined(DDKERN_SIMT)
  simt::copy_async_commit();
#endif
}

// Waits until at most the kPending youngest groups of this thread are under way.
template <int kPending>
__device__ __forceinline__ void copy_async_wait() {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#elif defined(DDKERN_SIMT)
  simt::copy_async_wait(kPending);
#endif
}

}  // namespace ddkern::cuda
