// Sums over a warp and over a block, in an order that depends on the block's size alone: the same bits every time.
//
// Method: a butterfly of shuffles, after which every lane has the same bits (addition is commutative); the warps' sums
// then meet in shared memory. Precision policy: that of the type; sums that run over a row or a batch are double.
#pragma once

#include "portable.h"

namespace fastpdr::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// All 32 lanes must call; all get the sum.
template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kAllLanes, value, offset);
  return value;
}

template <typename T>
__device__ __forceinline__ T warp_min(T value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const T other = __shfl_xor_sync(kAllLanes, value, offset);
    value = other < value ? other : value;
  }
  return value;
}

template <typename T>
__device__ __forceinline__ T warp_max(T value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const T other = __shfl_xor_sync(kAllLanes, value, offset);
    value = other > value ? other : value;
  }
  return value;
}

// All kThreads threads of a one-dimensional block must call; all get the sum. Ends with a barrier, so that it may be
// called again at once.
template <int kThreads, typename T>
__device__ __forceinline__ T block_sum(T value) {
  static_assert(kThreads % kWarp == 0 && kThreads <= kWarp * kWarp, "whole warps, at most 32 of them");
  constexpr int kWarps = kThreads / kWarp;
  FASTPDR_SHARED(T, warp_sums, [kWarps]);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  value = warp_sum(value);
  if (lane == 0) warp_sums[threadIdx.x / kWarp] = value;
  __syncthreads();
  const T sum = warp_sum(lane < kWarps ? warp_sums[lane] : T(0));
  __syncthreads();
  return sum;
}

// The sum over this thread and those before it, in the order of threadIdx.x; *total is the block's. As block_sum.
template <int kThreads, typename T>
__device__ __forceinline__ T block_inclusive_sum(T value, T* total) {
  static_assert(kThreads % kWarp == 0 && kThreads <= kWarp * kWarp, "whole warps, at most 32 of them");
  constexpr int kWarps = kThreads / kWarp;
  FASTPDR_SHARED(T, warp_totals, [kWarps]);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const T before = __shfl_up_sync(kAllLanes, value, offset);
    if (lane >= offset) value += before;
  }
  if (lane == kWarp - 1) warp_totals[warp] = value;
  __syncthreads();
  T sum = T(0), all = T(0);
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) sum += warp_totals[w];
    all += warp_totals[w];
  }
  __syncthreads();
  *total = all;
  return sum + value;
}

// The counts behind ends[0] become ends [n + 1]; returns the last. By one block, in turns of its threads, each of which
// takes kItems counts one after another.
template <int kThreads, int kItems = 16>
__device__ std::int64_t ends_of_counts(std::int64_t n, std::int64_t* ends) {
  std::int64_t carry = 0;
  for (std::int64_t begin = 0; begin < n; begin += kThreads * kItems) {
    std::int64_t items[kItems], sum = 0, total;
    const std::int64_t first = begin + static_cast<std::int64_t>(threadIdx.x) * kItems;
#pragma unroll
    for (int t = 0; t < kItems; ++t) {
      items[t] = first + t < n ? ends[first + t + 1] : 0;
      sum += items[t];
    }
    std::int64_t end = carry + block_inclusive_sum<kThreads>(sum, &total) - sum;
#pragma unroll
    for (int t = 0; t < kItems; ++t) {
      end += items[t];
      if (first + t < n) ends[first + t + 1] = end;
    }
    carry += total;
  }
  if (threadIdx.x == 0) ends[0] = 0;
  return carry;
}

// As above where there is nothing to sum up: n rows without entries.
template <int kThreads>
__device__ void clear_ends(std::int64_t n, std::int64_t* ends) {
  __syncthreads();  // another thread may have written them
  for (std::int64_t i = threadIdx.x; i <= n; i += kThreads) ends[i] = 0;
}

}  // namespace fastpdr::cuda
