// SPDX-License-Identifier: Apache-2.0
//
// The scheduler, the warp functions and the runtime behind cuda_on_cpu.h. Under the thread
// sanitizer this file is compiled without instrumentation (DDKERN_SIMT_TSAN tells it so): threads
// of a kernel are then strangers to each other except where a barrier says otherwise.
#include "simt/cuda_on_cpu.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(DDKERN_SIMT_TSAN)
#include <sanitizer/tsan_interface.h>
// What the compiler calls in instrumented code; here, where accesses are made for a kernel.
extern "C" void __tsan_read_range(void* address, unsigned long bytes);
extern "C" void __tsan_write_range(void* address, unsigned long bytes);
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__F16C__)
#include <immintrin.h>
#endif

// ----------------------------------------------------------------------------------------- fibers
#if defined(__x86_64__)
// Keeps what the calling convention asks a function to keep; ucontext would add a system call.
extern "C" void ddkern_simt_switch(void** from, void* to);
asm(R"(
.text
.p2align 4
.globl ddkern_simt_switch
.hidden ddkern_simt_switch
.type ddkern_simt_switch,@function
ddkern_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size ddkern_simt_switch,.-ddkern_simt_switch
)");
#endif

namespace ddkern::simt {
namespace {

struct Context {
#if defined(__x86_64__)
  void* stack_pointer = nullptr;

  void start_at(void (*entry)(), char* stack, std::size_t bytes) {
    void** top = reinterpret_cast<void**>(stack + bytes);
    *--top = nullptr;  // entry() never returns; this keeps its frame aligned
    *--top = reinterpret_cast<void*>(entry);
    for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
    stack_pointer = top;
  }
  void switch_to(Context& other) { ddkern_simt_switch(&stack_pointer, other.stack_pointer); }
#else
  ucontext_t state;

  void start_at(void (*entry)(), char* stack, std::size_t bytes) {
    getcontext(&state);
    state.uc_stack.ss_sp = stack;
    state.uc_stack.ss_size = bytes;
    state.uc_link = nullptr;
    makecontext(&state, entry, 0);
  }
  void switch_to(Context& other) { swapcontext(&state, &other.state); }
#endif
};

#if defined(__SANITIZE_ADDRESS__) || defined(DDKERN_SIMT_TSAN)
constexpr std::size_t kStackBytes = 256 << 10;
#else
constexpr std::size_t kStackBytes = 96 << 10;
#endif
constexpr std::size_t kGuardBytes = 64 << 10;  // at least one page everywhere
constexpr unsigned kMaxBlockThreads = 1024;
constexpr std::size_t kMaxSharedBytes = 232448;  // of sm_90
constexpr unsigned char kPoison = 0xCD, kCanary = 0xA5;
constexpr std::size_t kCanaryBytes = 64;

enum class State { kReady, kAtBarrier, kInWarpFunction, kEnded };

struct Copy {
  void* shared;
  const void* global;
  bool valid;
  int group;
};

struct Thread {
  Context context;
  char* stack = nullptr;
  uint3 index{0, 0, 0};
  int lane = 0, warp = 0;
  State state = State::kReady;
  const char* waits_in = "";
  // At a barrier.
  Vote vote = Vote::kNone;
  int predicate = 0, result = 0;
  // In a warp function.
  unsigned mask = 0;
  Combine combine = nullptr;
  Exchange exchange;
  // Asynchronous copies under way, and the number of the group that the next one joins.
  std::vector<Copy> copies;
  int group = 0;
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
#endif
#if defined(DDKERN_SIMT_TSAN)
  void* tsan_fiber = nullptr;
#endif
};

struct Warp {
  unsigned ready = 0;    // lanes that can go on
  unsigned waiting = 0;  // lanes in a warp function
  char token = 0;        // the address is what the thread sanitizer synchronises on
};

struct Launch {
  const char* name;
  dim3 grid, block;
  std::size_t shared_bytes;
  void (*thread)(const void*);
  const void* context;
};

// One host thread running one block at a time.
struct Worker {
  const Launch* launch = nullptr;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Context scheduler;
  Thread* current = nullptr;
  char* stacks = nullptr;
  std::size_t n_stacks = 0;
  unsigned char* shared = nullptr;
  unsigned arrived = 0, ended = 0;
  unsigned cursor = 0;
  std::uint64_t random = 0;
  char start_token = 0, end_token = 0, barrier_tokens[2] = {0, 0};
  int barrier_parity = 0;
#if defined(__SANITIZE_ADDRESS__)
  void* scheduler_fake_stack = nullptr;
  const void* scheduler_stack = nullptr;
  std::size_t scheduler_stack_bytes = 0;
#endif
#if defined(DDKERN_SIMT_TSAN)
  void* scheduler_fiber = nullptr;
#endif

