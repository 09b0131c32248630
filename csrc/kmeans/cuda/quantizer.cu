// SPDX-License-Identifier: Apache-2.0
#include "kmeans/cuda/quantizer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <new>
#include <string>

#include "core/error.h"
#include "kmeans/cuda/conclusions.h"
#include "kmeans/cuda/frame.h"
#include "kmeans/cuda/gram.h"
#include "kmeans/cuda/nearest.h"
#include "kmeans/cuda/nearest_few.h"
#include "kmeans/cuda/plan.h"
#include "kmeans/cuda/products.h"
#include "kmeans/cuda/seeding.h"
#include "kmeans/cuda/update.h"
#include "kmeans/cuda/workspace.h"
#include "kmeans/weights.h"

namespace ddkern::kmeans::cuda {
namespace {

constexpr std::int64_t kMostGroups = 1 << 14;  // of a chunk: a dimension of some grids
constexpr int kLargestExponent = 800;

// --- kernels of the bookkeeping ------------------------------------------------------------------

__global__ void start_run_kernel(ChunkTables chunk) {
  const int g = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (g >= chunk.n_groups) return;
  chunk.runs[g] = GroupRun{};
  chunk.runs[g].active = 1;
}

// Seeds as row numbers.
__global__ void write_seeds_kernel(ChunkTables chunk, const std::int32_t* seeds,
                                   std::int64_t* out) {
  const GroupShape& shape = chunk.shapes[blockIdx.x];
  for (int c = static_cast<int>(threadIdx.x); c < shape.k; c += static_cast<int>(blockDim.x)) {
    out[shape.first_cell + c] = chunk.row_number(shape.begin + seeds[shape.first_cell + c]);
  }
}

// Keeps what the run found for the groups marked better.
constexpr unsigned kKeepingBlocks = 16;  // of a group
template <class T>
__global__ void keep_kernel(Chunk<T> chunk, Workspace<T> space, T* kept) {
  const int g = static_cast<int>(blockIdx.y);
  if (space.better[g] == 0) return;
  const GroupShape& shape = chunk.shapes[g];
  const std::int64_t thread = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x;
  const std::int64_t n_threads = gridDim.x * static_cast<std::int64_t>(blockDim.x);
  for (std::int64_t i = shape.begin + thread; i < shape.begin + shape.n; i += n_threads) {
    space.best_assignment[i] = chunk.assignment[i];
  }
  for (std::int64_t c = shape.first_cell + thread; c < shape.first_cell + shape.k; c += n_threads) {
    space.best_units[c] = chunk.cell_units[c];
  }
  const std::int64_t first = shape.first_cell * chunk.n_features;
  for (std::int64_t v = thread; v < shape.k * static_cast<std::int64_t>(chunk.n_features);
       v += n_threads) {
    kept[first + v] = chunk.centroids[first + v];
  }
}

// --- the host ------------------------------------------------------------------------------------

// What of a device decides how it is used.
struct DeviceTraits {
  int n_multiprocessors = 0;
  int shared_bytes = kLeastSharedBytes;
  bool has_sm90a = false;

  // DDKERN_CUDA_VARIANT=sm80 keeps to what every supported device has.
  explicit DeviceTraits(int device) {
    DDKERN_CUDA_TRY(
        cudaDeviceGetAttribute(&n_multiprocessors, cudaDevAttrMultiProcessorCount, device));
    const char* variant = std::getenv("DDKERN_CUDA_VARIANT");
    const bool plain = variant != nullptr && std::string(variant) == "sm80";
    if (plain) return;
    has_sm90a = architecture(device) == "sm_90";
    DDKERN_CUDA_TRY(
        cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  }
};

template <class T>
class ChunkSolver {
 public:
  ChunkSolver(const DeviceRows<T>& rows, const Groups& groups, const FitOptions& options,
              const DeviceCall& call)
      : rows_(rows), groups_(groups), options_(options), call_(call),
        stream_(static_cast<cudaStream_t>(call.stream)), device_(call.device) {
    first_cell_.push_back(0);
    for (std::int64_t g = 0; g < groups.n_groups; ++g) {
      first_cell_.push_back(first_cell_.back() + groups.k[g]);
    }
  }

