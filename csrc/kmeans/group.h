// SPDX-License-Identifier: Apache-2.0
// Group: one problem's rows in canonical form (docs/numerics.md sections 1 to 4).
//
// Everything a group's result depends on is fixed here: the integer weights, the centre, the scale,
// the grid of the sums. What is kept in memory (converted rows, packed blocks) is only a matter of
// speed.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/buffer.h"
#include "core/parallel.h"
#include "core/rows.h"
#include "kmeans/block.h"
#include "kmeans/byte_layout.h"
#include "kmeans/kernels.h"
#include "kmeans/kmeans.h"

namespace ddkern::kmeans {

// What of a group stays in memory while it is worked on.
struct Residency {
  bool rows = false;         // converted copies; never for rows that can be read in place
  bool f32_blocks = false;   // packed float32
  bool fast_blocks = false;  // packed in the format of the fast products
};

// Room for one row of each of several threads.
template <class T>
class RowScratch {
 public:
  RowScratch(int n_threads, std::int64_t n_features, int rows_per_thread = 1)
      : stride_(n_features * rows_per_thread), n_features_(n_features),
        data_(static_cast<std::int64_t>(n_threads) * stride_) {}
  T* get(int thread, int row = 0) { return data_.data() + thread * stride_ + row * n_features_; }

 private:
  std::int64_t stride_, n_features_;
  Buffer<T> data_;
};

// A centre and a power of two: y = x * 2^-exponent - centre.
template <class T>
struct Frame {
  int exponent = 0;
  std::vector<T> centre;  // [n_features]
  double scale() const { return std::ldexp(1.0, -exponent); }
};

// The memory that Group::reorder() takes, some of it for good.
std::int64_t bytes_to_reorder(std::int64_t n_rows, int n_threads);

template <class T>
class Group {
 public:
  // rows [n]: row numbers in the reader, or null for first_row, first_row + 1, ...
  // sample_weight: indexed by row number, or null.
  Group(const RowReader<T>& reader, const std::int64_t* rows, std::int64_t first_row,
        std::int64_t n, const double* sample_weight, const Kernels<T>& kernels);

  // Checks and centres the rows and packs what `residency` keeps, the fast blocks in `format`; if
  // those are bytes, with a head, should it pay (byte_layout.h).
  // Throws InvalidArgument naming the row that is not finite. `f32_needed` says that
  // float32 blocks will be asked for, kept or not.
  void prepare(const Residency& residency, FastFormat format, bool head, bool f32_needed,
               const Team& team);

  // Packs the fast blocks once more, in another format, keeping them or not.
  void change_format(FastFormat format, bool keep, const Team& team);

  // Brings the rows of the blocks into another order, once: position i, counted through all blocks,
  // takes row order[i].
  void reorder(std::vector<std::int64_t> order, const Team& team);

  // Only what assign() needs: fast blocks in a given frame; no weights, no sums.
  void prepare_in_frame(const Frame<T>& frame, const Residency& residency, FastFormat format,
                        const Team& team);

  std::int64_t n() const { return n_; }
  std::int64_t n_blocks() const { return n_blocks_of(n_); }
  std::int64_t n_features() const { return n_features_; }
  const Kernels<T>& kernels() const { return kernels_; }
  std::int64_t row_number(std::int64_t i) const { return rows_ != nullptr ? rows_[i] : first_ + i; }

  // The row at a position of the blocks. Everything padded to whole blocks goes by position.
  std::int64_t row_at(std::int64_t position) const {
    return order_.empty() ? position : order_[static_cast<std::size_t>(position)];
  }

  // Stored row i; `scratch` [n_features] is used where it must be converted.
  const T* row(std::int64_t i, T* scratch) const {
    if (!converted_.empty()) return converted_.data() + i * n_features_;
    return reader_.row(row_number(i), scratch);
  }
  bool rows_in_place() const { return !converted_.empty() || reader_.in_place(); }
  bool rows_equal(std::int64_t i, const T* value, T* scratch) const;

