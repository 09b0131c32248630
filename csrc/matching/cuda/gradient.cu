// SPDX-License-Identifier: Apache-2.0
#include "matching/cuda/gradient.h"

#include <array>

#include "core/cuda/launch.h"
#include "core/cuda/tensor_table.cuh"
#include "core/cuda/values.cuh"
#include "matching/cuda/sums.cuh"

namespace ddkern::matching::cuda {
namespace {

using ddkern::cuda::find_piece;
using ddkern::cuda::is_aligned;
using ddkern::cuda::launch_pieces;
using ddkern::cuda::OnDevice;
using ddkern::cuda::Pack;
using ddkern::cuda::Piece;
using ddkern::cuda::PieceLaunch;
using ddkern::cuda::pieces_of;
using ddkern::cuda::round_to;
using ddkern::cuda::TensorTable;
using ddkern::cuda::to_float;

static_assert(kProductsBlock == kTrajectoryBlock, "sum_block() adds blocks of that size");

// Matrices of a launch. What a tensor of the table counts is the kernel's business.
template <class T, int kPointers, int kCapacity>
struct MatrixTable {
  TensorTable<T, kPointers, kCapacity> tensors;
  std::int64_t n_rows[kCapacity];
  std::int64_t n_columns[kCapacity];
  std::int64_t first_row[kCapacity];  // among the rows of all matrices
  std::int64_t first_sum[kCapacity];  // among the sums of all pieces of rows
};

__host__ __device__ inline std::int64_t pieces_of_row(std::int64_t n_columns) {
  return (n_columns + kProductsBlock - 1) / kProductsBlock;
}

struct Shape {
  std::int64_t n_rows, n_columns;
  std::int64_t first_row, first_sum;

  // The sums of a row in one piece go where they belong; those of several wait to be added.
  std::int64_t n_sums() const {
    const std::int64_t n_pieces = pieces_of_row(n_columns);
    return n_pieces > 1 ? n_rows * n_pieces : 0;
  }
};

template <class Matrix>
std::vector<Shape> shapes_of(const std::vector<Matrix>& matrices) {
  std::vector<Shape> shapes;
  std::int64_t first_row = 0, first_sum = 0;
  for (const Matrix& matrix : matrices) {
    shapes.push_back({matrix.n_rows, matrix.n_columns, first_row, first_sum});
    first_row += matrix.n_rows;
    first_sum += shapes.back().n_sums();
  }
  return shapes;
}

template <class Size>
std::vector<std::int64_t> sizes_of(const std::vector<Shape>& shapes, const Size& size) {
  std::vector<std::int64_t> sizes;
  for (const Shape& shape : shapes) sizes.push_back(size(shape));
  return sizes;
}

// run(table, launch) for every launch; `piece` of the units in `sizes` are for one thread block.
template <class T, int kPointers, class Pointers, class Run>
void launch_matrices(const std::vector<Shape>& shapes, const std::vector<std::int64_t>& sizes,
                     std::int64_t piece, const Pointers& pointers, const Run& run) {
  launch_pieces<T, kPointers>(sizes, piece, pointers,
                              [&](const auto& tensors, const PieceLaunch& launch) {
                                constexpr int kCapacity = sizeof(tensors.n) / sizeof(tensors.n[0]);
                                MatrixTable<T, kPointers, kCapacity> table = {};
                                table.tensors = tensors;
                                for (std::int64_t i = launch.first; i < launch.last; ++i) {
                                  const std::int64_t slot = i - launch.first;
                                  table.n_rows[slot] = shapes[i].n_rows;
                                  table.n_columns[slot] = shapes[i].n_columns;
                                  table.first_row[slot] = shapes[i].first_row;
                                  table.first_sum[slot] = shapes[i].first_sum;
                                }
                                run(table, launch);
                              });
}

// --- products ------------------------------------------------------------------------------------

// Columns up to which a row is one warp's, and a thread block has several rows. Not part of the
// result.
constexpr int kWarpColumns = 1024;
constexpr int kProducts = 3;

struct Products {
  static constexpr int kSums = kProducts;
  static __device__ void of(const double (&values)[2], double (&terms)[kSums]) {
    terms[0] = values[0] * values[1];
    terms[1] = values[0] * values[0];
    terms[2] = values[1] * values[1];
  }
};

__device__ __forceinline__ double* product(const ProductsOut& out, int which) {
  return which == 0 ? out.dot : which == 1 ? out.square_a : out.square_b;
}

std::int64_t blocks_for(const Shape& shape) {
  return shape.n_columns <= kWarpColumns ? pieces_of(shape.n_rows, kSumWarps)
                                         : shape.n_rows * pieces_of_row(shape.n_columns);
}

// A thread block has a piece of a row, or a short row for each of its warps. sums
// [kProducts][n_sums].
template <class T, int kCapacity>
__global__ void __launch_bounds__(kSumThreads)
    products_kernel(const __grid_constant__ MatrixTable<T, 2, kCapacity> table, ProductsOut out,
                    std::int64_t n_sums, double* sums) {
  const Piece block = find_piece(table.tensors, 1);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const std::int64_t n_columns = table.n_columns[block.tensor];
  const T* const a = table.tensors.at[0][block.tensor];
  const T* const b = table.tensors.at[1][block.tensor];
  if (n_columns <= kWarpColumns) {
    const std::int64_t row = block.first * kSumWarps + warp;
    if (row >= table.n_rows[block.tensor]) return;
    const T* const lists[2] = {a + row * n_columns, b + row * n_columns};
    double found[kProducts];
    sum_by_warp<Products>(lists, static_cast<int>(n_columns), found);
    if (lane == 0) {
#pragma unroll
      for (int s = 0; s < kProducts; ++s) {
        product(out, s)[table.first_row[block.tensor] + row] = found[s];
      }
    }
    return;
  }
  const std::int64_t n_pieces = pieces_of_row(n_columns);
  const std::int64_t row = block.first / n_pieces, piece = block.first - row * n_pieces;
  const std::int64_t at = row * n_columns + piece * kProductsBlock;
  const std::int64_t rest = n_columns - piece * kProductsBlock;
  const T* const lists[2] = {a + at, b + at};
  const int n = static_cast<int>(rest < kProductsBlock ? rest : kProductsBlock);
  const double sum = sum_block<Products>(lists, n);
  if (lane != 0 || warp >= kProducts) return;
  if (n_pieces == 1) {
    product(out, warp)[table.first_row[block.tensor] + row] = sum;
  } else {
    sums[warp * n_sums + table.first_sum[block.tensor] + block.first] = sum;
  }
}

// The sums of a row's pieces, by a warp each. A tensor of the table has those of a matrix.
template <int kCapacity>
__global__ void __launch_bounds__(kTotalThreads)
    row_totals_kernel(const __grid_constant__ MatrixTable<const double, 1, kCapacity> table,
                      ProductsOut out, std::int64_t n_sums) {
  const Piece piece = find_piece(table.tensors, kTotalsABlock);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  if (warp >= piece.n) return;
  const std::int64_t n_rows = table.n_rows[piece.tensor], total = piece.first + warp;
  const auto which = static_cast<int>(total / n_rows);
  const std::int64_t row = total - which * n_rows;
  const std::int64_t n_pieces = pieces_of_row(table.n_columns[piece.tensor]);
  const double* const of = table.tensors.at[0][piece.tensor] + which * n_sums + row * n_pieces;
  const double sum = sum_in_order(of, n_pieces);
  if (threadIdx.x % kWarp == 0) product(out, which)[table.first_row[piece.tensor] + row] = sum;
}

// --- combination ---------------------------------------------------------------------------------

// Not part of the result.
constexpr int kCombinationThreads = 256;
constexpr int kCombinationPiece = 4096;

// The factors of a row, and how many of its values are left.
struct RowFactors {
  const double *of_a, *of_b;  // of this row and of those that follow
  int left;
  double a, b;

