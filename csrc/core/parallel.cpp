// SPDX-License-Identifier: Apache-2.0
#include "core/parallel.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/float_mode.h"

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>

#include <climits>
#include <fstream>
#include <string>
#endif

namespace ddkern {
namespace {

// Pieces that nobody has taken.
struct alignas(kThreadAlignment) Stretch {
  std::atomic<std::int64_t> next{0};
  std::int64_t end = 0;
};

std::atomic<bool> in_forked_child{false};

#if defined(__unix__) || defined(__APPLE__)
[[maybe_unused]] const int fork_handler_registered =
    pthread_atfork(nullptr, nullptr, [] { in_forked_child = true; });
#endif

#if defined(__linux__)
// CPUs whose time a container owns, which may be less than it has: "<quota> <period>" or
// "max <period>".
int cpus_of_container() {
  std::ifstream limit("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (!(limit >> quota >> period) || quota == "max" || period <= 0) return INT_MAX;
  return std::max(1, static_cast<int>(std::stod(quota) / period + 0.5));
}
#endif

// What the system is asked takes as long as a small kernel: files are read once, and which CPUs the
// process may use, which may change, is asked again after a while.
[[maybe_unused]] int usable_cpus() {
  static const int of_machine = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
#if defined(__linux__)
  using Clock = std::chrono::steady_clock;
  constexpr auto kAWhile = std::chrono::milliseconds(20);
  static const int of_container = cpus_of_container();
  thread_local int of_process = 0;
  thread_local Clock::time_point asked_at;
  const auto now = Clock::now();
  if (of_process == 0 || now - asked_at > kAWhile) {
    cpu_set_t set;
    of_process =
        sched_getaffinity(0, sizeof(set), &set) == 0 ? std::max(1, CPU_COUNT(&set)) : of_machine;
    asked_at = now;
  }
  return std::min(of_process, of_container);
#else
  return of_machine;
#endif
}

}  // namespace

bool built_with_openmp() {
#if defined(_OPENMP)
  return true;
#else
  return false;
#endif
}

int safe_threads(int requested) {
#if defined(_OPENMP)
  // Far more threads than CPUs help nobody, and libgomp ends the process when it cannot have them.
  const int most = std::max(16, 4 * usable_cpus());
  return in_forked_child ? 1 : std::clamp(requested, 1, most);
#else
  (void)requested;
  return 1;
#endif
}

int max_threads() {
#if defined(_OPENMP)
  return safe_threads(std::min(omp_get_max_threads(), usable_cpus()));
#else
  return 1;
#endif
}

void Monitor::poll() {
  const auto now = std::chrono::steady_clock::now();
  if (now < next_) return;
  next_ = now + std::chrono::milliseconds(50);
  on_poll_();
}

void Team::check() const {
  if (cancelled_->load(std::memory_order_relaxed)) throw Cancelled();
  if (monitor_ != nullptr) monitor_->poll();
}

void Team::for_ranges(std::int64_t n, std::int64_t grain, const RangeFunction& fn) const {
  for_pieces(n, grain, true, fn);
}

void Team::for_queue(std::int64_t n, const RangeFunction& fn) const { for_pieces(n, 1, false, fn); }

void Team::for_pieces(std::int64_t n, std::int64_t grain, [[maybe_unused]] bool own_stretches,
                      const RangeFunction& fn) const {
  if (n <= 0) return;
  grain = std::max<std::int64_t>(1, grain);
  const std::int64_t n_pieces = (n + grain - 1) / grain;
  const int n_workers =
      built_with_openmp() ? static_cast<int>(std::min<std::int64_t>(n_threads_, n_pieces)) : 1;
  if (n_workers == 1) {
    for (std::int64_t begin = 0; begin < n; begin += grain) {
      check();
      fn(begin, std::min(n, begin + grain), 0);
    }
    return;
  }
#if defined(_OPENMP)
  std::vector<Stretch> stretches(static_cast<std::size_t>(own_stretches ? n_workers : 1));
  const auto n_stretches = static_cast<std::int64_t>(stretches.size());
  for (std::int64_t s = 0; s < n_stretches; ++s) {
    stretches[static_cast<std::size_t>(s)].next = n_pieces * s / n_stretches;
    stretches[static_cast<std::size_t>(s)].end = n_pieces * (s + 1) / n_stretches;
  }
  std::atomic<int> n_working{n_workers};
  std::atomic<bool> failed{false};
  std::exception_ptr first_error;
  std::mutex error_mutex;
#pragma omp parallel num_threads(n_workers)
  {
    const int thread = omp_get_thread_num();
    const StandardFloatMode float_mode;
    // OpenMP may grant fewer threads than asked for; pieces are handed out, so that is harmless.
    if (thread == 0) n_working = omp_get_num_threads();
#pragma omp barrier
    try {
      const Team mine(1, thread == 0 ? monitor_ : nullptr, cancelled_);
      for (std::int64_t s = 0; s < n_stretches; ++s) {
        Stretch& stretch = stretches[static_cast<std::size_t>((thread + s) % n_stretches)];
        for (std::int64_t piece; (piece = stretch.next.fetch_add(1)) < stretch.end;) {
          mine.check();
          fn(piece * grain, std::min(n, (piece + 1) * grain), thread);
        }
      }
    } catch (...) {
      cancelled_->store(true);
      failed = true;
      const std::lock_guard<std::mutex> lock(error_mutex);
      // A Cancelled only echoes the error of the thread that stopped first.
      bool replace = first_error == nullptr;
      if (!replace) {
        try {
          std::rethrow_exception(first_error);
        } catch (const Cancelled&) {
          replace = true;
        } catch (...) {
        }
      }
      if (replace) first_error = std::current_exception();
    }
    n_working.fetch_sub(1);
    if (thread == 0 && monitor_ != nullptr && !failed) {
      // The caller's thread keeps answering Ctrl-C and progress while the others finish. It yields
      // first, for most waits are microseconds.
      const auto patience = std::chrono::steady_clock::now() + std::chrono::milliseconds(2);
      while (n_working.load() > 0) {
        if (std::chrono::steady_clock::now() < patience) continue;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        try {
          monitor_->poll();
        } catch (...) {
          cancelled_->store(true);
          const std::lock_guard<std::mutex> lock(error_mutex);
          first_error = std::current_exception();
          break;
        }
      }
    }
  }
  if (first_error != nullptr) std::rethrow_exception(first_error);
#endif
}

}  // namespace ddkern
