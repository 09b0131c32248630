// SPDX-License-Identifier: Apache-2.0
// Products with the instructions of Hopper alone: a warpgroup multiplies 64 rows by 64 or 256 from
// shared memory at once (wgmma), which the tensor cores need to be fed. Same operands and same
// bound as products.cu; runs on compute capability 9.0 and nowhere else, not on the CPU either.
#include "core/cuda/mma.cuh"
#include "kmeans/cuda/nearest.cuh"
#include "kmeans/cuda/product_stage.cuh"
#include "kmeans/cuda/products.h"

namespace ddkern::kmeans::cuda {
namespace {

constexpr int kColumns = kGramColumns;
constexpr int kThreads = 256;  // two warpgroups, one above the other
constexpr int kStages = 4;
constexpr int kBytesA = kTileRows * kDepth * 2, kBytesB = kColumns * kDepth * 2;
constexpr int kAlignment = 1024;  // of what is swizzled: 8 rows of 128 bytes
constexpr int kSharedBytes = kStages * (kBytesA + kBytesB) + kAlignment;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int kRowsLoaded = kThreads / kChunks;  // at a time

// Rows of 128 bytes, features side by side, eight rows apart by 1024 bytes (PTX ISA, "matrix
// descriptor"; the leading offset is not used with this swizzle).
inline __device__ std::uint64_t descriptor_of(const void* shared) {
  const auto address = static_cast<std::uint64_t>(__cvta_generic_to_shared(shared));
  return ((address & 0x3ffff) >> 4) | (std::uint64_t{1} << 16) |
         (std::uint64_t{kAlignment >> 4} << 32) | (std::uint64_t{1} << 62);
}

// d [64 x 256] += A [64 x 16] B [256 x 16]^T by a warpgroup. With g = lane / 4 and t = lane % 4,
// warp w of the four has rows 16 w + g (d[4 n], d[4 n + 1]) and 16 w + g + 8 (d[4 n + 2], d[4 n +
// 3]) in columns 8 n + 2 t and 8 n + 2 t + 1.
inline __device__ void multiply_by_warpgroup(float (&d)[128], std::uint64_t a, std::uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, "
      "%127}, "
      "%128, %129, 1, 1, 1, 0, 0;"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
        "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]),
        "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
        "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),
        "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
        "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]),
        "+f"(d[63]), "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]),
        "+f"(d[70]), "+f"(d[71]), "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]),
        "+f"(d[77]), "+f"(d[78]), "+f"(d[79]), "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]),
        "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]), "+f"(d[88]), "+f"(d[89]), "+f"(d[90]),
        "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95]), "+f"(d[96]), "+f"(d[97]),
        "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103]),
        "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), "+f"(d[108]), "+f"(d[109]),
        "+f"(d[110]), "+f"(d[111]), "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]),
        "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119]), "+f"(d[120]), "+f"(d[121]),
        "+f"(d[122]), "+f"(d[123]), "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])
      : "l"(a), "l"(b));
}

// The same for 64 columns; without `accumulate` d is overwritten.
inline __device__ void multiply_by_warpgroup(float (&d)[32], std::uint64_t a, std::uint64_t b,
                                             bool accumulate) {
  asm volatile(
      "{.reg .pred p; setp.ne.b32 p, %34, 0; "
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "%32, %33, p, 1, 1, 0, 0;}"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
        "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));
}

#endif

__global__ void __launch_bounds__(kThreads, 1)
    gram_kernel(ChunkTables chunk, const ProductTile* product_tiles) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  DDKERN_DYNAMIC_SHARED(unsigned char, unaligned);
  const auto at = static_cast<unsigned>(__cvta_generic_to_shared(unaligned));
  unsigned char* const shared = unaligned + (kAlignment - at % kAlignment) % kAlignment;
  const ProductTile product_tile = product_tiles[blockIdx.x];
  const RowTile tile = chunk.tiles[product_tile.row_tile];
  const GroupShape& shape = chunk.shapes[tile.group];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const int warpgroup = thread / 128, warp = thread / 32 % 4;
  const int n_padded = chunk.n_padded;
  const int n_rows = static_cast<int>(shape.n) - tile.first;
  const int n_columns = static_cast<int>(shape.n) - product_tile.first_column;
  const int load_row = thread / kChunks, load_chunk = thread % kChunks;
  const __half* from_a = chunk.halves + (shape.begin + tile.first) * n_padded + load_chunk * 8;
  const __half* from_b =
      chunk.halves + (shape.begin + product_tile.first_column) * n_padded + load_chunk * 8;
  const auto load_stage = [&](int stage, int depth) {
    unsigned char* to_a = shared + stage * (kBytesA + kBytesB);
    unsigned char* to_b = to_a + kBytesA;
#pragma unroll
    for (int r = 0; r < kTileRows; r += kRowsLoaded) {
      const int row = r + load_row;
      const bool valid = row < n_rows;
      ddkern::cuda::copy_async_16(
          to_a + swizzled(row, load_chunk),
          from_a + static_cast<std::int64_t>(valid ? row : 0) * n_padded + depth, valid);
    }
#pragma unroll
    for (int r = 0; r < kColumns; r += kRowsLoaded) {
      const int row = r + load_row;
      const bool valid = row < n_columns;
      ddkern::cuda::copy_async_16(
          to_b + swizzled(row, load_chunk),
          from_b + static_cast<std::int64_t>(valid ? row : 0) * n_padded + depth, valid);
    }
  };
  float sums[128];
#pragma unroll
  for (float& sum : sums) sum = 0;
  const int n_steps = n_padded / kDepth;
  constexpr int kAhead = kStages - 1;
#pragma unroll
  for (int s = 0; s < kAhead; ++s) {
    if (s < n_steps) load_stage(s, s * kDepth);
    ddkern::cuda::copy_async_commit();
  }
  for (int step = 0; step < n_steps; ++step) {
    ddkern::cuda::copy_async_wait<kAhead - 1>();
    // What ordinary copies wrote is read by the tensor cores' own path.
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    if (step + kAhead < n_steps) load_stage((step + kAhead) % kStages, (step + kAhead) * kDepth);
    ddkern::cuda::copy_async_commit();
    const unsigned char* at_a = shared + step % kStages * (kBytesA + kBytesB);
    const std::uint64_t a = descriptor_of(at_a + warpgroup * (kBytesA / 2));
    const std::uint64_t b = descriptor_of(at_a + kBytesA);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int k = 0; k < kDepth / 16; ++k) multiply_by_warpgroup(sums, a + k * 2, b + k * 2);
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  }