  // Chunks of groups that fit, and one allocation for the largest.
  void plan(Task task) {
    task.ordered = groups_.order != nullptr;
    task.weighted = groups_.sample_weight != nullptr;
    task.most_features_scanned = most_features_scanned(device_.shared_bytes);
    task_ = task;
    ChunkPlan plan;
    ChunkSize size;
    std::int64_t largest = 0;
    const auto bytes = [&](const ChunkSize& of, bool gram) {
      Arena arena(nullptr);
      Task with = task_;
      with.gram = gram;
      lay_out<T>(arena, of, rows_.n_features, with);
      return arena.used();
    };
    const auto close = [&](std::int64_t end) {
      plan.last = end;
      largest = std::max(largest, bytes(size, plan.gram));
      plans_.push_back(plan);
      plan.first = end;
      size = ChunkSize{};
    };
    for (std::int64_t g = 0; g < groups_.n_groups; ++g) {
      const std::int64_t n = groups_.n_rows(g), k = groups_.k[g];
      if (n > std::numeric_limits<std::int32_t>::max() / 2) {
        throw InvalidArgument("group " + std::to_string(groups_.ids[g]) + " has " +
                              std::to_string(n) + " rows; on CUDA a group has at most 2^30");
      }
      bool gram = task.gram && wants_gram(n, k);
      if (size.n_groups > 0 && gram == plan.gram && size.n_groups < kMostGroups) {
        ChunkSize more = size;
        more.add(n, k, gram);
        if (bytes(more, gram) <= call_.max_memory_in_bytes) {
          size = more;
          continue;
        }
      }
      if (size.n_groups > 0) close(g);
      ChunkSize alone;
      alone.add(n, k, gram);
      if (gram && bytes(alone, true) > call_.max_memory_in_bytes) {
        if (options_.algorithm == Algorithm::gram) throw std::bad_alloc();
        gram = false;
        alone = ChunkSize{};
        alone.add(n, k, false);
      }
      if (bytes(alone, gram) > call_.max_memory_in_bytes) throw std::bad_alloc();
      plan.gram = gram;
      size = alone;
    }
    close(groups_.n_groups);
    memory_ = call_.allocate(largest);
  }

  const std::vector<ChunkPlan>& plans() const { return plans_; }

  // Tables of a chunk on the device, and what its rows fix.
  void open(const ChunkPlan& plan) {
    plan_ = plan;
    task_.gram = plan.gram;
    lay_out_chunk();
    upload();
  }

  void prepare() {
    survey_rows(chunk(), stream_);
    check_rows();
    pack_rows(chunk(), stream_);
    if (plan_.gram) multiply_all_rows();
  }

  void draw_seeds(unsigned restart) {
    const Poll between_steps = [this] { poll(); };
    if (options_.init == Init::plus_plus) {
      seed_plus_plus(chunk(), space_.seeding, most_k_, restart, error(), between_steps, stream_);
    } else {
      seed_random(chunk(), space_.seeding, most_k_, restart, between_steps, stream_);
    }
  }

