// SPDX-License-Identifier: Apache-2.0
//
// The checks under the thread sanitizer: `simt_race 2` plants bug 2, `simt_race 0` none.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "simt/checks.h"

int main(int argc, char** argv) {
  using namespace ddkern::simt_checks;
  const Bug bug = static_cast<Bug>(argc > 1 ? std::atoi(argv[1]) : 0);
  const int n = 1024, depth = 64, rows = 40;
  std::vector<float> x(n, 1.0f), sums(n / 256), out(n);
  std::vector<int> nearest(n), ints(n, 3), results(static_cast<std::size_t>(n) * kResults);
  double total = 0;
  block_sums(x.data(), n, sums.data(), n / 256, &total, bug);
  nearest_rows(x.data(), n, out.data(), 77, nearest.data(), bug);
  const std::vector<std::uint16_t> ones(rows * depth, 0x3c00);
  std::vector<float> product(rows * rows);
  tile_product(ones.data(), ones.data(), rows, rows, depth, product.data(), bug);
  warp_neighbours(x.data(), n, out.data(), bug);
  collectives(ints.data(), n, results.data());
  std::puts("done");
  return product[0] == depth ? 0 : 1;
}