  // Chains (dots.h) of up to kBlockPoints rows with `column` [n_features] and, unless `norms` is
  // null, with themselves. Only where the fast blocks are bytes.
  // `cold` says that nobody fetched them ahead; `n_ahead` more entries of `rows` are wanted next.
  void chains(const std::int64_t* rows, int n_rows, bool cold, int n_ahead, const float* column,
              float* dots, float* norms, RowScratch<T>& row_scratch, int thread) const;
  // Pointers to rows that are read in place and will be wanted soon; `at` [n_rows] holds them.
  RowsAhead ahead(const std::int64_t* rows, int n_rows, const void** at) const;
  // y of row i in the canonical frame.
  void centred_row(std::int64_t i, float* y, T* scratch) const;

  // Packed blocks; `scratch` [block_words()] is used where they are not resident.
  const float* f32_block(std::int64_t block, float* scratch, RowScratch<T>& row_scratch,
                         int thread) const;
  const void* fast_block(std::int64_t block, float* scratch, RowScratch<T>& row_scratch,
                         int thread) const;
  std::int64_t block_words() const {
    return std::max(n_features_ + 1, layout_.n_point_words) * kBlockPoints;
  }
  FastFormat format() const { return format_; }
  const ByteLayout& byte_layout() const { return layout_; }  // of FastFormat::bytes

  // Section 2. weights() is null for unweighted groups, where every weight is 1.
  bool weighted() const { return !units_.empty(); }
  std::int64_t units(std::int64_t i) const { return units_.empty() ? 1 : units_[i]; }
  double weight(std::int64_t i) const { return weights_.empty() ? 1.0 : weights_[i]; }
  bool counts(std::int64_t i) const { return units(i) > 0; }
  const double* weights() const { return weights_.empty() ? nullptr : weights_.data(); }  // padded
  std::int64_t total_units() const { return total_units_; }
  std::int64_t n_positive() const { return n_positive_; }
  double total_weight() const { return total_weight_; }
  int grid_bits() const { return grid_bits_; }
  // A weighted mean of integers is fl64(sum) / fl64(units) times this.
  double mean_factor() const { return weighted() ? std::ldexp(1.0, grid_bits_) : 1.0; }

  // Sections 3 and 4.
  const Frame<T>& frame() const { return frame_; }
  double scale() const { return frame_.scale(); }
  double unscale() const { return std::ldexp(1.0, frame_.exponent); }
  const T* centre() const { return frame_.centre.data(); }
  // v = row * row_scale() - row_shift() is the row in units of the grid of the sums.
  double row_scale() const { return std::ldexp(1.0, grid_bits_ - row_exponent_ - frame_.exponent); }
  const double* row_shift() const { return row_shift_.data(); }
  double row_unit() const { return std::ldexp(1.0, row_exponent_ - grid_bits_); }

  // ||y||^2 of stored row `x` in the canonical frame; sq_norms() has those of all rows when float32
  // blocks were needed, and is empty otherwise.
  double sq_norm(const T* x) const {
    return kernels_.distance.centred_sq_norm(x, centre(), scale(), n_features_);
  }
  const std::vector<double>& sq_norms() const { return sq_norms_; }

  // The frame of the fast blocks, which is any that was at hand before the canonical one was known,
  // and bounds for the certificate in it, padded to whole blocks: p on the part of a row that the
  // fast blocks lose, q on the norm of what they keep. For bytes both are weighted by segment, p
  // with 1 / weight and q with weight.
  const Frame<T>& fast_frame() const { return format_ == FastFormat::f32 ? frame_ : fast_frame_; }
  const float* p() const { return p_.data(); }
  const float* q() const { return q_.data(); }
  // At least the norm of a row's tail (byte_layout.h), padded; null where there is no head.
  const float* tails() const { return tails_.empty() ? nullptr : tails_.data(); }
  // ||y||^2 in the fast frame, of byte blocks, to a relative error of sq_norm_error().
  const double* fast_sq_norms() const { return fast_sq_norms_.data(); }
  double sq_norm_error() const;
  // At least ||y||^2 of every row in the frame of the fast blocks, padded.
  std::vector<float> largest_sq_norms() const;
  float p_f32(std::int64_t i) const;  // the same for the float32 blocks
  float q_f32(std::int64_t i) const;
  // Positions of rows whose numbers leave float32's comfort: never certain.
  bool wild(std::int64_t position) const { return !(q_[position] < 0x1p40f); }

