// SPDX-License-Identifier: Apache-2.0
#include "core/isa.h"

#include <atomic>
#include <cstdlib>

#include "core/error.h"

namespace ddkern {
namespace {

struct Level {
  Isa isa;
  const char* name;
  bool present;
};

#if defined(__x86_64__) || defined(__i386__)
bool cpu_has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}
bool cpu_has_avx512() {
  return cpu_has_avx2() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq");
}
bool cpu_has_avx512vnni() { return cpu_has_avx512() && __builtin_cpu_supports("avx512vnni"); }
// Every CPU with bfloat16 products multiplies bytes as well.
bool cpu_has_avx512bf16() { return cpu_has_avx512vnni() && __builtin_cpu_supports("avx512bf16"); }
#endif

const std::vector<Level>& levels() {
  static const std::vector<Level> table = [] {
    std::vector<Level> found{{Isa::base, "base", true}};
#if defined(DDKERN_HAVE_AVX2)
    found.push_back({Isa::avx2, "avx2", cpu_has_avx2()});
#endif
#if defined(DDKERN_HAVE_AVX512)
    found.push_back({Isa::avx512, "avx512", cpu_has_avx512()});
#endif
#if defined(DDKERN_HAVE_AVX512VNNI)
    found.push_back({Isa::avx512vnni, "avx512vnni", cpu_has_avx512vnni()});
#endif
#if defined(DDKERN_HAVE_AVX512BF16)
    found.push_back({Isa::avx512bf16, "avx512bf16", cpu_has_avx512bf16()});
#endif
    return found;
  }();
  return table;
}

std::string names_of_available() {
  std::string names;
  for (Isa isa : available_isas())
    names += (names.empty() ? "" : ", ") + std::string(isa_name(isa));
  return names;
}

Isa parse(const std::string& name, const char* where) {
  for (const Level& level : levels()) {
    if (level.present && name == level.name) return level.isa;
  }
  throw InvalidArgument(
      std::string(where) + " is '" + name +
      "'; it must be one of the levels this CPU and this build have: " + names_of_available());
}

std::atomic<int> forced_level{-1};

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::base: return "base";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::avx512vnni: return "avx512vnni";
    case Isa::avx512bf16: return "avx512bf16";
  }
  throw InvalidArgument("unknown instruction-set level");
}

std::vector<Isa> available_isas() {
  std::vector<Isa> found;
  for (const Level& level : levels()) {
    if (level.present) found.push_back(level.isa);
  }
  return found;
}

Isa active_isa() {
  const int forced = forced_level.load();
  if (forced >= 0) return static_cast<Isa>(forced);
  const char* wanted = std::getenv("DDKERN_ISA");
  if (wanted != nullptr && *wanted != '\0') return parse(wanted, "DDKERN_ISA");
  return available_isas().back();
}

std::vector<std::pair<std::string, bool>> cpu_features() {
  std::vector<std::pair<std::string, bool>> features;
#if defined(__x86_64__) || defined(__i386__)
  features.emplace_back("avx2", __builtin_cpu_supports("avx2") != 0);
  features.emplace_back("fma", __builtin_cpu_supports("fma") != 0);
  features.emplace_back("f16c", __builtin_cpu_supports("f16c") != 0);
  features.emplace_back("avx512f", __builtin_cpu_supports("avx512f") != 0);
  features.emplace_back("avx512bw", __builtin_cpu_supports("avx512bw") != 0);
  features.emplace_back("avx512vl", __builtin_cpu_supports("avx512vl") != 0);
  features.emplace_back("avx512dq", __builtin_cpu_supports("avx512dq") != 0);
  features.emplace_back("avx512vnni", __builtin_cpu_supports("avx512vnni") != 0);
  features.emplace_back("avx512bf16", __builtin_cpu_supports("avx512bf16") != 0);
#endif
  return features;
}

void force_isa(const std::string& name) {
  forced_level = name.empty() ? -1 : static_cast<int>(parse(name, "isa"));
}

}  // namespace ddkern