  void fit(const T* given, DeviceFit<T>& output) {
    const std::int64_t first_cell = first_cell_[size(plan_.first)];
    T* const kept = output.centroids + first_cell * rows_.n_features;
    const int n_runs = options_.init == Init::array ? 1 : options_.n_init;
    space_.chunk.centroids = n_runs > 1 ? space_.tried : kept;
    Clock clock(stream_);
    prepare();
    clock.lap();
    double seconds_seed = 0, seconds_lloyd = 0;
    std::vector<double> best(size(chunk().n_groups), 0.0);
    for (int restart = 0; restart < n_runs; ++restart) {
      if (options_.init == Init::array) {
        DDKERN_CUDA_TRY(cudaMemcpyAsync(chunk().centroids, given + first_cell * rows_.n_features,
                                        sizeof(T) * size(chunk().n_cells) * size(rows_.n_features),
                                        cudaMemcpyDeviceToDevice, stream_));
      } else {
        draw_seeds(static_cast<unsigned>(restart));
        copy_seeds(chunk(), space_.seeding.seeds, stream_);
      }
      clock.lap();
      iterate();
      clock.lap();
      report(restart, n_runs, kept, best, output);
    }
    if (n_runs > 1) {
      space_.chunk.assignment = space_.best_assignment;
      space_.chunk.cell_units = space_.best_units;
    }
    write_assignment(chunk(), output.assignment, stream_);
    write_masses(chunk(), output.mass + first_cell, stream_);
    DDKERN_CUDA_TRY(cudaStreamSynchronize(stream_));
    const std::vector<double> laps = clock.seconds();
    for (std::size_t lap = 1; lap < laps.size(); ++lap) {
      (lap % 2 == 1 ? seconds_seed : seconds_lloyd) += laps[lap];
    }
    // A group's share of what the chunk took.
    for (std::int64_t g = plan_.first; g < plan_.last; ++g) {
      GroupReport& report = output.reports[size(g)];
      const double share =
          static_cast<double>(groups_.n_rows(g)) / static_cast<double>(chunk().n_rows);
      report.seconds_prepare = laps[0] * share;
      report.seconds_seed = seconds_seed * share;
      report.seconds_lloyd = seconds_lloyd * share;
    }
    call_.groups_done->fetch_add(chunk().n_groups);
  }

  void seed(std::int64_t* seeds, double* potential) {
    prepare();
    draw_seeds(0);
    DDKERN_LAUNCH(write_seeds_kernel, chunk().n_groups, 256, 0, stream_, chunk(),
                  space_.seeding.seeds, seeds + first_cell_[size(plan_.first)]);
    const auto found = download(space_.seeding.groups, chunk().n_groups);
    const auto frames = download(chunk().frames, chunk().n_groups);
    for (std::int64_t g = plan_.first; g < plan_.last; ++g) {
      const std::size_t at = size(g - plan_.first);
      // As on the CPU: in units of the caller's weights, 0 for other methods than k-means++.
      potential[g] = options_.init != Init::plus_plus
                         ? 0
                         : std::ldexp(static_cast<double>(found[at].total),
                                      2 * frames[at].exponent - found[at].shift) *
                               (total_weights_[at] / static_cast<double>(shapes_[at].total_units)) *
                               shapes_[at].mean_factor;
    }
    call_.groups_done->fetch_add(chunk().n_groups);
  }

  void assign(const T* centroids, std::int64_t* assignment, double* distance) {
    const std::int64_t first_cell = first_cell_[size(plan_.first)];
    // Read only: nothing below writes centroids that are taken as they are.
    space_.chunk.centroids = const_cast<T*>(centroids + first_cell * rows_.n_features);
    survey_rows(chunk(), stream_);
    check_rows();
    frame_cells(chunk(), stream_);
    pack_rows_in_frame(chunk(), stream_);
    start_run();
    finish_cells(chunk(), Finish::as_is, false, error(), stream_);
    if (task_.n_nearest > 1) {
      rank_all_cells(assignment);
    } else {
      find_all_nearest();
      write_assignment(chunk(), assignment, stream_);
    }
    if (distance != nullptr) {
      write_distances(chunk(), static_cast<int>(task_.n_nearest), assignment, distance, stream_);
    }
    DDKERN_CUDA_TRY(cudaStreamSynchronize(stream_));
    call_.groups_done->fetch_add(chunk().n_groups);
  }

