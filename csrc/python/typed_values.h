// SPDX-License-Identifier: Apache-2.0
// The values of numpy arrays that Python has prepared: a shape and a type, without gaps.
#pragma once

#include <pybind11/numpy.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>

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

}  // namespace ddkern::python
