// Sums over warps and blocks against a sum in order, for every size of a block that the kernels use.
#include "check.h"
#include "reduce.cuh"

namespace fastpdr::cuda {
namespace {

template <int kThreads, typename T>
__global__ void sums(const T* values, T* warps, T* blocks, T* scans, T* extremes) {
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  warps[i] = warp_sum(values[i]);
  blocks[i] = block_sum<kThreads>(values[i]) + block_sum<kThreads>(T(1));
  T total;
  const T before = block_inclusive_sum<kThreads>(values[i], &total);
  scans[i] = total - before;
  extremes[i] = warp_max(values[i]) - warp_min(values[i]);
}

template <int kThreads, typename T>
void test() {
  constexpr int kBlocks = 3, kSize = kBlocks * kThreads;
  std::vector<T> values(kSize);
  for (int i = 0; i < kSize; ++i) values[i] = static_cast<T>(i * 7919 % 101);
  std::vector<T> warps(kSize), blocks(kSize), scans(kSize), extremes(kSize);
  for (int i = 0; i < kSize; ++i) {
    const int warp = i / kWarp * kWarp, block = i / kThreads * kThreads;
    T low = values[warp], high = values[warp];
    for (int j = warp; j < warp + kWarp; ++j) {
      warps[i] += values[j];
      low = std::min(low, values[j]);
      high = std::max(high, values[j]);
    }
    for (int j = block; j < block + kThreads; ++j) {
      blocks[i] += values[j];
      if (j > i) scans[i] += values[j];
    }
    blocks[i] += static_cast<T>(kThreads);
    extremes[i] = high - low;
  }
  check::Device<T> in(values), out_warps(kSize), out_blocks(kSize), out_scans(kSize), out_extremes(kSize);
  FASTPDR_LAUNCH((sums<kThreads, T>), dim3(kBlocks), dim3(kThreads), 0, cudaStream_t(), in.data(), out_warps.data(),
                 out_blocks.data(), out_scans.data(), out_extremes.data());
  check::require_done(cudaGetLastError());
  const std::string what = " of " + std::to_string(kThreads) + " threads, " + std::to_string(sizeof(T)) + " bytes";
  check::equal("warp_sum" + what, out_warps.host(), warps);
  check::equal("block_sum" + what, out_blocks.host(), blocks);
  check::equal("block_inclusive_sum" + what, out_scans.host(), scans);
  check::equal("warp_max and warp_min" + what, out_extremes.host(), extremes);
}

}  // namespace
}  // namespace fastpdr::cuda

int main() {
  return fastpdr::check::run([] {
    using fastpdr::cuda::test;
    test<32, float>();
    test<64, double>();
    test<128, float>();
    test<256, std::int64_t>();
    if (fastpdr::check::kThorough) test<1024, double>();
  });
}