 private:
  static std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }
  const Chunk<T>& chunk() const { return space_.chunk; }
  double error() const { return product_error(chunk().n_padded); }

  // Times between marks on the stream, read when all is done.
  class Clock {
   public:
    explicit Clock(cudaStream_t stream) : stream_(stream) { lap(); }
    Clock(const Clock&) = delete;
    Clock& operator=(const Clock&) = delete;
    ~Clock() {
      for (cudaEvent_t event : events_) cudaEventDestroy(event);
    }
    void lap() {
      cudaEvent_t event;
      DDKERN_CUDA_TRY(cudaEventCreate(&event));
      events_.push_back(event);
      DDKERN_CUDA_TRY(cudaEventRecord(event, stream_));
    }
    std::vector<double> seconds() const {
      std::vector<double> found;
      for (std::size_t e = 1; e < events_.size(); ++e) {
        float milliseconds = 0;
        DDKERN_CUDA_TRY(cudaEventElapsedTime(&milliseconds, events_[e - 1], events_[e]));
        found.push_back(milliseconds * 1e-3);
      }
      return found;
    }

   private:
    cudaStream_t stream_;
    std::vector<cudaEvent_t> events_;
  };

  bool wants_gram(std::int64_t n, std::int64_t k) const {
    if (options_.algorithm == Algorithm::streaming || options_.init == Init::array) return false;
    return options_.algorithm == Algorithm::gram ||
           gram_pays(n, rows_.n_features, k, sizeof(T), options_);
  }

  void multiply_all_rows() {
    const auto n_tiles = static_cast<int>(lists_.gram_products.size());
#if defined(DDKERN_SM90A)
    if (device_.has_sm90a) {
      multiply_rows_sm90a(chunk(), space_.gram_products, n_tiles, stream_);
      return;
    }
#endif
    multiply_rows(chunk(), space_.gram_products, n_tiles, device_.shared_bytes, stream_);
  }

  void multiply_and_scan_all() {
#if defined(DDKERN_SM90A)
    // Which counts the values of a group's cells in 32 bits.
    const bool few = chunk().most_k * chunk().n_padded <= std::numeric_limits<std::int32_t>::max();
    if (device_.has_sm90a && few) {
      multiply_and_scan_sm90a(chunk(), stream_);
      return;
    }
#endif
    multiply_and_scan(chunk(), stream_);
  }

