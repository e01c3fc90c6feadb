// Which thread works on what: grids of one dimension, a warp for every row, batches whose last rows are padding.
#pragma once

#include "reduce.cuh"

namespace fastpdr::cuda {

inline std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

inline dim3 grid(std::int64_t blocks) {
  return dim3(static_cast<unsigned>(blocks));
}

// The row of this warp where every warp of blocks of kThreads has one; it may lie beyond the last.
template <int kThreads>
__device__ __forceinline__ std::int64_t row_of_warp() {
  return static_cast<std::int64_t>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
}

// How many of the b rows of a batch count. The rest is padding, which takes no part.
__device__ __forceinline__ std::int64_t points_of(const std::int64_t* points, std::int64_t b) {
  return points == nullptr ? b : min(max(*points, std::int64_t{0}), b);
}

}  // namespace fastpdr::cuda
