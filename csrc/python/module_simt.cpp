// SPDX-License-Identifier: Apache-2.0
//
// _simt: the CUDA kernels on the CPU, for tests. It is built with DDKERN_SIMT=ON and never
// installed.
#include "python/bindings.h"

PYBIND11_MODULE(_simt, module, pybind11::mod_gil_not_used()) {
  module.doc() = "The CUDA kernels of ddkern, compiled for the CPU by tests/simt.";
  module.attr("__version__") = DDKERN_VERSION;
  ddkern::python::register_distribution_cuda(module);
  ddkern::python::register_gradient_cuda(module);
  ddkern::python::register_kmeans_cuda(module);
  ddkern::python::register_matching_cuda(module);
  ddkern::python::register_updates_cuda(module);
  ddkern::python::register_simt_checks(module);
}
