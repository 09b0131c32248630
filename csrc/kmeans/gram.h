// SPDX-License-Identifier: Apache-2.0
// The Gram matrix of a group's centred rows: every entry is the float32 chain of docs/numerics.md
// section 6, so it holds the bits that a direct product would give.
#pragma once

#include <cstdint>

#include "core/buffer.h"
#include "kmeans/group.h"

namespace ddkern::kmeans {

class GramMatrix {
 public:
  template <class T>
  GramMatrix(const Group<T>& group, const Team& team);

  // Chain dots of row i with every row: [stride()], padded with zeros to whole blocks.
  const float* row(std::int64_t i) const { return entries_.data() + i * stride_; }
  std::int64_t stride() const { return stride_; }

 private:
  std::int64_t stride_;
  Buffer<float> entries_;
};

}  // namespace ddkern::kmeans
