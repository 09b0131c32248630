// SPDX-License-Identifier: Apache-2.0
// What this machine reaches at most, measured: the denominators of the benchmarks.
#pragma once

#include "core/isa.h"

namespace ddkern::kmeans {

struct MachinePeak {
  double fma_gflops;   // float32 FMA out of L1
  double bf16_gflops;  // bfloat16 products out of L1, 0 where the CPU has none
  double byte_gops;    // products of bytes out of L1, 0 where the CPU has none
  double copy_gbps;    // bytes read plus bytes written by a copy that no cache holds
};

MachinePeak probe_peak(Isa isa, int n_threads);

}  // namespace ddkern::kmeans
