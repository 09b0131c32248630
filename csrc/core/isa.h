// SPDX-License-Identifier: Apache-2.0
// Instruction-set levels: which exist, which this CPU has, which one runs.
//
// The choice is made once a call, outside every loop. DDKERN_ISA or force_isa() narrows it. Adding
// a level: one enum value, one line in kLevels (isa.cpp), one flags line in CMakeLists.txt and one
// short file an op.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace ddkern {

enum class Isa { base = 0, avx2 = 1, avx512 = 2, avx512vnni = 3, avx512bf16 = 4 };

const char* isa_name(Isa isa);

// Levels that were compiled in and that this CPU can run, weakest first.
std::vector<Isa> available_isas();

// The level that the next call uses. Throws InvalidArgument for an unknown or absent DDKERN_ISA.
Isa active_isa();

// The CPU features that decide the levels, and whether this CPU has them.
std::vector<std::pair<std::string, bool>> cpu_features();

// Force a level ("" undoes it). Throws InvalidArgument when the level is unknown or absent.
void force_isa(const std::string& name);

// One table of functions an ISA level of an op; absent levels hold nullptr.
template <class Ops>
struct IsaTable {
  const Ops* levels[5];

  // The strongest level present that is not above `isa`.
  const Ops& operator[](Isa isa) const {
    int level = static_cast<int>(isa);
    while (level > 0 && levels[level] == nullptr) --level;
    return *levels[level];
  }
};

}  // namespace ddkern