  void lay_out_chunk() {
    shapes_.clear();
    weights_.clear();
    total_weights_.clear();
    most_k_ = 0;
    ChunkSize size_of_chunk;
    std::int64_t begin = 0, gram = 0, combined = 0, tile = 0;
    const std::int64_t first_cell = first_cell_[size(plan_.first)];
    for (std::int64_t g = plan_.first; g < plan_.last; ++g) {
      const std::int64_t n = groups_.n_rows(g), k = groups_.k[g], offset = groups_.offsets[g];
      Weights weights =
          canonical_weights(groups_.sample_weight,
                            groups_.order == nullptr ? nullptr : groups_.order + offset, offset, n);
      if (task_.needs_rows && weights.n_positive < k) {
        throw InvalidArgument("k is " + std::to_string(k) + " for group " +
                              std::to_string(groups_.ids[g]) + ", which has " +
                              std::to_string(weights.n_positive) +
                              " rows whose weight counts; k must not be larger");
      }
      GroupShape shape{};
      shape.begin = begin;
      shape.n = n;
      shape.first_cell = first_cell_[size(g)] - first_cell;
      shape.first_tile = tile;
      shape.total_units = weights.total_units;
      shape.n_positive = weights.n_positive;
      shape.gram = gram;
      shape.combined = combined;
      shape.id = groups_.ids[g];
      shape.seed = groups_.seeds[g];
      shape.mean_factor =
          groups_.sample_weight != nullptr ? std::ldexp(1.0, weights.grid_bits) : 1.0;
      shape.k = static_cast<std::int32_t>(k);
      shape.n_trials = n_trials_for(k);
      shape.grid_bits = weights.grid_bits;
      const std::int64_t gram_before = size_of_chunk.gram;
      size_of_chunk.add(n, k, plan_.gram);
      shape.gram_stride = static_cast<std::int32_t>((size_of_chunk.gram - gram_before) / n);
      shapes_.push_back(shape);
      total_weights_.push_back(weights.total_weight);
      weights_.push_back(std::move(weights));
      begin += n;
      tile = size_of_chunk.n_tiles;
      gram = size_of_chunk.gram;
      combined = size_of_chunk.combined;
      most_k_ = std::max(most_k_, k);
    }
    Arena arena(memory_);
    space_ = lay_out<T>(arena, size_of_chunk, rows_.n_features, task_);
    lists_ = list_tiles(shapes_, plan_.gram);
    Chunk<T>& chunk = space_.chunk;
    chunk.x = rows_.x;
    chunk.stride = rows_.stride;
    chunk.first_row = groups_.offsets[plan_.first];
    chunk.n_rows = begin;
    chunk.n_cells = size_of_chunk.n_cells;
    chunk.most_rows = size_of_chunk.most_rows;
    chunk.most_k = size_of_chunk.most_k;
    chunk.n_groups = static_cast<int>(shapes_.size());
    chunk.n_features = static_cast<int>(rows_.n_features);
    chunk.n_padded = static_cast<int>((rows_.n_features + kPadding - 1) / kPadding * kPadding);
    chunk.n_tiles = static_cast<int>(lists_.rows.size());
    space_.gram_products = space_.products + lists_.products.size();
    space_.seeding.n_multiprocessors = device_.n_multiprocessors;
  }

  template <class V>
  void copy_in(V* to, const V* from, std::size_t n) {
    if (n == 0) return;
    DDKERN_CUDA_TRY(cudaMemcpyAsync(to, from, n * sizeof(V), cudaMemcpyHostToDevice, stream_));
  }
  template <class V>
  std::vector<V> download(const V* from, std::int64_t n) {
    std::vector<V> values(size(n));
    DDKERN_CUDA_TRY(
        cudaMemcpyAsync(values.data(), from, size(n) * sizeof(V), cudaMemcpyDeviceToHost, stream_));
    DDKERN_CUDA_TRY(cudaStreamSynchronize(stream_));
    return values;
  }

  void upload() {
    copy_in(space_.shapes, shapes_.data(), shapes_.size());
    std::vector<std::int32_t> cell_group;
    for (std::size_t g = 0; g < shapes_.size(); ++g) {
      cell_group.insert(cell_group.end(), size(shapes_[g].k), static_cast<std::int32_t>(g));
    }
    copy_in(space_.cell_group, cell_group.data(), cell_group.size());
    copy_in(space_.tiles, lists_.rows.data(), lists_.rows.size());
    copy_in(space_.products, lists_.products.data(), lists_.products.size());
    copy_in(space_.gram_products, lists_.gram_products.data(), lists_.gram_products.size());
    if (task_.ordered) {
      copy_in(space_.order, groups_.order + chunk().first_row, size(chunk().n_rows));
    }
    if (task_.weighted) {
      for (std::size_t g = 0; g < shapes_.size(); ++g) {
        copy_in(space_.units + shapes_[g].begin, weights_[g].units.data(), size(shapes_[g].n));
        copy_in(space_.weights + shapes_[g].begin, weights_[g].canonical.data(),
                size(shapes_[g].n));
      }
    }
    DDKERN_CUDA_TRY(cudaMemsetAsync(chunk().runs, 0, sizeof(GroupRun) * shapes_.size(), stream_));
    std::vector<GroupFrame> frames(shapes_.size());
    for (GroupFrame& frame : frames) {
      frame = GroupFrame{};
      frame.first_bad = ~0ull;
    }
    copy_in(chunk().frames, frames.data(), frames.size());
    // The sources are the host's, pageable and about to change.
    DDKERN_CUDA_TRY(cudaStreamSynchronize(stream_));
  }