  __device__ __forceinline__ void load() {
    a = *of_a;
    b = *of_b;
  }
};

// Values of a piece from `lead` on are those of rows of `width`; those before, of the row in which
// the piece begins.
__device__ __forceinline__ RowFactors factors_at(int i, int lead, int width, const double* of_a,
                                                 const double* of_b) {
  RowFactors factors{of_a, of_b, lead - i, 0, 0};
  if (i >= lead) {
    const int row = (i - lead) / width;
    factors.of_a += 1 + row;
    factors.of_b += 1 + row;
    factors.left = width - (i - lead - row * width);
  }
  factors.load();
  return factors;
}

template <class T>
__device__ __forceinline__ T combined(T x, T y, RowFactors& factors, int width) {
  if (factors.left == 0) {
    ++factors.of_a;
    ++factors.of_b;
    factors.left = width;
    factors.load();
  }
  --factors.left;
  const double of_x = __dmul_rn(factors.a, static_cast<double>(to_float(x)));
  const double of_y = __dmul_rn(factors.b, static_cast<double>(to_float(y)));
  T out;
  round_to(__double2float_rn(__dadd_rn(of_x, of_y)), out);
  return out;
}

template <class T, int kCapacity>
__global__ void __launch_bounds__(kCombinationThreads)
    combination_kernel(const __grid_constant__ MatrixTable<T, 3, kCapacity> table,
                       const double* of_a, const double* of_b) {
  using Values = Pack<T>;
  const Piece piece = find_piece(table.tensors, kCombinationPiece);
  const T* a = table.tensors.at[0][piece.tensor] + piece.first;
  const T* b = table.tensors.at[1][piece.tensor] + piece.first;
  T* out = table.tensors.at[2][piece.tensor] + piece.first;
  const std::int64_t n_columns = table.n_columns[piece.tensor];
  const std::int64_t row = piece.first / n_columns, rest = (row + 1) * n_columns - piece.first;
  // What is beyond the piece does not matter, so that these are small.
  const int lead = rest < piece.n ? static_cast<int>(rest) : piece.n;
  const int width = n_columns < kCombinationPiece ? static_cast<int>(n_columns) : kCombinationPiece;
  of_a += table.first_row[piece.tensor] + row;
  of_b += table.first_row[piece.tensor] + row;

  int done = 0;
  if (is_aligned(a) && is_aligned(b) && is_aligned(out)) {
    const int n_packs = piece.n / Values::kValues;
    done = n_packs * Values::kValues;
    for (int p = static_cast<int>(threadIdx.x); p < n_packs; p += kCombinationThreads) {
      const Values x = reinterpret_cast<const Values*>(a)[p];
      const Values y = reinterpret_cast<const Values*>(b)[p];
      RowFactors factors = factors_at(p * Values::kValues, lead, width, of_a, of_b);
      Values to;
#pragma unroll
      for (int v = 0; v < Values::kValues; ++v) {
        to.value[v] = combined(x.value[v], y.value[v], factors, width);
      }
      reinterpret_cast<Values*>(out)[p] = to;
    }
  }
  for (int i = done + static_cast<int>(threadIdx.x); i < piece.n; i += kCombinationThreads) {
    RowFactors factors = factors_at(i, lead, width, of_a, of_b);
    out[i] = combined(a[i], b[i], factors, width);
  }
}

}  // namespace

std::int64_t products_workspace(const std::vector<std::int64_t>& n_rows,
                                const std::vector<std::int64_t>& n_columns) {
  std::int64_t n_sums = 0;
  for (std::size_t i = 0; i < n_rows.size(); ++i) {
    n_sums += Shape{n_rows[i], n_columns[i], 0, 0}.n_sums();
  }
  return kProducts * n_sums;
}

template <class T>
void row_products(const std::vector<ProductsMatrix<T>>& matrices, const ProductsOut& out,
                  double* workspace, const DeviceCall& call) {
  const OnDevice device(call.device);
  const auto stream = static_cast<cudaStream_t>(call.stream);
  const std::vector<Shape> shapes = shapes_of(matrices);
  const std::int64_t n_sums = shapes.empty() ? 0 : shapes.back().first_sum + shapes.back().n_sums();
  const auto pointers = [&](std::int64_t i) {
    // The table holds one kind of pointer; the kernel reads only.
    return std::array<T*, 2>{const_cast<T*>(matrices[i].a), const_cast<T*>(matrices[i].b)};
  };
  launch_matrices<T, 2>(shapes, sizes_of(shapes, blocks_for), 1, pointers,
                        [&](const auto& table, const PieceLaunch& launch) {
                          constexpr int kCapacity = sizeof(table.n_rows) / sizeof(std::int64_t);
                          DDKERN_LAUNCH((products_kernel<T, kCapacity>),
                                        static_cast<unsigned>(launch.n_pieces), kSumThreads, 0,
                                        stream, table, out, n_sums, workspace);
                        });
  const auto totals_of = [](const Shape& shape) {
    return shape.n_sums() > 0 ? kProducts * shape.n_rows : 0;
  };
  const auto sums_of = [&](std::int64_t i) {
    return std::array<const double*, 1>{workspace + shapes[i].first_sum};
  };
  launch_matrices<const double, 1>(
      shapes, sizes_of(shapes, totals_of), kTotalsABlock, sums_of,
      [&](const auto& table, const PieceLaunch& launch) {
        constexpr int kCapacity = sizeof(table.n_rows) / sizeof(std::int64_t);
        DDKERN_LAUNCH((row_totals_kernel<kCapacity>), static_cast<unsigned>(launch.n_pieces),
                      kTotalThreads, 0, stream, table, out, n_sums);
      });
}

template <class T>
void row_combination(const std::vector<CombineMatrix<T>>& matrices, const double* of_a,
                     const double* of_b, const DeviceCall& call) {
  const OnDevice device(call.device);
  const auto stream = static_cast<cudaStream_t>(call.stream);
  const std::vector<Shape> shapes = shapes_of(matrices);
  const auto values_of = [](const Shape& shape) { return shape.n_rows * shape.n_columns; };
  const auto pointers = [&](std::int64_t i) {
    return std::array<T*, 3>{const_cast<T*>(matrices[i].a), const_cast<T*>(matrices[i].b),
                             matrices[i].out};
  };
  launch_matrices<T, 3>(shapes, sizes_of(shapes, values_of), kCombinationPiece, pointers,
                        [&](const auto& table, const PieceLaunch& launch) {
                          constexpr int kCapacity = sizeof(table.n_rows) / sizeof(std::int64_t);
                          DDKERN_LAUNCH((combination_kernel<T, kCapacity>),
                                        static_cast<unsigned>(launch.n_pieces), kCombinationThreads,
                                        0, stream, table, of_a, of_b);
                        });
}

#define DDKERN_INSTANTIATE(T)                                                                    \
  template void row_products(const std::vector<ProductsMatrix<T>>&, const ProductsOut&, double*, \
                             const DeviceCall&);                                                 \
  template void row_combination(const std::vector<CombineMatrix<T>>&, const double*,             \
                                const double*, const DeviceCall&)

DDKERN_INSTANTIATE(float);
DDKERN_INSTANTIATE(Bfloat16);

}  // namespace ddkern::matching::cuda
