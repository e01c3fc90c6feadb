// An ascending sort of distinct keys by a warp or a block, in shared or global memory.
//
// Method: Batcher's bitonic sort (1968), each merge of which begins backwards, so that all exchanges point the same way
// and sizes other than powers of two need no padding.
#pragma once

#include <cstdint>

#include "reduce.cuh"

namespace fastpdr::cuda {

// A barrier of a warp, or of the whole block.
template <int kThreads>
__device__ __forceinline__ void barrier() {
  if constexpr (kThreads == kWarp) {
    __syncwarp();
  } else {
    __syncthreads();
  }
}

// All kThreads threads must call, `rank` being their number among them; begins and ends with a barrier.
template <int kThreads, typename Key>
__device__ void bitonic_sort(Key* keys, std::int64_t size, int rank) {
  for (std::int64_t width = 2; width < 2 * size; width *= 2) {
    for (std::int64_t step = width / 2; step > 0; step /= 2) {
      barrier<kThreads>();
      for (std::int64_t pair = rank;; pair += kThreads) {
        const std::int64_t within = pair & (step - 1), low = 2 * (pair - within) + within;
        const std::int64_t high = step == width / 2 ? low ^ (width - 1) : low + step;
        if (low >= size) break;
        if (high >= size || !(keys[high] < keys[low])) continue;
        const Key key = keys[low];
        keys[low] = keys[high];
        keys[high] = key;
      }
    }
  }
  barrier<kThreads>();
}

}  // namespace fastpdr::cuda
