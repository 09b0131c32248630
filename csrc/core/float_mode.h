// SPDX-License-Identifier: Apache-2.0
// Denormals and rounding as IEEE 754 has them, whatever the caller's thread was set to. Some
// libraries switch denormals off for the whole thread (torch.set_flush_denormal, anything linked
// with -ffast-math), and worker threads do not follow: bits would depend on who asked and how many
// helped.
#pragma once

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace ddkern {

class StandardFloatMode {
 public:
#if defined(__SSE__)
  StandardFloatMode() : before_(_mm_getcsr()) { _mm_setcsr(kDefault); }
  ~StandardFloatMode() { _mm_setcsr(before_); }

 private:
  static constexpr unsigned kDefault = 0x1f80;  // round to nearest, no traps, denormals kept
  unsigned before_;
#elif defined(__aarch64__)
  StandardFloatMode() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"(0ul));
  }
  ~StandardFloatMode() { asm volatile("msr fpcr, %0" : : "r"(before_)); }

 private:
  unsigned long before_;
#else
  StandardFloatMode() {}
  ~StandardFloatMode() {}
#endif

 public:
  StandardFloatMode(const StandardFloatMode&) = delete;
  StandardFloatMode& operator=(const StandardFloatMode&) = delete;
};

}  // namespace ddkern