  static_assert(kHalfScaleBits == 13);
#pragma unroll
  for (int n = 0; n < kColumns / 8; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int row = warpgroup * 64 + warp * 16 + lane / 4 + e / 2 * 8;
      const int column = n * 8 + lane % 4 * 2 + e % 2;
      const std::int64_t i = tile.first + row, j = product_tile.first_column + column;
      if (row >= n_rows || j > i) continue;
      const float value = sums[n * 4 + e] * kProductUnit;
      chunk.gram[shape.gram + j * shape.gram_stride + i] = value;
      chunk.gram[shape.gram + i * shape.gram_stride + j] = value;
    }
  }
#endif
}

// --- products and scan in one ------------------------------------------------------------------

constexpr int kScanColumns = 64;  // more would not leave registers for two blocks
constexpr int kScanStages = 4;
struct ScanStage {
  unsigned char cells[kScanColumns * kDepth * 2];
};
constexpr int kTileBytes = kTileRows * kDepth * 2;  // of the rows, for every 64 features
int scan_bytes(int n_padded) {
  return kAlignment + n_padded / kDepth * kTileBytes +
         kScanStages * static_cast<int>(sizeof(ScanStage) + kScanColumns * sizeof(CellBound));
}

// A block has a tile of rows in shared memory, 64 of them a warpgroup, and goes through the cells
// 64 at a time. A thread has two rows and a quarter of the columns.
__global__ void __launch_bounds__(kThreads, 2) product_scan_kernel(ChunkTables chunk) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  constexpr int kRows = 2, kKept = 3;
  DDKERN_DYNAMIC_SHARED(unsigned char, unaligned);
  const auto at = static_cast<unsigned>(__cvta_generic_to_shared(unaligned));
  unsigned char* const rows = unaligned + (kAlignment - at % kAlignment) % kAlignment;
  const int n_padded = chunk.n_padded, n_depths = n_padded / kDepth;
  auto* const stages = reinterpret_cast<ScanStage*>(rows + n_depths * kTileBytes);
  auto* const bounds = reinterpret_cast<CellBound*>(stages + kScanStages);
  const RowTile tile = chunk.tiles[blockIdx.x];
  if (chunk.runs[tile.group].active == 0) return;
  const GroupShape& shape = chunk.shapes[tile.group];
  const int k = shape.k;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const int warpgroup = thread / 128, warp = thread / 32 % 4;
  const int n_rows = static_cast<int>(shape.n) - tile.first;
  const int load_row = thread / kChunks, load_chunk = thread % kChunks;
  const __half* from_rows = chunk.halves + (shape.begin + tile.first) * n_padded + load_chunk * 8;
  const __half* from_cells = chunk.cell_halves + shape.first_cell * n_padded + load_chunk * 8;
  for (int depth = 0; depth < n_depths; ++depth) {
#pragma unroll
    for (int r = 0; r < kTileRows; r += kRowsLoaded) {
      const int row = r + load_row;
      const bool valid = row < n_rows;
      ddkern::cuda::copy_async_16(
          rows + depth * kTileBytes + swizzled(row, load_chunk),
          from_rows + static_cast<std::int64_t>(valid ? row : 0) * n_padded + depth * kDepth,
          valid);
    }
  }
  // What is loaded next, and what is multiplied: stage, first cell and 64 features of it.
  struct Place {
    int stage = 0, first = 0, depth = 0;
    __device__ void advance(int n_depths) {
      stage = (stage + 1) % kScanStages;
      if (++depth < n_depths) return;
      depth = 0;
      first += kScanColumns;
    }
  };
  Place next, here;
  const CellBound* from_bounds = chunk.bounds + shape.first_cell;
  const auto load_stage = [&] {
    if (next.first < k) {
#pragma unroll
      for (int r = 0; r < kScanColumns; r += kRowsLoaded) {
        const int row = r + load_row;
        const bool valid = next.first + row < k;
        ddkern::cuda::copy_async_16(
            stages[next.stage].cells + swizzled(row, load_chunk),
            from_cells + static_cast<unsigned>((valid ? next.first + row : 0) * n_padded +
                                               next.depth * kDepth),
            valid);
      }
      // With the last features of a cell.
      if (next.depth == n_depths - 1 && thread < kScanColumns) {
        const bool valid = next.first + thread < k;
        ddkern::cuda::copy_async_16(bounds + next.stage * kScanColumns + thread,
                                    from_bounds + (valid ? next.first + thread : 0), valid);
      }
      next.advance(n_depths);
    }
    ddkern::cuda::copy_async_commit();
  };
  constexpr int kAhead = kScanStages - 1;
