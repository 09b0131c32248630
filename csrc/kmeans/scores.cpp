// SPDX-License-Identifier: Apache-2.0
#include "kmeans/scores.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace ddkern::kmeans {

template <class T>
void Scores<T>::distort(std::int64_t block, float* products, const ColumnSet* whole,
                        const float* tails, const float* column_tails) const {
  const std::int64_t n = group_.n_features();
  const double scale = frame().scale();
  std::vector<T> row_scratch(static_cast<std::size_t>(n));
  std::vector<double> distances(static_cast<std::size_t>(n_columns_));
  for (int p = 0; p < kBlockPoints; ++p) {
    const std::int64_t i = block * kBlockPoints + p;
    if (i >= group_.n()) break;
    const T* x = group_.row(group_.row_at(i), row_scratch.data());
    double sq_norm = 0;
    for (std::int64_t j = 0; j < n; ++j) {
      const double y = static_cast<double>(x[j]) * scale - static_cast<double>(frame().centre[j]);
      sq_norm += y * y;
    }
    std::int64_t nearest = 0;
    for (std::int64_t k = 0; k < n_columns_; ++k) {
      distances[k] = group_.kernels().distance(x, misleading_.columns + k * n, scale, n);
      if (distances[k] < distances[nearest]) nearest = k;
    }
    for (std::int64_t k = 0; k < n_columns_; ++k) {
      const double score = distances[k] - sq_norm;
      const double bound = static_cast<double>(this->p(block)[p]) * bounds_.u[k] +
                           static_cast<double>(this->q(block)[p]) * bounds_.v[k] + bounds_.e[k];
      // What the scan rounds on its own is part of the bound and not ours to use up.
      double room = std::max(
          0.0, bound - 0x1p-21 * (std::abs(score) + bound + std::abs(double{bounds_.base[k]})));
      if (whole != nullptr && !whole[p / kHalfBlock].has(k)) {
        room += static_cast<double>(tails[p]) * column_tails[k];
      }
      const double moved = misleading_.up(k, nearest) ? score + room : score - room;
      products[k * kBlockPoints + p] = static_cast<float>(moved - bounds_.base[k]);
    }
  }
}

template class Scores<float>;
template class Scores<double>;

}  // namespace ddkern::kmeans
