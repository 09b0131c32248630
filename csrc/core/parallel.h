// SPDX-License-Identifier: Apache-2.0
// Threads: one OpenMP team a call, exceptions carried out of it, cancellation by polling.
//
// Nothing here changes a result: every sum in the library is exact (docs/numerics.md) or stays
// within one piece of work, so work may be cut and handed out in any way.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

namespace ddkern {

// What n_threads=None means now: OpenMP's limit (OMP_NUM_THREADS, threadpoolctl), never more than
// the CPUs this process may use. 1 without OpenMP, and in a forked child: libgomp's threads do not
// survive a fork, and a second team would wait for them for ever.
int max_threads();
bool built_with_openmp();
// `requested` cut to what is safe now: 1 in a forked child, never many times the CPUs.
int safe_threads(int requested);

// Of what threads write side by side: whoever writes takes a cache line away from all others, and
// CPUs fetch lines in pairs.
constexpr std::size_t kThreadAlignment = 128;

// Called now and then on the thread that entered the library; may throw to end the call.
class Monitor {
 public:
  explicit Monitor(std::function<void()> on_poll) : on_poll_(std::move(on_poll)) {}
  void poll();

 private:
  std::function<void()> on_poll_;
  std::chrono::steady_clock::time_point next_ = std::chrono::steady_clock::now();
};

// A set of threads that share one piece of work. A Team of one runs everything inline, so the same
// solver serves "one group a thread" and "all threads in one group".
class Team {
 public:
  Team(int n_threads, Monitor* monitor, std::atomic<bool>* cancelled)
      : n_threads_(n_threads), monitor_(monitor), cancelled_(cancelled) {}

  int n_threads() const { return n_threads_; }

  using RangeFunction = std::function<void(std::int64_t, std::int64_t, int)>;
  // fn(begin, end, thread) over [0, n) in pieces of at most `grain`. Every thread has a stretch of
  // its own, the same in every call with the same n and grain, so that what it works on stays in
  // its caches; when it is done it helps the others.
  void for_ranges(std::int64_t n, std::int64_t grain, const RangeFunction& fn) const;
  // fn(i, i + 1, thread) over [0, n), begun in this order: for unequal pieces, the longest first.
  void for_queue(std::int64_t n, const RangeFunction& fn) const;

  // A team of one for work done inside piece `thread` of this team's loop.
  Team inner(int thread) const { return Team(1, thread == 0 ? monitor_ : nullptr, cancelled_); }

  // Throws what the monitor throws, or Cancelled when another thread gave up.
  void check() const;

 private:
  void for_pieces(std::int64_t n, std::int64_t grain, bool own_stretches,
                  const RangeFunction& fn) const;

  int n_threads_;
  Monitor* monitor_;
  std::atomic<bool>* cancelled_;
};

}  // namespace ddkern
