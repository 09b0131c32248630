// SPDX-License-Identifier: Apache-2.0
// Lists of parameters as Python names them, for the CPU and for devices.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/error.h"
#include "matching/matching.h"
#include "python/addresses.h"

namespace ddkern::python {

inline void check_totals(const matching::TotalOf& total_of, std::int64_t n_totals,
                         const Sizes& sizes) {
  check_count(total_of, sizes, "total_of");
  for (const std::int64_t total : total_of) {
    if (total < 0 || total >= n_totals) {
      throw InvalidArgument("total_of must have indices of totals");
    }
  }
}

template <class T>
std::vector<matching::TrajectoryBlock<T>> tensors_of(const Addresses& student,
                                                     const Addresses& target,
                                                     const std::optional<Addresses>& start,
                                                     const Sizes& sizes) {
  std::vector<matching::TrajectoryBlock<T>> tensors;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    tensors.push_back({sizes[i], pointer<const T>(student[i]), pointer<const T>(target[i]),
                       start ? pointer<const T>((*start)[i]) : nullptr});
  }
  return tensors;
}

template <class T>
std::vector<matching::DifferenceBlock<T>> differences_of(const Addresses& a, const Addresses& b,
                                                         const Addresses& out, const Sizes& sizes) {
  std::vector<matching::DifferenceBlock<T>> tensors;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    tensors.push_back(
        {sizes[i], pointer<const T>(a[i]), pointer<const T>(b[i]), pointer<T>(out[i])});
  }
  return tensors;
}

}  // namespace ddkern::python
