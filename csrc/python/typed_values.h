// SPDX-License-Identifier: Apache-2.0
// The values of numpy arrays that Python has prepared: a shape and a type, without gaps.
#pragma once

#include <pybind11/numpy.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <vector>

#include "core/bfloat16.h"
#include "core/error.h"

namespace ddkern::python {

using Shape = std::initializer_list<pybind11::ssize_t>;

// The values of an array that must have this shape, be contiguous, and hold numbers of type T, or
// for Bfloat16 the bits of bfloat16 as uint16.
template <class T>
T* values_of(const pybind11::array& array, Shape shape, bool written, const char* name) {
  const char kind = std::is_floating_point_v<T> ? 'f' : std::is_integral_v<T> ? 'i' : 'u';
  const pybind11::dtype dtype = array.dtype();
  const bool fits =
      dtype.byteorder() != '>' && dtype.itemsize() == sizeof(T) && dtype.kind() == kind &&
      array.ndim() == static_cast<pybind11::ssize_t>(shape.size()) &&
      std::equal(shape.begin(), shape.end(), array.shape()) &&
      (array.flags() & pybind11::array::c_style) != 0 && (!written || array.writeable());
  const auto address = reinterpret_cast<std::uintptr_t>(array.data());
  if (!fits || address % alignof(T) != 0) {
    throw InvalidArgument(std::string(name) + " has another dtype, shape or layout than it must");
  }
  return const_cast<T*>(static_cast<const T*>(array.data()));
}

using Arrays = std::vector<pybind11::array>;

inline void check_count(const Arrays& arrays, const Arrays& first, const char* name) {
  if (arrays.size() != first.size()) {
    throw InvalidArgument(std::string(name) + " has another number of tensors than it must");
  }
}

inline bool hold_bfloat16(const Arrays& arrays) {
  return !arrays.empty() && arrays.front().dtype().itemsize() == sizeof(Bfloat16);
}

}  // namespace ddkern::python
