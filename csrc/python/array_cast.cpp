// SPDX-License-Identifier: Apache-2.0
#include "python/array_cast.h"

#include <string>

#include "core/error.h"

namespace py = pybind11;

namespace ddkern::python {
namespace {

DType dtype_of(const py::array& x, bool bfloat16) {
  const py::dtype dtype = x.dtype();
  const char order = dtype.byteorder();
  if (order == '>') throw InvalidArgument("x must be in native byte order");
  const auto size = dtype.itemsize();
  switch (dtype.kind()) {
    case 'f':
      if (size == 2) return DType::f16;
      if (size == 4) return DType::f32;
      if (size == 8) return DType::f64;
      break;
    case 'b': return DType::boolean;
    case 'i':
      if (size == 1) return DType::i8;
      if (size == 2) return DType::i16;
      if (size == 4) return DType::i32;
      if (size == 8) return DType::i64;
      break;
    case 'u':
      if (size == 1) return DType::u8;
      if (size == 2) return bfloat16 ? DType::bf16 : DType::u16;
      if (size == 4) return DType::u32;
      if (size == 8) return DType::u64;
      break;
    default: break;
  }
  throw InvalidArgument("x has dtype " + py::str(dtype).cast<std::string>() +
                        ", which cannot be read");
}

}  // namespace

bool reads_as_double(DType dtype) {
  switch (dtype) {
    case DType::f64:
    case DType::i32:
    case DType::u32:
    case DType::i64:
    case DType::u64: return true;
    default: return false;
  }
}

RowSource row_source(const py::array& x, bool bfloat16, int batch_dims) {
  if (batch_dims < 0 || batch_dims > 1 || x.ndim() < batch_dims + 1) {
    throw InvalidArgument("x has too few dimensions");
  }
  RowSource source{};
  source.data = static_cast<const char*>(x.data());
  source.dtype = dtype_of(x, bfloat16);
  source.n_inner = x.shape(batch_dims);
  source.n_rows = batch_dims == 1 ? x.shape(0) * x.shape(1) : x.shape(0);
  source.outer_stride_in_bytes = batch_dims == 1 ? x.strides(0) : 0;
  source.inner_stride_in_bytes = x.strides(batch_dims);
  source.feature_offsets_in_bytes = {0};
  for (py::ssize_t axis = batch_dims + 1; axis < x.ndim(); ++axis) {
    std::vector<std::int64_t> longer;
    longer.reserve(source.feature_offsets_in_bytes.size() *
                   static_cast<std::size_t>(x.shape(axis)));
    for (const std::int64_t offset : source.feature_offsets_in_bytes) {
      for (py::ssize_t i = 0; i < x.shape(axis); ++i)
        longer.push_back(offset + i * x.strides(axis));
    }
    source.feature_offsets_in_bytes.swap(longer);
  }
  if (source.n_rows == 0 || source.n_features() == 0) throw InvalidArgument("x is empty");
  return source;
}

}  // namespace ddkern::python
