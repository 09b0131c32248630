// SPDX-License-Identifier: Apache-2.0
// The ops of one instruction-set level, looked up once a call.
#pragma once

#include "core/isa.h"
#include "kmeans/accumulate/accumulate.h"
#include "kmeans/distance/distance.h"
#include "kmeans/dots/dots.h"
#include "kmeans/gram_sum/gram_sum.h"
#include "kmeans/pack/pack.h"
#include "kmeans/potential/potential.h"
#include "kmeans/scan/scan.h"
#include "kmeans/shortlist/shortlist.h"

namespace ddkern::kmeans {

template <class T>
struct Kernels {
  explicit Kernels(Isa level)
      : isa(level), pack(pack_ops<T>(level)), dots(dots_ops(level)), scan(scan_ops(level)),
        shortlist(shortlist_ops(level)), distance(distance_ops(level)),
        accumulate(accumulate_ops<T>(level)), potential(potential_ops(level)),
        gram_sum(gram_sum_ops(level)) {}

  Isa isa;
  const PackOps<T>& pack;
  const DotsOps& dots;
  const ScanOps& scan;
  const ShortlistOps& shortlist;
  const DistanceOps& distance;
  const AccumulateOps<T>& accumulate;
  const PotentialOps& potential;
  const GramSumOps& gram_sum;
};

}  // namespace ddkern::kmeans
