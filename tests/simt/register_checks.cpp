// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/cuda/pieces.h"
#include "matching/cuda/mmd_plan.h"
#include "python/bindings.h"
#include "simt/checks.h"
#include "simt/cuda_on_cpu.h"

namespace py = pybind11;

namespace {

using ddkern::simt_checks::Bug;

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

// A test may change one option and keep the others.
py::dict options(py::kwargs changes) {
  ddkern::simt::Options& all = ddkern::simt::options();
  for (const auto& [key, value] : changes) {
    const auto name = key.cast<std::string>();
    if (name == "seed") {
      all.seed = value.cast<std::uint64_t>();
    } else if (name == "host_threads") {
      all.host_threads = value.cast<int>();
    } else if (name == "mma_error") {
      all.mma_error = value.cast<int>();
    } else if (name == "late_copies") {
      all.late_copies = value.cast<bool>();
    } else if (name == "memory") {
      all.memory = value.cast<std::size_t>();
    } else {
      throw py::key_error(name);
    }
  }
  py::dict now;
  now["seed"] = all.seed;
  now["host_threads"] = all.host_threads;
  now["mma_error"] = all.mma_error;
  now["late_copies"] = all.late_copies;
  now["memory"] = all.memory;
  return now;
}

py::tuple block_sums(const Array<float>& x, int bug) {
  const int n = static_cast<int>(x.size()), n_sums = (n + 255) / 256;
  Array<float> sums(n_sums);
  double total = 0;
  ddkern::simt_checks::block_sums(x.data(), n, sums.mutable_data(), n_sums, &total,
                                  static_cast<Bug>(bug));
  return py::make_tuple(sums, total);
}

Array<int> nearest_rows(const Array<float>& x, const Array<float>& c, int bug) {
  Array<int> nearest(x.size());
  ddkern::simt_checks::nearest_rows(x.data(), static_cast<int>(x.size()), c.data(),
                                    static_cast<int>(c.size()), nearest.mutable_data(),
                                    static_cast<Bug>(bug));
  return nearest;
}

Array<float> tile_product(const Array<std::uint16_t>& a, const Array<std::uint16_t>& b, int bug) {
  Array<float> d({a.shape(0), b.shape(0)});
  ddkern::simt_checks::tile_product(a.data(), b.data(), static_cast<int>(a.shape(0)),
                                    static_cast<int>(b.shape(0)), static_cast<int>(a.shape(1)),
                                    d.mutable_data(), static_cast<Bug>(bug));
  return d;
}

Array<float> warp_neighbours(const Array<float>& x, int bug) {
  Array<float> out(x.size());
  ddkern::simt_checks::warp_neighbours(x.data(), static_cast<int>(x.size()), out.mutable_data(),
                                       static_cast<Bug>(bug));
  return out;
}

Array<int> collectives(const Array<int>& x) {
  Array<int> out({static_cast<py::ssize_t>(ddkern::simt_checks::kResults), x.size()});
  ddkern::simt_checks::collectives(x.data(), static_cast<int>(x.size()), out.mutable_data());
  return out;
}

py::list plan_pieces(const std::vector<std::int64_t>& sizes, std::int64_t piece) {
  py::list launches;
  for (const auto& launch : ddkern::cuda::plan_pieces(sizes, piece)) {
    launches.append(py::make_tuple(launch.first, launch.last, launch.first_piece, launch.n_pieces,
                                   launch.capacity));
  }
  return launches;
}

// Of the means of two sets, and of the weights of the first stripe.
py::tuple tile_sides(std::int64_t n, std::int64_t m, int n_multiprocessors) {
  using namespace ddkern::matching::cuda;
  const std::int64_t rows = std::min(n, stripe_panels(n, m) * ddkern::matching::kPanel);
  return py::make_tuple(static_cast<int>(side_for_means(n, m, n_multiprocessors)),
                        static_cast<int>(side_for_weights(rows, n, m, n_multiprocessors)));
}

}  // namespace

namespace ddkern::python {

void register_simt_checks(py::module_& module) {
  module.def("simt_options", &options, "Change the options named, and return all of them.");

  module.def("check_block_sums", &block_sums, py::arg("x"), py::arg("bug") = 0);
  module.def("check_nearest_rows", &nearest_rows, py::arg("x"), py::arg("c"), py::arg("bug") = 0);
  module.def("check_tile_product", &tile_product, py::arg("a"), py::arg("b"), py::arg("bug") = 0);
  module.def("check_warp_neighbours", &warp_neighbours, py::arg("x"), py::arg("bug") = 0);
  module.def("check_collectives", &collectives, py::arg("x"));
  module.def("check_plan_pieces", &plan_pieces, py::arg("sizes"), py::arg("piece"));
  module.def("check_tile_sides", &tile_sides, py::arg("n"), py::arg("m"),
             py::arg("n_multiprocessors"));
  module.def("check_stripe_panels", &ddkern::matching::cuda::stripe_panels, py::arg("n"),
             py::arg("m"));

  module.def("float_to_half", py::vectorize([](float x) -> std::uint16_t {
               return __half_as_ushort(__float2half_rn(x));
             }));
  module.def("half_to_float", py::vectorize([](std::uint16_t bits) -> float {
               return __half2float(__ushort_as_half(bits));
             }));
  module.def("double_to_float_up", py::vectorize([](double x) { return __double2float_ru(x); }));
  module.def("double_to_float_down", py::vectorize([](double x) { return __double2float_rd(x); }));
  module.def("add_up", py::vectorize([](float x, float y) { return __fadd_ru(x, y); }));
  module.def("multiply_up", py::vectorize([](float x, float y) { return __fmul_ru(x, y); }));
  module.def("root_up", py::vectorize([](float x) { return __fsqrt_ru(x); }));
}

}  // namespace ddkern::python
