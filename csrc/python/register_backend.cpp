// SPDX-License-Identifier: Apache-2.0
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <vector>

#include "core/isa.h"
#include "core/parallel.h"
#include "kmeans/probe.h"
#include "python/bindings.h"

namespace py = pybind11;

namespace ddkern::python {

void register_backend(py::module_& module) {
  module.attr("has_openmp") = built_with_openmp();
  module.def(
      "isa_available",
      [] {
        std::vector<std::string> names;
        for (const Isa isa : available_isas()) names.emplace_back(isa_name(isa));
        return names;
      },
      "Instruction-set levels that this build has and this CPU can run, weakest first.");
  module.def(
      "isa_active", [] { return std::string(isa_name(active_isa())); },
      "The level that the next call uses; DDKERN_ISA narrows it.");
  module.def(
      "isa_force", [](const std::optional<std::string>& name) { force_isa(name.value_or("")); },
      py::arg("name"), "Force a level; None undoes it.");
  module.def(
      "cpu_features",
      [] {
        py::dict features;
        for (const auto& [name, present] : cpu_features()) features[name.c_str()] = present;
        return features;
      },
      "The CPU features that decide the levels, and whether this CPU has them.");
  module.def("max_threads", &max_threads, "What n_threads=None means now.");
  module.def(
      "probe_peak",
      [](int n_threads) {
        kmeans::MachinePeak peak{};
        {
          const py::gil_scoped_release release;
          peak = kmeans::probe_peak(active_isa(), n_threads);
        }
        py::dict result;
        result["fma_gflops"] = peak.fma_gflops;
        result["bf16_gflops"] = peak.bf16_gflops;
        result["byte_gops"] = peak.byte_gops;
        result["copy_gbps"] = peak.copy_gbps;
        return result;
      },
      py::arg("n_threads"), "What the machine reaches at most with so many threads, measured.");
}

}  // namespace ddkern::python