  void check_rows() {
    const auto frames = download(chunk().frames, chunk().n_groups);
    for (std::size_t g = 0; g < frames.size(); ++g) {
      if (frames[g].first_bad != ~0ull) {
        const auto position = static_cast<std::int64_t>(frames[g].first_bad);
        const std::int64_t at = chunk().first_row + position;
        throw InvalidArgument("x holds NaN or infinity in row " +
                              std::to_string(groups_.order == nullptr ? at : groups_.order[at]) +
                              "; every value must be finite");
      }
      double largest;
      static_assert(sizeof(largest) == sizeof(frames[g].largest));
      std::copy_n(reinterpret_cast<const char*>(&frames[g].largest), sizeof(largest),
                  reinterpret_cast<char*>(&largest));
      int exponent = 0;
      if (largest != 0) std::frexp(largest, &exponent);
      if (std::abs(exponent) > kLargestExponent) {
        char magnitude[32];
        std::snprintf(magnitude, sizeof(magnitude), "%g", largest);
        throw InvalidArgument(std::string("x has ") + magnitude +
                              " as its largest magnitude in a group; float64 values must lie "
                              "within 2^-800 and 2^800: scale the data");
      }
    }
    poll();
  }

  void poll() {
    if (call_.monitor != nullptr) call_.monitor->poll();
  }

  void start_run() {
    const auto clear = [&](auto* values, std::int64_t n, int byte) {
      DDKERN_CUDA_TRY(cudaMemsetAsync(values, byte, sizeof(*values) * size(n), stream_));
    };
    const Chunk<T>& c = chunk();
    clear(c.assignment, c.n_rows, 0xff);
    clear(c.cell_units, c.n_cells, 0);
    clear(c.n_events, c.n_cells, 0);
    clear(c.n_members, c.n_cells, 0);
    clear(c.reseeded, c.n_cells, 0xff);
    clear(c.source_row, c.n_cells, 0xff);
    if (plan_.gram) clear(c.n_terms, c.n_cells, 0);
    if (task_.iterates) {
      clear(space_.history, kIterationsBetweenReads * c.n_groups, 0);
      clear(c.sums, c.n_cells * c.n_features, 0);
      clear(c.mean_sq_norms, c.n_cells, 0);
      clear(c.off, c.n_cells, 0);
      clear(c.shifts, c.n_cells, 0);
    }
    DDKERN_LAUNCH(start_run_kernel, ddkern::cuda::blocks_for(c.n_groups, 128), 128, 0, stream_, c);
  }

  bool scans_products() const {
    return !plan_.gram && !keeps_scores(task_, chunk().n_padded, chunk().most_k);
  }

  void multiply_window(const Window& window) {
    for (const Window::Part& part : window.parts) {
      multiply_with_cells(chunk(), space_.products + part.first, part.n, part.columns,
                          device_.shared_bytes, stream_);
    }
  }

  // One pass: scores, window by window where cells are streamed, and the nearest of them.
  void find_all_nearest() {
    if (scans_products()) {
      forget_open_rows(chunk(), stream_);
      multiply_and_scan_all();
      settle_open_rows(chunk(), chunk().n_rows, device_.n_multiprocessors, stream_);
      return;
    }
    for (const Window& window : lists_.windows) {
      if (!plan_.gram) multiply_window(window);
      forget_open_rows(chunk(), stream_);
      scan_scores(chunk(), window.first_tile, window.n_tiles, stream_);
      settle_open_rows(chunk(), std::int64_t{window.n_tiles} * kTileRows, device_.n_multiprocessors,
                       stream_);
    }
  }