  explicit Worker(const Launch& launch);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void run_block(std::uint64_t number);
  Thread* pick();
  void make_current(Thread& thread);
  void resume(Thread& thread);
  void suspend();
  [[noreturn]] void diagnose();
};

thread_local Worker* worker = nullptr;

// Stacks outlive their launch: mapping them takes longer than most test kernels run.
struct Stacks {
  char* memory;
  std::size_t count;
};
std::mutex stacks_mutex;
std::vector<Stacks> free_stacks;

Stacks take_stacks(std::size_t count) {
  {
    const std::lock_guard<std::mutex> lock(stacks_mutex);
    for (auto it = free_stacks.begin(); it != free_stacks.end(); ++it) {
      if (it->count < count) continue;
      const Stacks found = *it;
      free_stacks.erase(it);
      return found;
    }
  }
  count = std::max<std::size_t>(count, 256);
  const std::size_t each = kStackBytes + kGuardBytes;
  void* const memory = mmap(nullptr, count * each, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) die("no memory for the stacks of a block");
  char* const first = static_cast<char*>(memory);
  for (std::size_t i = 0; i < count; ++i) mprotect(first + i * each, kGuardBytes, PROT_NONE);
  return {first, count};
}

void give_back(const Stacks& stacks) {
  const std::lock_guard<std::mutex> lock(stacks_mutex);
  free_stacks.push_back(stacks);
}

std::uint64_t mix(std::uint64_t& state) {  // splitmix64
  std::uint64_t z = (state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

Options options_of_environment() {
  const auto text = [](const char* name) {
    const char* const value = std::getenv(name);
    return std::string(value ? value : "");
  };
  Options chosen;
  if (const auto seed = text("DDKERN_SIMT_SEED"); !seed.empty()) chosen.seed = std::stoull(seed);
  if (const auto threads = text("DDKERN_SIMT_THREADS"); !threads.empty()) {
    chosen.host_threads = std::max(1, std::stoi(threads));
  }
  if (const auto memory = text("DDKERN_SIMT_MEMORY"); !memory.empty()) {
    chosen.memory = std::stoull(memory);
  }
  const auto error = text("DDKERN_SIMT_MMA_ERROR");
  if (error == "+1") chosen.mma_error = 1;
  if (error == "-1") chosen.mma_error = -1;
  if (error == "alternate") chosen.mma_error = 2;
  chosen.late_copies = text("DDKERN_SIMT_ASYNC") == "late";
  return chosen;
}

void* poisoned(std::size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  // No canary: the allocation ends where it ends, and the sanitizer names the line.
  void* const memory = std::malloc(std::max<std::size_t>(bytes, 1));
  if (memory) std::memset(memory, kPoison, bytes);
#else
  void* const memory = std::malloc(bytes + kCanaryBytes);
  if (memory) {
    std::memset(memory, kPoison, bytes);
    std::memset(static_cast<unsigned char*>(memory) + bytes, kCanary, kCanaryBytes);
  }
#endif
  return memory;
}

bool canary_alive([[maybe_unused]] const void* memory, [[maybe_unused]] std::size_t bytes) {
#if !defined(__SANITIZE_ADDRESS__)
  const auto* const canary = static_cast<const unsigned char*>(memory) + bytes;
  return std::all_of(canary, canary + kCanaryBytes, [](unsigned char c) { return c == kCanary; });
#else
  return true;
#endif
}

void entry() noexcept {
  Worker& here = *worker;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &here.scheduler_stack, &here.scheduler_stack_bytes);
#endif
#if defined(DDKERN_SIMT_TSAN)
  __tsan_acquire(&here.start_token);
#endif
  here.launch->thread(here.launch->context);
#if defined(DDKERN_SIMT_TSAN)
  __tsan_release(&here.end_token);
#endif
  here.current->state = State::kEnded;
  ++here.ended;
  here.suspend();
}

Worker::Worker(const Launch& launch_) : launch(&launch_) {
  const dim3 block = launch->block;
  const std::size_t n = std::size_t{block.x} * block.y * block.z;
  threads = std::vector<Thread>(n);
  warps = std::vector<Warp>((n + 31) / 32);
  const Stacks taken = take_stacks(n);
  stacks = taken.memory;
  n_stacks = taken.count;
  for (std::size_t i = 0; i < n; ++i) {
    Thread& thread = threads[i];
    thread.stack = stacks + i * (kStackBytes + kGuardBytes) + kGuardBytes;
    thread.index = {static_cast<unsigned>(i % block.x),
                    static_cast<unsigned>(i / block.x % block.y),
                    static_cast<unsigned>(i / block.x / block.y)};
    thread.lane = static_cast<int>(i % 32);
    thread.warp = static_cast<int>(i / 32);
#if defined(DDKERN_SIMT_TSAN)
    thread.tsan_fiber = __tsan_create_fiber(0);
#endif
  }
  shared = static_cast<unsigned char*>(poisoned(launch->shared_bytes));
  if (!shared) die("no memory for the shared memory of a block");
#if defined(DDKERN_SIMT_TSAN)
  scheduler_fiber = __tsan_get_current_fiber();
#endif
  worker = this;
  blockDim = launch->block;
  gridDim = launch->grid;
}

Worker::~Worker() {
#if defined(DDKERN_SIMT_TSAN)
  for (Thread& thread : threads) __tsan_destroy_fiber(thread.tsan_fiber);
#endif
  std::free(shared);
  give_back({stacks, n_stacks});
  worker = nullptr;
}

void Worker::run_block(std::uint64_t number) {
  const dim3 grid = launch->grid;
  blockIdx = {static_cast<unsigned>(number % grid.x),
              static_cast<unsigned>(number / grid.x % grid.y),
              static_cast<unsigned>(number / grid.x / grid.y)};
  random = options().seed * 0x2545f4914f6cdd1du + number;
  arrived = ended = cursor = 0;
  std::memset(shared, kPoison, launch->shared_bytes);
  for (Warp& warp : warps) warp = Warp();
  for (Thread& thread : threads) {
    thread.state = State::kReady;
    thread.copies.clear();
    thread.group = 0;
    warps[thread.warp].ready |= 1u << thread.lane;
    // Tops at equal distances would share a few sets of the cache.
    const std::size_t stagger = static_cast<std::size_t>(&thread - threads.data()) % 64 * 320;
    thread.context.start_at(&entry, thread.stack, kStackBytes - stagger);
#if defined(__SANITIZE_ADDRESS__)
    thread.fake_stack = nullptr;
    __asan_unpoison_memory_region(thread.stack, kStackBytes);
#endif
  }
#if defined(DDKERN_SIMT_TSAN)
  __tsan_release(&start_token);
#endif
  while (ended < threads.size()) {
    Thread* const next = pick();
    if (!next) diagnose();
    resume(*next);
  }
#if defined(DDKERN_SIMT_TSAN)
  __tsan_acquire(&end_token);
#endif
  current = nullptr;
  if (!canary_alive(shared, launch->shared_bytes)) {
    die("a write past the end of the dynamic shared memory");
  }
}

// Seed 0 stays with a warp, lowest lane first, until the warp can do no more.
Thread* Worker::pick() {
  const std::uint64_t seed = options().seed;
  const unsigned n_warps = static_cast<unsigned>(warps.size());
  const std::uint64_t draw = seed > 1 ? mix(random) : 0;
  if (seed > 1) cursor = static_cast<unsigned>((draw >> 32) % n_warps);
  for (unsigned tried = 0; tried < n_warps; ++tried, cursor = (cursor + 1) % n_warps) {
    const unsigned w = seed == 1 ? n_warps - 1 - cursor : cursor;
    const unsigned ready = warps[w].ready;
    if (!ready) continue;
    int lane = __builtin_ctz(ready);
    if (seed == 1) lane = 31 - __builtin_clz(ready);
    if (seed > 1) {
      const int turn = static_cast<int>(draw & 31);
      const unsigned turned = turn ? (ready >> turn) | (ready << (32 - turn)) : ready;
      lane = (__builtin_ctz(turned) + turn) & 31;
    }
    return &threads[w * 32 + static_cast<unsigned>(lane)];
  }
  return nullptr;
}

void Worker::make_current(Thread& thread) {
  current = &thread;
  threadIdx = thread.index;
  warps[thread.warp].ready &= ~(1u << thread.lane);
}

void Worker::resume(Thread& thread) {
  make_current(thread);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&scheduler_fake_stack, thread.stack, kStackBytes);
#endif
#if defined(DDKERN_SIMT_TSAN)
  __tsan_switch_to_fiber(thread.tsan_fiber, __tsan_switch_to_fiber_no_sync);
#endif
  scheduler.switch_to(thread.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

void Worker::suspend() {
  Thread& thread = *current;
#if !defined(__SANITIZE_ADDRESS__) && !defined(DDKERN_SIMT_TSAN)
  // Straight to the next thread: half the switches. The sanitizers are told of stacks in pairs of
  // scheduler and thread.
  if (Thread* const next = pick()) {
    make_current(*next);
    thread.context.switch_to(next->context);
    return;
  }
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(thread.state == State::kEnded ? nullptr : &thread.fake_stack,
                                 scheduler_stack, scheduler_stack_bytes);
#endif
#if defined(DDKERN_SIMT_TSAN)
  __tsan_switch_to_fiber(scheduler_fiber, __tsan_switch_to_fiber_no_sync);
#endif
  thread.context.switch_to(scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(thread.fake_stack, &scheduler_stack, &scheduler_stack_bytes);
#endif
}

// Nobody can go on: some lane or thread that others wait for will never come.
void Worker::diagnose() {
  char text[400];
  for (Thread& thread : threads) {
    if (thread.state != State::kInWarpFunction) continue;
    current = &thread;
    unsigned missing = 0, elsewhere = 0;
    for (int lane = 0; lane < 32; ++lane) {
      if (!(thread.mask >> lane & 1u)) continue;
      const std::size_t i = static_cast<std::size_t>(thread.warp) * 32 + lane;
      if (i >= threads.size() || threads[i].state == State::kEnded) {
        missing |= 1u << lane;
      } else if (threads[i].state == State::kAtBarrier || threads[i].mask != thread.mask ||
                 threads[i].combine != thread.combine) {
        elsewhere |= 1u << lane;
      }
    }
    if (missing == 0 && elsewhere == 0) continue;
    std::snprintf(text, sizeof(text),
                  "%s with mask 0x%08x: lanes 0x%08x have left or never were, lanes 0x%08x wait in "
                  "another barrier or warp function, or with another mask",
                  thread.waits_in, thread.mask, missing, elsewhere);
    die(text);
  }
  for (Thread& thread : threads) {
    if (thread.state == State::kAtBarrier) current = &thread;
  }
  std::snprintf(text, sizeof(text),
                "divergent %s: %u of %zu threads are there, %u have left the kernel",
                current->waits_in, arrived, threads.size(), ended);
  die(text);
}

// The number that block i of a launch has, so that a seed also changes the order of blocks.
std::uint64_t block_number(std::uint64_t i, std::uint64_t count) {
  const std::uint64_t seed = options().seed;
  if (seed == 0) return i;
  if (seed == 1) return count - 1 - i;
  std::uint64_t state = seed;
  std::uint64_t step = mix(state) % count;
  while (std::gcd(step, count) != 1) step = (step + 1) % count;
  return static_cast<std::uint64_t>((static_cast<unsigned __int128>(i) * step + seed) % count);
}

// ---------------------------------------------------------------------------------- device memory
struct Memory {
  std::mutex mutex;
  std::map<const unsigned char*, std::size_t> device;  // address to bytes
  std::size_t used = 0;
};
Memory& memory() {
  static Memory* const all = new Memory;  // alive until the process ends, whoever frees last
  return *all;
}

thread_local cudaError_t last_error = cudaSuccess;

cudaError_t failed(cudaError_t status) {
  if (status != cudaSuccess) last_error = status;
  return status;
}

// Device memory must hold all of [pointer, pointer + bytes), or none of it: what tests pass as
// device memory comes from other allocators too.
void require_device(const void* pointer, std::size_t bytes, const char* what) {
  if (bytes == 0) return;
  const auto* const first = static_cast<const unsigned char*>(pointer);
  Memory& all = memory();
  const std::lock_guard<std::mutex> lock(all.mutex);
  auto it = all.device.upper_bound(first);
  const bool inside = it != all.device.begin() && (--it, first < it->first + it->second);
  if (inside && first + bytes > it->first + it->second) die(what);
}

void check_canaries() {
  Memory& all = memory();
  const std::lock_guard<std::mutex> lock(all.mutex);
  for (const auto& [address, bytes] : all.device) {
    if (!canary_alive(address, bytes)) {
      die("a write past the end of device memory");
    }
  }
}

thread_local const char* launched = nullptr;

}  // namespace

Options& options() {
  static Options chosen = options_of_environment();
  return chosen;
}

void die(const char* reason) {
  static std::mutex first;
  first.lock();  // and never unlocked: blocks on other host threads find the same mistake
  std::fflush(stdout);
  const char* const name = worker ? worker->launch->name : launched;
  std::string where;
  char text[160];
  if (name) where = std::string(" ") + name + ",";
  if (worker) {
    std::snprintf(text, sizeof(text), " block (%u, %u, %u),", blockIdx.x, blockIdx.y, blockIdx.z);
    where += text;
    if (worker->current) {
      const uint3 index = worker->current->index;
      std::snprintf(text, sizeof(text), " thread (%u, %u, %u),", index.x, index.y, index.z);
      where += text;
    }
  }
  if (!where.empty()) where.back() = ':';
  std::fprintf(stderr, "simt:%s %s\n", where.c_str(), reason);
  std::fflush(stderr);
  std::abort();
}

void run_grid(const char* name, dim3 grid, dim3 block, std::size_t shared_bytes,
              void (*thread)(const void*), const void* context) {
  if (worker) die("a launch inside a kernel");
  const std::uint64_t n_threads = std::uint64_t{block.x} * block.y * block.z;
  const std::uint64_t n_blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  if (n_threads == 0 || n_threads > kMaxBlockThreads || block.z > 64 || n_blocks == 0 ||
      grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    last_error = cudaErrorInvalidConfiguration;
    return;
  }
  if (shared_bytes > kMaxSharedBytes) {
    last_error = cudaErrorInvalidValue;
    return;
  }
  const Launch launch{name, grid, block, shared_bytes, thread, context};
  std::atomic<std::uint64_t> next{0};
  const auto work = [&] {
    Worker here(launch);
    for (std::uint64_t i; (i = next++) < n_blocks;) here.run_block(block_number(i, n_blocks));
  };
  // Threads of our own, not OpenMP's: the thread sanitizer cannot see what libgomp waits for.
  std::vector<std::thread> helpers;
  const std::uint64_t wanted = static_cast<std::uint64_t>(options().host_threads);
  for (std::uint64_t i = 1; i < std::min(wanted, n_blocks); ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  launched = name;
  check_canaries();
  launched = nullptr;
}

void* dynamic_shared() { return worker->shared; }

int lane() { return worker->current->lane; }

int block_barrier(const char* name, Vote vote, int predicate) {
  Worker& here = *worker;
  Thread& self = *here.current;
#if defined(DDKERN_SIMT_TSAN)
  // Two tokens in turn: a thread that is already at the next barrier must not be seen at this one.
  char* const token = &here.barrier_tokens[here.barrier_parity];
  __tsan_release(token);
#endif
  self.waits_in = name;
  self.vote = vote;
  self.predicate = predicate;
  if (++here.arrived < here.threads.size()) {
    self.state = State::kAtBarrier;
    here.suspend();
  } else {
    int count = 0;
    for (const Thread& thread : here.threads) {
      if (thread.vote != vote) die("threads of the block wait in different barriers");
      count += thread.predicate != 0;
    }
    const int all = static_cast<int>(here.threads.size());
    const int result = vote == Vote::kOr ? count != 0 : vote == Vote::kAnd ? count == all : count;
    for (Thread& thread : here.threads) {
      thread.result = result;
      thread.state = State::kReady;
      if (&thread != &self) here.warps[thread.warp].ready |= 1u << thread.lane;
    }
    here.arrived = 0;
    here.barrier_parity ^= 1;
  }
#if defined(DDKERN_SIMT_TSAN)
  __tsan_acquire(token);
#endif
  return self.result;
}

void warp_function(const char* name, unsigned mask, Combine combine, const Exchange& mine,
                   [[maybe_unused]] bool orders_memory) {
  Worker& here = *worker;
  Thread& self = *here.current;
  Warp& warp = here.warps[self.warp];
  Thread* const lanes = &here.threads[static_cast<std::size_t>(self.warp) * 32];
  if (!(mask >> self.lane & 1u)) die("a lane calls a warp function whose mask leaves it out");
#if defined(DDKERN_SIMT_TSAN)
  if (orders_memory) __tsan_release(&warp.token);
#endif
  self.waits_in = name;
  self.mask = mask;
  self.combine = combine;
  self.exchange = mine;
  self.state = State::kInWarpFunction;
  warp.waiting |= 1u << self.lane;

  bool complete = (warp.waiting & mask) == mask;
  for (unsigned rest = complete ? mask : 0; rest; rest &= rest - 1) {
    const Thread& other = lanes[__builtin_ctz(rest)];
    complete = complete && other.mask == mask && other.combine == combine;
  }
  if (complete) {
    Exchange exchanges[32];
    for (unsigned rest = mask; rest; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      exchanges[lane] = lanes[lane].exchange;
      lanes[lane].state = State::kReady;
    }
    combine(exchanges, mask);
    warp.waiting &= ~mask;
    warp.ready |= mask & ~(1u << self.lane);
  } else {
    here.suspend();
  }
#if defined(DDKERN_SIMT_TSAN)
  if (orders_memory) __tsan_acquire(&warp.token);
#endif
}

// --------------------------------------------------------------------------------- warp functions
void combine_nothing(const Exchange*, unsigned) {}

void combine_shuffle(const Exchange* lanes, unsigned mask) {
  for (unsigned rest = mask; rest; rest &= rest - 1) {
    const Exchange& lane = lanes[__builtin_ctz(rest)];
    if (!(mask >> lane.source & 1u)) die("a shuffle reads a lane that its mask leaves out");
    std::memcpy(lane.out, lanes[lane.source].in, 8);
  }
}

void combine_ballot(const Exchange* lanes, unsigned mask) {
  unsigned votes = 0;
  for (unsigned rest = mask; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    if (*static_cast<const int*>(lanes[lane].in) != 0) votes |= 1u << lane;
  }
  for (unsigned rest = mask; rest; rest &= rest - 1) {
    *static_cast<unsigned*>(lanes[__builtin_ctz(rest)].out) = votes;
  }
}

void combine_match(const Exchange* lanes, unsigned mask) {
  for (unsigned rest = mask; rest; rest &= rest - 1) {
    const Exchange& mine = lanes[__builtin_ctz(rest)];
    unsigned equal = 0;
    for (unsigned others = mask; others; others &= others - 1) {
      const int other = __builtin_ctz(others);
      if (*static_cast<const std::uint64_t*>(mine.in) ==
          *static_cast<const std::uint64_t*>(lanes[other].in)) {
        equal |= 1u << other;
      }
    }
    *static_cast<unsigned*>(mine.out) = equal;
  }
}

namespace {

float half_bits_to_float(unsigned bits) {
#if defined(__F16C__)
  return _cvtsh_ss(static_cast<unsigned short>(bits));
#else
  return __half2float(__half{static_cast<unsigned short>(bits)});
#endif
}

struct MmaOperands {
  const std::uint32_t *a, *b;
  double bound;
};

// `exact` moved by `slack` in the direction asked for, and rounded so that it stays within the
// slack.
float worst_float(double exact, double slack, int direction) {
  if (!std::isfinite(exact)) return static_cast<float>(exact);
  const double target = exact + direction * slack;
  float result = static_cast<float>(target);
  if (direction > 0 && result > target) result = std::nextafter(result, -HUGE_VALF);
  if (direction < 0 && result < target) result = std::nextafter(result, HUGE_VALF);
  return result;
}

using Doubles = double __attribute__((vector_size(32)));

inline Doubles load(const double* values) {
  Doubles loaded;
  std::memcpy(&loaded, values, sizeof(loaded));
  return loaded;
}

// Sums in double, where they are all but exact, and rounds once. Float sums in some order could be
// further off than the bound that the wrappers promise.
void combine_mma(const Exchange* lanes, unsigned) {
  double a[16][16], b[16][8], magnitude[16][8], sum[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& mine = *static_cast<const MmaOperands*>(lanes[lane].in);
    const float* const d = static_cast<const float*>(lanes[lane].out);
    const int g = lane / 4, t = lane % 4;
    for (int half = 0; half < 2; ++half) {
      const auto value = [half](std::uint32_t pair) {
        return static_cast<double>(half_bits_to_float((pair >> (16 * half)) & 0xffffu));
      };
      const int column = 2 * t + half;
      a[g][column] = value(mine.a[0]);
      a[g + 8][column] = value(mine.a[1]);
      a[g][column + 8] = value(mine.a[2]);
      a[g + 8][column + 8] = value(mine.a[3]);
      b[column][g] = value(mine.b[0]);
      b[column + 8][g] = value(mine.b[1]);
      sum[g][column] = d[half];
      sum[g + 8][column] = d[2 + half];
    }
  }
  const int direction = options().mma_error;
  if (direction != 0) {
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 8; ++column) {
        double largest = std::fabs(sum[row][column]);
        for (int k = 0; k < 16; ++k) {
          largest = std::fmax(largest, std::fabs(a[row][k] * b[k][column]));
        }
        magnitude[row][column] = largest;
      }
    }
  }
  for (int row = 0; row < 16; ++row) {
    Doubles left = load(&sum[row][0]), right = load(&sum[row][4]);
    for (int k = 0; k < 16; ++k) {
      left += a[row][k] * load(&b[k][0]);
      right += a[row][k] * load(&b[k][4]);
    }
    std::memcpy(&sum[row][0], &left, sizeof(left));
    std::memcpy(&sum[row][4], &right, sizeof(right));
  }
  const double bound = static_cast<const MmaOperands*>(lanes[0].in)->bound;
  for (int lane = 0; lane < 32; ++lane) {
    float* const d = static_cast<float*>(lanes[lane].out);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
      if (direction == 0) {
        d[i] = static_cast<float>(sum[row][column]);
      } else {
        const int way = direction == 2 ? ((row + column) % 2 ? 1 : -1) : direction;
        d[i] = worst_float(sum[row][column], bound * magnitude[row][column], way);
      }
    }
  }
}

struct MatrixRow {
  std::uint32_t pairs[4];
};

template <int kMatrices>
void combine_load_matrix(const Exchange* lanes, unsigned) {
  for (int lane = 0; lane < 32; ++lane) {
    auto* const registers = static_cast<std::uint32_t*>(lanes[lane].out);
    for (int i = 0; i < kMatrices; ++i) {
      registers[i] = static_cast<const MatrixRow*>(lanes[8 * i + lane / 4].in)->pairs[lane % 4];
    }
  }
}

void arrive(const Copy& copy) {
#if defined(DDKERN_SIMT_TSAN)
  if (copy.valid) __tsan_read_range(const_cast<void*>(copy.global), 16);
  __tsan_write_range(copy.shared, 16);
#endif
  if (copy.valid) {
    std::memcpy(copy.shared, copy.global, 16);
  } else {
    std::memset(copy.shared, 0, 16);
  }
}

bool aligned16(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; }

}  // namespace

void mma_f16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
             double bound) {
  const MmaOperands mine{a, b, bound};
  warp_function("mma_f16", 0xffffffffu, &combine_mma, {&mine, d, 0});
}

void load_matrix(std::uint32_t* registers, int n_matrices, const void* shared_row) {
  // Each lane reads the row whose address it passes. What other lanes still have to write there is
  // missing then, as it may be on a GPU.
  MatrixRow mine{{0, 0, 0, 0}};
  if (lane() < 8 * n_matrices) {
    if (!aligned16(shared_row)) die("load_matrix from an address that is no multiple of 16");
#if defined(DDKERN_SIMT_TSAN)
    __tsan_read_range(const_cast<void*>(shared_row), sizeof(mine.pairs));
#endif
    std::memcpy(mine.pairs, shared_row, sizeof(mine.pairs));
  }
  const bool four = n_matrices == 4;
  warp_function(four ? "load_matrix_x4" : "load_matrix_x2", 0xffffffffu,
                four ? &combine_load_matrix<4> : &combine_load_matrix<2>, {&mine, registers, 0});
}

void copy_async_16(void* shared, const void* global, bool valid) {
  if (!aligned16(shared) || (valid && !aligned16(global))) {
    die("copy_async_16 with an address that is no multiple of 16");
  }
  Thread& self = *worker->current;
  const Copy copy{shared, global, valid, self.group};
  if (options().late_copies) {
    self.copies.push_back(copy);
  } else {
    arrive(copy);
  }
}

void copy_async_commit() { ++worker->current->group; }

void copy_async_wait(int pending) {
  Thread& self = *worker->current;
  auto& copies = self.copies;
  const auto still_pending = std::find_if(copies.begin(), copies.end(), [&](const Copy& copy) {
    return copy.group >= self.group - pending;
  });
  std::for_each(copies.begin(), still_pending, arrive);
  copies.erase(copies.begin(), still_pending);
}

void fence() {
#if defined(DDKERN_SIMT_TSAN)
  static char token;  // more order than a fence gives, so that the usual patterns are not reported
  __tsan_release(&token);
  __tsan_acquire(&token);
#else
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

}  // namespace ddkern::simt

// ---------------------------------------------------------------------------------------- runtime
using ddkern::simt::failed;
using ddkern::simt::memory;

struct CUevent_st {
  std::chrono::steady_clock::time_point when;
};

cudaError_t cudaGetLastError() { return std::exchange(ddkern::simt::last_error, cudaSuccess); }

cudaError_t cudaPeekAtLastError() { return ddkern::simt::last_error; }

const char* cudaGetErrorName(cudaError_t status) {
  switch (status) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorNotReady: return "cudaErrorNotReady";
  }
  return "cudaErrorUnknown";
}

