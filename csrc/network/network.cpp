// SPDX-License-Identifier: Apache-2.0
#include "network/network.h"

#include <algorithm>
#include <atomic>

#include "core/buffer.h"
#include "core/float_mode.h"
#include "core/parallel.h"

namespace ddkern::network {
namespace {

// Channels that are handed out at a time: the registers of any level divide it.
constexpr std::int64_t kPiece = 64;
// Values for which it is worth waking another thread, which takes some microseconds.
constexpr std::int64_t kValuesPerThread = 32 * 1024;

// run(image, begin, end) for all channels of all images.
template <class Run>
void for_pieces(std::int64_t n, const MapShape& shape, int n_threads, const Run& run) {
  const std::int64_t n_values = n * shape.h * shape.w * shape.c;
  const auto useful = std::max<std::int64_t>(1, n_values / kValuesPerThread);
  const int n_workers = static_cast<int>(std::min<std::int64_t>(safe_threads(n_threads), useful));
  const std::int64_t n_pieces = (shape.c + kPiece - 1) / kPiece;
  std::atomic<bool> cancelled{false};
  const Team team(n_workers, nullptr, &cancelled);
  // An image a time, whose pieces are neighbours in memory, unless there are few.
  const std::int64_t grain = n >= 4 * n_workers ? n_pieces : 1;
  team.for_ranges(n * n_pieces, grain, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t at = begin; at < end; ++at) {
      const std::int64_t first = at % n_pieces * kPiece;
      run(at / n_pieces, first, std::min(shape.c, first + kPiece));
    }
  });
}

}  // namespace

template <class T>
void norm_relu_pool_forward(const NormReluPoolForwardCall<T>& call, int n_threads) {
  const StandardFloatMode float_mode;
  const auto& ops = norm_relu_pool_ops<T>(active_isa());
  const auto [h, w, c] = call.shape;
  const std::int64_t n_in = h * w * c, n_out = (h / 2) * (w / 2) * c, n_channels = c;
  for_pieces(call.n, call.shape, n_threads,
             [&](std::int64_t image, std::int64_t begin, std::int64_t end) {
               ops.forward({call.shape, begin, end, call.eps, call.x + image * n_in, call.weight,
                            call.bias, call.out + image * n_out, call.mean + image * n_channels,
                            call.rstd + image * n_channels});
             });
}

template <class T>
void norm_relu_pool_backward(const NormReluPoolBackwardCall<T>& call, int n_threads) {
  const StandardFloatMode float_mode;
  const auto& ops = norm_relu_pool_ops<T>(active_isa());
  const auto [h, w, c] = call.shape;
  const std::int64_t n_in = h * w * c, n_out = (h / 2) * (w / 2) * c, n_channels = c;
  Buffer<float> sums_gu(call.n * c), sums_g(call.n * c);
  for_pieces(
      call.n, call.shape, n_threads, [&](std::int64_t image, std::int64_t begin, std::int64_t end) {
        ops.backward({call.shape, begin, end, call.grad_out + image * n_out, call.x + image * n_in,
                      call.mean + image * n_channels, call.rstd + image * n_channels, call.weight,
                      call.bias, call.grad_x == nullptr ? nullptr : call.grad_x + image * n_in,
                      sums_gu.data() + image * n_channels, sums_g.data() + image * n_channels});
      });
  for (std::int64_t channel = 0; channel < c; ++channel) {
    double weight = 0, bias = 0;
    for (std::int64_t image = 0; image < call.n; ++image) {
      weight += static_cast<double>(sums_gu[image * c + channel]);
      bias += static_cast<double>(sums_g[image * c + channel]);
    }
    call.grad_weight[channel] = static_cast<float>(weight);
    call.grad_bias[channel] = static_cast<float>(bias);
  }
}

template void norm_relu_pool_forward(const NormReluPoolForwardCall<float>&, int);
template void norm_relu_pool_forward(const NormReluPoolForwardCall<Bfloat16>&, int);
template void norm_relu_pool_backward(const NormReluPoolBackwardCall<float>&, int);
template void norm_relu_pool_backward(const NormReluPoolBackwardCall<Bfloat16>&, int);

}  // namespace ddkern::network
