// SPDX-License-Identifier: Apache-2.0
// numpy arrays to RowSource, with the checks that keep memory safe.
#pragma once

#include <pybind11/numpy.h>

#include "core/rows.h"

namespace ddkern::python {

// x (n, *feature), or (b, n, *feature) with batch_dims 1; `bfloat16` says that uint16 holds
// bfloat16. The result points into x.
RowSource row_source(const pybind11::array& x, bool bfloat16, int batch_dims);

// Whether rows of this dtype are read as float64.
bool reads_as_double(DType dtype);

}  // namespace ddkern::python
