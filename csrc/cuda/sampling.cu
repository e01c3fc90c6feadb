// CUDA draws from an alias table: a thread for each draw.
//
// Method and precision policy: fastpdr/sampling.h; whole numbers throughout, the very ones of the CPU kernel. A draw is
// some hundred integer instructions and one read of 8 bytes at random, which is what it waits for.
#include <algorithm>

#include "fastpdr/cuda.h"
#include "fastpdr/sampling.h"
#include "portable.h"

namespace fastpdr::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kMostBlocks = std::int64_t{1} << 20;  // further draws are taken in turns
constexpr int kRounds = 10;

struct Words {
  std::uint32_t r0, r1, r2;  // r3 is not used
};

// Philox4x32 on the counter (draw, step).
__device__ __forceinline__ Words philox(std::uint64_t draw, std::uint64_t seed, std::uint64_t step) {
  auto c0 = static_cast<std::uint32_t>(draw), c1 = static_cast<std::uint32_t>(draw >> 32);
  auto c2 = static_cast<std::uint32_t>(step), c3 = static_cast<std::uint32_t>(step >> 32);
  auto k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t even = std::uint64_t{0xD2511F53} * c0, odd = std::uint64_t{0xCD9E8D57} * c2;
    c0 = static_cast<std::uint32_t>(odd >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(odd);
    c2 = static_cast<std::uint32_t>(even >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(even);
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return {c0, c1, c2};
}

__global__ void __launch_bounds__(kThreads)
    draw(const std::int64_t* __restrict__ table, std::int64_t e, std::int64_t n_edges, std::uint64_t seed,
         std::uint64_t step, std::int64_t* __restrict__ edges) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t t = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; t < n_edges; t += stride) {
    const Words words = philox(static_cast<std::uint64_t>(t), seed, step);
    const std::uint64_t r = words.r0 | std::uint64_t{words.r1} << 32;
    const auto index = static_cast<std::int64_t>(__umul64hi(r, static_cast<std::uint64_t>(e)));
    const std::int64_t entry = table[index];
    edges[t] = words.r2 < entry >> kAliasBits ? index : entry & (kAliasMaxEntries - 1);
  }
}

}  // namespace

cudaError_t sample_edges(const std::int64_t* table, std::int64_t e, std::int64_t n_edges, std::int64_t seed,
                         std::int64_t step, std::int64_t* edges, cudaStream_t stream) {
  if (n_edges == 0) return cudaSuccess;
  const std::int64_t blocks = std::min((n_edges - 1) / kThreads + 1, kMostBlocks);
  FASTPDR_LAUNCH(draw, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream, table, e, n_edges,
                 static_cast<std::uint64_t>(seed), static_cast<std::uint64_t>(step), edges);
  return cudaGetLastError();
}

}  // namespace fastpdr::cuda