const char* cudaGetErrorString(cudaError_t status) {
  switch (status) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorNotReady: return "device not ready";
  }
  return "unknown error";
}

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  auto& all = memory();
  const std::lock_guard<std::mutex> lock(all.mutex);
  if (bytes > ddkern::simt::options().memory - std::min(all.used, ddkern::simt::options().memory)) {
    return failed(cudaErrorMemoryAllocation);
  }
  *pointer = ddkern::simt::poisoned(bytes);
  if (!*pointer) return failed(cudaErrorMemoryAllocation);
  all.device.emplace(static_cast<const unsigned char*>(*pointer), bytes);
  all.used += bytes;
  return cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
  if (!pointer) return cudaSuccess;
  auto& all = memory();
  {
    const std::lock_guard<std::mutex> lock(all.mutex);
    const auto it = all.device.find(static_cast<const unsigned char*>(pointer));
    if (it == all.device.end()) return failed(cudaErrorInvalidValue);
    if (!ddkern::simt::canary_alive(it->first, it->second)) {
      ddkern::simt::die("a write past the end of device memory");
    }
    std::memset(pointer, ddkern::simt::kPoison, it->second);
    all.used -= it->second;
    all.device.erase(it);
  }
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** pointer, std::size_t bytes) {
  *pointer = std::malloc(std::max<std::size_t>(bytes, 1));
  if (!*pointer) return failed(cudaErrorMemoryAllocation);
  std::memset(*pointer, ddkern::simt::kPoison, bytes);
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* pointer) {
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* target, const void* source, std::size_t bytes, cudaMemcpyKind) {
  ddkern::simt::require_device(target, bytes, "cudaMemcpy writes outside the device");
  ddkern::simt::require_device(source, bytes, "cudaMemcpy reads outside the device");
  if (bytes != 0) std::memmove(target, source, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemset(void* target, int value, std::size_t bytes) {
  ddkern::simt::require_device(target, bytes, "cudaMemset writes outside the device");
  if (bytes != 0) std::memset(target, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total_bytes) {
  auto& all = memory();
  const std::lock_guard<std::mutex> lock(all.mutex);
  *total_bytes = ddkern::simt::options().memory;
  *free_bytes = *total_bytes - std::min(all.used, *total_bytes);
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : failed(cudaErrorInvalidDevice);
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return failed(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 49152; return cudaSuccess;
    case cudaDevAttrWarpSize: *value = 32; return cudaSuccess;
    case cudaDevAttrMultiProcessorCount: *value = 2; return cudaSuccess;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = 233472; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 232448; return cudaSuccess;
  }
  return failed(cudaErrorInvalidValue);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st{std::chrono::steady_clock::now()};
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  event->when = std::chrono::steady_clock::now();
  return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  *milliseconds = std::chrono::duration<float, std::milli>(end->when - start->when).count();
  return cudaSuccess;
}