#pragma unroll
  for (int s = 0; s < kAhead; ++s) load_stage();
  const int first_row = warpgroup * 64 + warp * 16 + lane / 4;
  float row_lost[kRows], row_norm[kRows];
  LeastScores<kKept> found[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int row = first_row + r * 8;
    const std::int64_t position = shape.begin + tile.first + (row < n_rows ? row : 0);
    row_lost[r] = chunk.lost[position];
    row_norm[r] = chunk.norms[position];
    found[r].limit = limit_from_before(chunk, shape, position, row_lost[r], row_norm[r]);
  }
  float sums[32];
#pragma unroll
  for (float& sum : sums) sum = 0;
  for (; here.first < k; here.advance(n_depths)) {
    ddkern::cuda::copy_async_wait<kAhead - 1>();
    // What ordinary copies wrote is read by the tensor cores' own path.
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    load_stage();
    const std::uint64_t a =
        descriptor_of(rows + here.depth * kTileBytes + warpgroup * (kTileBytes / 2));
    const std::uint64_t b = descriptor_of(stages[here.stage].cells);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int d = 0; d < kDepth / 16; ++d) {
      multiply_by_warpgroup(sums, a + d * 2, b + d * 2, here.depth > 0 || d > 0);
    }
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    if (here.depth != n_depths - 1) continue;
    scan_tile<kScanColumns / 8>(
        found, row_lost, row_norm, bounds + here.stage * kScanColumns, here.first, k,
        [&](int r, int n, int half) -> float& { return sums[n * 4 + r * 2 + half]; });
  }
  // Read again, which costs less than keeping it.
  const RowTile same_tile = chunk.tiles[blockIdx.x];
  int n_open = 0;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    n_open += decide_by_four(chunk, same_tile, first_row + r * 8, is_wild(row_norm[r]), found[r]);
  }
  n_open = ddkern::cuda::warp_reduce(n_open, ddkern::cuda::Sum{});
  if (lane == 0 && n_open > 0) {
    ddkern::cuda::atomic_add(&chunk.runs[same_tile.group].n_rechecked,
                             static_cast<std::int64_t>(n_open));
  }
#endif
}

}  // namespace

void multiply_and_scan_sm90a(const ChunkTables& chunk, cudaStream_t stream) {
  DDKERN_LAUNCH(product_scan_kernel, chunk.n_tiles, kThreads, scan_bytes(chunk.n_padded), stream,
                chunk);
}

void multiply_rows_sm90a(const ChunkTables& chunk, const ProductTile* tiles, int n_tiles,
                         cudaStream_t stream) {
  if (n_tiles == 0) return;
  DDKERN_LAUNCH(gram_kernel, n_tiles, kThreads, kSharedBytes, stream, chunk, tiles);
}

}  // namespace ddkern::kmeans::cuda