  // The nearest few: columns [row number][n_nearest].
  void rank_all_cells(std::int64_t* columns) {
    const bool scored = ranking_needs_scores(chunk().most_k, task_.n_nearest);
    for (const Window& window : lists_.windows) {
      if (scored) multiply_window(window);
      rank_cells(chunk(), window.first_tile, window.n_tiles, static_cast<int>(task_.n_nearest),
                 columns, space_.ranked, stream_);
    }
  }

  void iterate() {
    start_run();
    finish_cells(chunk(), Finish::as_is, plan_.gram, error(), stream_);
    if (plan_.gram) score_rows(chunk(), space_.seeding.seeds, stream_);
    find_all_nearest();
    count_moves(chunk(), stream_);
    histories_.clear();
    const std::int64_t n_groups = chunk().n_groups;
    int n_read = 0;  // slots whose history is on the host
    for (std::int64_t iteration = 1;; ++iteration) {
      const auto slot = static_cast<int>((iteration - 1) % kIterationsBetweenReads);
      if (slot == 0) {
        n_read = 0;
        DDKERN_CUDA_TRY(
            cudaMemsetAsync(space_.n_active, 0, sizeof(int) * kIterationsBetweenReads, stream_));
      }
      update_sums(chunk(), false, stream_);
      repair_cells(chunk(), stream_);
      finish_cells(chunk(), Finish::move, plan_.gram, error(), stream_);
      if (plan_.gram) score_means(chunk(), stream_);
      conclude_update(chunk(), iteration == 1, space_.history + slot * n_groups, stream_);
      find_all_nearest();
      count_moves(chunk(), stream_);
      conclude_iteration(chunk(), iteration, options_.max_iter, options_.tol,
                         space_.n_active + slot, stream_);
      // Past max_iter, where only repairs go on, every iteration may be the last.
      if (slot + 1 < kIterationsBetweenReads && iteration < options_.max_iter) continue;
      const auto n_active = download(space_.n_active, kIterationsBetweenReads);
      const auto history = download(space_.history, (slot + 1) * n_groups);
      for (; n_read <= slot; ++n_read) {
        histories_.emplace_back(history.begin() + n_read * n_groups,
                                history.begin() + (n_read + 1) * n_groups);
      }
      poll();
      if (n_active[size(slot)] == 0) break;
    }
    find_distortion(chunk(), stream_);
  }

  void report(int restart, int n_runs, T* kept, std::vector<double>& best, DeviceFit<T>& output) {
    const auto runs = download(chunk().runs, chunk().n_groups);
    const auto frames = download(chunk().frames, chunk().n_groups);
    std::vector<unsigned char> better(runs.size(), 0);
    for (std::size_t g = 0; g < runs.size(); ++g) {
      const GroupRun& run = runs[g];
      GroupReport& report = output.reports[size(plan_.first) + g];
      report.rows_assigned += run.rows_assigned + shapes_[g].n;
      report.rows_rechecked += run.n_rechecked;
      report.rows_exact += run.n_exact;
      report.cells_reseeded += run.cells_reseeded;
      if (restart > 0 && !(run.scaled_distortion < best[g])) continue;
      better[g] = 1;
      best[g] = run.scaled_distortion;
      report.restart = restart;
      report.distortion = std::ldexp(run.scaled_distortion, 2 * frames[g].exponent);
      report.inertia = report.distortion * total_weights_[g];
      report.n_iter = run.n_iter;
      report.converged = run.converged != 0;
      report.n_empty_cells = run.n_empty_cells;
      report.algorithm = plan_.gram ? Algorithm::gram : Algorithm::streaming;
      report.history.clear();
      for (int it = 0; it < run.n_iter; ++it) report.history.push_back(histories_[size(it)][g]);
    }
    if (n_runs == 1) return;
    copy_in(space_.better, better.data(), better.size());
    const dim3 blocks(kKeepingBlocks, static_cast<unsigned>(chunk().n_groups));
    DDKERN_LAUNCH(keep_kernel<T>, blocks, 256, 0, stream_, chunk(), space_, kept);
    DDKERN_CUDA_TRY(cudaStreamSynchronize(stream_));
  }

