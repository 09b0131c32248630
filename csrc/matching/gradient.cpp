// SPDX-License-Identifier: Apache-2.0
#include "matching/gradient.h"

#include <algorithm>
#include <atomic>

#include "core/buffer.h"
#include "core/float_mode.h"
#include "core/parallel.h"

namespace ddkern::matching {
namespace {

// Values for which it is worth waking another thread, which takes some microseconds.
constexpr std::int64_t kValuesPerThread = 64 * 1024;

// A piece of one row, and its number among the pieces of all rows.
struct Piece {
  std::int64_t row;    // of its matrix
  std::int64_t first;  // column
  std::int64_t n;
  std::int64_t number;
};

template <class Matrix>
std::int64_t pieces_of_row(const Matrix& matrix) {
  return (matrix.n_columns + kProductsBlock - 1) / kProductsBlock;
}

template <class Matrix>
std::int64_t count_pieces(const std::vector<Matrix>& matrices) {
  std::int64_t count = 0;
  for (const Matrix& matrix : matrices) count += matrix.n_rows * pieces_of_row(matrix);
  return count;
}

// run(matrix, its first row among all, piece) for all pieces of all rows.
template <class Matrix, class Run>
void for_pieces(const std::vector<Matrix>& matrices, int n_threads, const Run& run) {
  std::int64_t n_values = 0;
  for (const Matrix& matrix : matrices) n_values += matrix.n_rows * matrix.n_columns;
  const auto useful = std::max<std::int64_t>(1, n_values / kValuesPerThread);
  const int n_workers = static_cast<int>(std::min<std::int64_t>(safe_threads(n_threads), useful));
  const std::int64_t n_pieces = count_pieces(matrices);
  std::atomic<bool> cancelled{false};
  const Team team(n_workers, nullptr, &cancelled);
  const std::int64_t grain = std::max<std::int64_t>(1, n_pieces / (8 * n_workers));
  team.for_ranges(n_pieces, grain, [&](std::int64_t begin, std::int64_t end, int) {
    std::size_t at = 0;
    std::int64_t pieces_before = 0, rows_before = 0;
    for (std::int64_t number = begin; number < end; ++number) {
      while (number >= pieces_before + matrices[at].n_rows * pieces_of_row(matrices[at])) {
        pieces_before += matrices[at].n_rows * pieces_of_row(matrices[at]);
        rows_before += matrices[at++].n_rows;
      }
      const std::int64_t within = number - pieces_before, of_row = pieces_of_row(matrices[at]);
      const std::int64_t first = within % of_row * kProductsBlock;
      run(matrices[at], rows_before,
          Piece{within / of_row, first, std::min(kProductsBlock, matrices[at].n_columns - first),
                number});
    }
  });
}

}  // namespace

template <class T>
void row_products(const std::vector<ProductsMatrix<T>>& matrices, const ProductsOut& out,
                  int n_threads) {
  const StandardFloatMode float_mode;
  const auto& ops = cosine_ops<T>(active_isa());
  Buffer<RowProducts> sums(count_pieces(matrices));
  for_pieces(matrices, n_threads,
             [&](const ProductsMatrix<T>& of, std::int64_t, const Piece& piece) {
               const std::int64_t at = piece.row * of.n_columns + piece.first;
               sums[piece.number] = ops.products({piece.n, of.a + at, of.b + at});
             });
  std::int64_t row = 0, number = 0;
  for (const ProductsMatrix<T>& matrix : matrices) {
    for (std::int64_t r = 0; r < matrix.n_rows; ++r, ++row) {
      RowProducts total{0, 0, 0};
      for (std::int64_t piece = 0; piece < pieces_of_row(matrix); ++piece, ++number) {
        total.dot += sums[number].dot;
        total.square_a += sums[number].square_a;
        total.square_b += sums[number].square_b;
      }
      out.dot[row] = total.dot;
      out.square_a[row] = total.square_a;
      out.square_b[row] = total.square_b;
    }
  }
}

template <class T>
void row_combination(const std::vector<CombineMatrix<T>>& matrices, const double* of_a,
                     const double* of_b, int n_threads) {
  const StandardFloatMode float_mode;
  const auto& ops = cosine_ops<T>(active_isa());
  for_pieces(matrices, n_threads,
             [&](const CombineMatrix<T>& of, std::int64_t rows_before, const Piece& piece) {
               const std::int64_t at = piece.row * of.n_columns + piece.first;
               const std::int64_t row = rows_before + piece.row;
               ops.combine({piece.n, of.a + at, of.b + at, of_a[row], of_b[row], of.out + at});
             });
}

template void row_products(const std::vector<ProductsMatrix<float>>&, const ProductsOut&, int);
template void row_products(const std::vector<ProductsMatrix<Bfloat16>>&, const ProductsOut&, int);
template void row_combination(const std::vector<CombineMatrix<float>>&, const double*,
                              const double*, int);
template void row_combination(const std::vector<CombineMatrix<Bfloat16>>&, const double*,
                              const double*, int);

}  // namespace ddkern::matching
