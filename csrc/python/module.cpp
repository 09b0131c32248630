// SPDX-License-Identifier: Apache-2.0
#include "python/bindings.h"

#ifndef DDKERN_VERSION
#error "DDKERN_VERSION must be defined by the build"
#endif

#if PYBIND11_VERSION_HEX >= 0x020D0000
PYBIND11_MODULE(_core, module, pybind11::mod_gil_not_used()) {
#else
PYBIND11_MODULE(_core, module) {
#endif
  module.doc() = "The CPU kernels of ddkern. Arguments are checked by the Python layer above.";
  module.attr("__version__") = DDKERN_VERSION;
  ddkern::python::register_backend(module);
  ddkern::python::register_kmeans(module);
  ddkern::python::register_network(module);
  ddkern::python::register_matching(module);
  ddkern::python::register_gradient(module);
  ddkern::python::register_distribution(module);
  ddkern::python::register_updates(module);
}