  const DeviceRows<T>& rows_;
  const Groups& groups_;
  const FitOptions& options_;
  const DeviceCall& call_;
  cudaStream_t stream_;
  DeviceTraits device_;
  std::vector<std::int64_t> first_cell_;
  Task task_;
  std::vector<ChunkPlan> plans_;
  void* memory_ = nullptr;
  // Of the chunk at hand.
  ChunkPlan plan_;
  Workspace<T> space_;
  TileLists lists_;
  std::vector<GroupShape> shapes_;
  std::vector<Weights> weights_;
  std::vector<double> total_weights_;
  std::int64_t most_k_ = 0;
  std::vector<std::vector<double>> histories_;  // [iteration][group]
};

}  // namespace

std::string architecture(int device) {
  int major = 0, minor = 0;
  DDKERN_CUDA_TRY(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  DDKERN_CUDA_TRY(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  return "sm_" + std::to_string(major) + std::to_string(minor);
}

template <class T>
void fit(const DeviceRows<T>& rows, const Groups& groups, const FitOptions& options, const T* given,
         DeviceFit<T>& output, const DeviceCall& call) {
  const ddkern::cuda::OnDevice device(call.device);
  ChunkSolver<T> solver(rows, groups, options, call);
  Task task;
  task.gram = true;
  task.iterates = true;
  task.seeds = options.init != Init::array;
  task.plus_plus = options.init == Init::plus_plus;
  task.several = task.seeds && options.n_init > 1;
  solver.plan(task);
  output.reports.assign(static_cast<std::size_t>(groups.n_groups), GroupReport{});
  for (const ChunkPlan& plan : solver.plans()) {
    solver.open(plan);
    solver.fit(given, output);
  }
}

template <class T>
void seed(const DeviceRows<T>& rows, const Groups& groups, const FitOptions& options,
          std::int64_t* seeds, double* potential, const DeviceCall& call) {
  const ddkern::cuda::OnDevice device(call.device);
  FitOptions seeding = options;
  seeding.max_iter = 0;  // nobody iterates, which counts in what pays
  ChunkSolver<T> solver(rows, groups, seeding, call);
  Task task;
  task.gram = options.init == Init::plus_plus;
  task.seeds = true;
  task.plus_plus = options.init == Init::plus_plus;
  solver.plan(task);
  for (const ChunkPlan& plan : solver.plans()) {
    solver.open(plan);
    solver.seed(seeds, potential);
  }
}

template <class T>
void assign(const DeviceRows<T>& rows, const Groups& groups, const T* centroids,
            std::int64_t n_nearest, std::int64_t* assignment, double* distance,
            const DeviceCall& call) {
  const ddkern::cuda::OnDevice device(call.device);
  FitOptions options;
  options.init = Init::array;
  ChunkSolver<T> solver(rows, groups, options, call);
  Task task;
  task.needs_rows = false;
  task.n_nearest = n_nearest;
  solver.plan(task);
  for (const ChunkPlan& plan : solver.plans()) {
    solver.open(plan);
    solver.assign(centroids, assignment, distance);
  }
}

#define DDKERN_INSTANTIATE(T)                                                                      \
  template void fit(const DeviceRows<T>&, const Groups&, const FitOptions&, const T*,              \
                    DeviceFit<T>&, const DeviceCall&);                                             \
  template void seed(const DeviceRows<T>&, const Groups&, const FitOptions&, std::int64_t*,        \
                     double*, const DeviceCall&);                                                  \
  template void assign(const DeviceRows<T>&, const Groups&, const T*, std::int64_t, std::int64_t*, \
                       double*, const DeviceCall&)

DDKERN_INSTANTIATE(float);
DDKERN_INSTANTIATE(double);

}  // namespace ddkern::kmeans::cuda
