// SPDX-License-Identifier: Apache-2.0
// One register_*() a file; the module_*.cpp call them.
#pragma once

#include <pybind11/pybind11.h>

namespace ddkern::python {

void register_backend(pybind11::module_& module);
void register_distribution(pybind11::module_& module);
void register_distribution_cuda(pybind11::module_& module);
void register_gradient(pybind11::module_& module);
void register_gradient_cuda(pybind11::module_& module);
void register_kmeans(pybind11::module_& module);
void register_kmeans_cuda(pybind11::module_& module);
void register_matching(pybind11::module_& module);
void register_matching_cuda(pybind11::module_& module);
void register_network(pybind11::module_& module);
void register_updates(pybind11::module_& module);
void register_updates_cuda(pybind11::module_& module);
void register_simt_checks(pybind11::module_& module);  // tests/simt

}  // namespace ddkern::python