 private:
  void set_weights(const double* sample_weight);
  // What one thread saw of the rows in the first pass.
  struct alignas(kThreadAlignment) Seen {
    std::vector<std::int64_t> sums, block_sums;                 // [n_features]
    std::vector<T> low, high;                                   // [n_features]
    int exponent = 0;                                           // of the grid of `sums`
    std::vector<std::pair<std::int64_t, std::int64_t>> summed;  // rows in `sums`
    double max_abs = 0;
    bool small_integers = true;
    std::int64_t first_bad = 0, first_inexact = 0;
  };
  std::vector<Seen> first_pass(const Residency& residency, const Team& team);
  void survey_block(std::int64_t block, Seen& seen, RowScratch<T>& row_scratch, int thread);
  void check(const std::vector<Seen>& seen) const;
  void set_frame(const std::vector<Seen>& seen, const Team& team);
  std::vector<const T*> sample_rows(RowScratch<T>& row_scratch) const;
  void guess_fast_frame(bool head);
  void set_byte_layout(const std::vector<const T*>& rows, bool integers, bool head);
  void pack_fast_block(std::int64_t block, std::uint32_t* words, RowScratch<T>& row_scratch,
                       int thread) const;
  void pack_byte_block(std::int64_t block, const RowsAhead& ahead, std::uint32_t* words,
                       float* sq_norms, float* sq_lost, RowScratch<T>& row_scratch,
                       int thread) const;
  // The rows of a block that exist, and how many.
  int find_rows(std::int64_t block, const T** rows, RowScratch<T>& row_scratch, int thread) const;
  void pack_fast_block_with_bounds(std::int64_t block, const RowsAhead& ahead, std::uint32_t* words,
                                   RowScratch<T>& row_scratch, int thread);
  void pack_f32(bool keep, const Team& team);
  void pack_block(std::int64_t block, const Frame<T>& frame, float* f32, std::uint32_t* bf16,
                  double* sq_norms, double* sq_residuals, RowScratch<T>& row_scratch,
                  int thread) const;
  // n_words of every point in `blocks`.
  void move_points(const std::vector<std::int64_t>& order, std::int64_t n_words,
                   std::uint32_t* blocks, const Team& team) const;
  void set_bounds(std::int64_t block, const double* sq_norms, const double* sq_residuals);
  std::int64_t fast_words() const {
    return (format_ == FastFormat::bytes ? layout_.n_point_words : (n_features_ + 1) / 2) *
           kBlockPoints;
  }

  const RowReader<T>& reader_;
  const std::int64_t* rows_;
  std::int64_t first_, n_, n_features_;
  const Kernels<T>& kernels_;

  std::vector<std::int64_t> units_;
  std::vector<double> weights_;
  std::int64_t total_units_ = 0, n_positive_ = 0;
  double total_weight_ = 0;
  int grid_bits_ = 40;

  Frame<T> frame_, fast_frame_;
  int row_exponent_ = 0;
  std::vector<double> row_shift_;

  std::vector<std::int64_t> order_;  // rows by position, padded, or empty
  FastFormat format_ = FastFormat::f32;
  ByteLayout layout_;
  Buffer<T> converted_;
  Buffer<float> f32_blocks_;
  Buffer<std::uint32_t> fast_blocks_;  // bfloat16 or bytes
  std::vector<double> sq_norms_;
  std::vector<float> p_, q_, tails_;
  std::vector<double> fast_sq_norms_;
};

extern template class Group<float>;
extern template class Group<double>;

}  // namespace ddkern::kmeans
