// Rows of a matrix, each the work of a group of threads: a warp, or a block for long rows.
//
// Method: a thread holds every kThreads-th entry of its row in registers, or reads it again each time where the row is
// too long for that. Several sums are reduced at once: at first each half of a warp gives the other what that one
// keeps, so that three sums take 9 shuffles instead of 15. Precision policy: float32 within a thread, over at most 16
// entries, and a warp; float64 beyond. The order of a sum depends on the shape of the group alone.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "indexing.cuh"

namespace fastpdr::cuda {

constexpr int kRowThreads = 256;  // of a block: eight warps with a row each, or all of them with one
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Add {
  template <typename T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};

struct Least {
  template <typename T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};

// Two values each of a lane and of that at distance kOffset: the lower lane gets the first combined, the upper the
// second.
template <int kOffset, typename T, typename Combine>
__device__ __forceinline__ T trade(T first, T second, bool upper, Combine combine) {
  const T kept = upper ? second : first, given = upper ? first : second;
  return combine(kept, __shfl_xor_sync(kAllLanes, given, kOffset));
}

// Combines each of the values over a warp; all lanes get the same bits.
template <int kCount, typename T, typename Combine>
__device__ __forceinline__ void warp_combine(T (&values)[kCount], Combine combine) {
  static_assert(2 <= kCount && kCount <= 4, "one value needs no trade, more than four another level");
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  T mine = trade<16>(values[0], values[1], lane & 16, combine);
  if constexpr (kCount > 2) {
    T other;
    if constexpr (kCount > 3) {
      other = trade<16>(values[2], values[3], lane & 16, combine);
    } else {
      other = combine(values[2], __shfl_xor_sync(kAllLanes, values[2], 16));
    }
    mine = trade<8>(mine, other, lane & 8, combine);
  } else {
    mine = combine(mine, __shfl_xor_sync(kAllLanes, mine, 8));
  }
#pragma unroll
  for (int offset = 4; offset > 0; offset /= 2) mine = combine(mine, __shfl_xor_sync(kAllLanes, mine, offset));
  values[0] = __shfl_sync(kAllLanes, mine, 0);
  values[1] = __shfl_sync(kAllLanes, mine, 16);
  if constexpr (kCount > 2) values[2] = __shfl_sync(kAllLanes, mine, 8);
  if constexpr (kCount > 3) values[3] = __shfl_sync(kAllLanes, mine, 24);
}

// The threads that share a row; all of them must call what combines.
template <int kThreads>
class Group {
 public:
  static_assert(kThreads == kWarp || kThreads == kRowThreads, "a warp or a block");
  using Sum = std::conditional_t<kThreads == kWarp, float, double>;
  static constexpr int kPerBlock = kRowThreads / kThreads;

  __device__ __forceinline__ int rank() const { return static_cast<int>(threadIdx.x) % kThreads; }
  __device__ __forceinline__ std::int64_t index() const {
    return static_cast<std::int64_t>(blockIdx.x) * kPerBlock + threadIdx.x / kThreads;
  }

  template <int kCount, typename Combine>
  __device__ __forceinline__ void combine(Sum (&values)[kCount], Combine combine) {
    warp_combine(values, combine);
    if constexpr (kThreads > kWarp) {
      constexpr int kWarps = kThreads / kWarp;
      // In turns, so that a call's barrier also ends the reading of the call before the last.
      FASTPDR_SHARED(Sum, of_warps, [2][kWarps][kCount]);
      turn_ ^= 1;
      if (threadIdx.x % kWarp == 0) {
#pragma unroll
        for (int c = 0; c < kCount; ++c) of_warps[turn_][threadIdx.x / kWarp][c] = values[c];
      }
      __syncthreads();
#pragma unroll
      for (int c = 0; c < kCount; ++c) {
        values[c] = of_warps[turn_][0][c];
#pragma unroll
        for (int w = 1; w < kWarps; ++w) values[c] = combine(values[c], of_warps[turn_][w][c]);
      }
    }
  }

 private:
  int turn_ = 0;
};

// The entries of a thread: kPerThread registers, +inf behind the row's end; or, if that is 0, as many as it takes,
// which stay in memory. A result for every entry is summed up beside it.
template <int kThreads, int kPerThread>
class Row {
 public:
  using Sum = typename Group<kThreads>::Sum;

  // `results` begin as what they are (`onto`) or as 0.
  __device__ __forceinline__ Row(const float* source, std::int64_t k, float* results, bool onto)
      : source_(source), results_(results), k_(k), onto_(onto) {
    if constexpr (kPerThread > 0) {
#pragma unroll
      for (int r = 0; r < kPerThread; ++r) {
        values_[r] = inside(r) ? source[place(r)] : kInfinity;
        sums_[r] = onto && inside(r) ? results[place(r)] : 0.0f;
      }
    }
  }

  // From now on an entry d is max((d - origin) factor, 0).
  __device__ __forceinline__ void rescale(float origin, float factor) {
    origin_ = origin;
    factor_ = factor;
    rescaled_ = true;
    if constexpr (kPerThread > 0) {
#pragma unroll
      for (int r = 0; r < kPerThread; ++r) values_[r] = fmaxf((values_[r] - origin) * factor, 0.0f);
    }
  }

  template <typename F>
  __device__ __forceinline__ void each(F use) const {
    if constexpr (kPerThread > 0) {
#pragma unroll
      for (int r = 0; r < kPerThread; ++r) use(values_[r]);
    } else {
      for (std::int64_t j = place(0); j < k_; j += kThreads) use(read(j));
    }
  }

  // Adds up over the whole row what `add(entry, sums)` adds to float32 sums.
  template <int kCount, typename F>
  __device__ __forceinline__ void sum(Group<kThreads>& group, Sum (&totals)[kCount], F add) const {
#pragma unroll
    for (int c = 0; c < kCount; ++c) totals[c] = Sum(0);
    if constexpr (kPerThread > 0) {
      float sums[kCount] = {};
#pragma unroll
      for (int r = 0; r < kPerThread; ++r) add(values_[r], sums);
#pragma unroll
      for (int c = 0; c < kCount; ++c) totals[c] = static_cast<Sum>(sums[c]);
    } else {
      constexpr int kBatch = 4;
      for (std::int64_t j = place(0); j < k_; j += kBatch * kThreads) {
        float sums[kCount] = {};
#pragma unroll
        for (int r = 0; r < kBatch; ++r) {
          if (j + r * kThreads < k_) add(read(j + r * kThreads), sums);
        }
#pragma unroll
        for (int c = 0; c < kCount; ++c) totals[c] += static_cast<Sum>(sums[c]);
      }
    }
    group.combine(totals, Add{});
  }

  // Adds `of(entry)` to every result.
  template <typename F>
  __device__ __forceinline__ void add(F of) {
    if constexpr (kPerThread > 0) {
#pragma unroll
      for (int r = 0; r < kPerThread; ++r) sums_[r] += of(values_[r]);
    } else {
      for (std::int64_t j = place(0); j < k_; j += kThreads) results_[j] = (onto_ ? results_[j] : 0.0f) + of(read(j));
      onto_ = true;
    }
  }

  __device__ __forceinline__ void store() const {
    if constexpr (kPerThread > 0) {
#pragma unroll
      for (int r = 0; r < kPerThread; ++r) {
        if (inside(r)) results_[place(r)] = sums_[r];
      }
    }
  }

 private:
  static __device__ __forceinline__ std::int64_t place(std::int64_t r) {
    return r * kThreads + static_cast<int>(threadIdx.x) % kThreads;
  }
  __device__ __forceinline__ bool inside(int r) const { return place(r) < k_; }
  __device__ __forceinline__ float read(std::int64_t j) const {
    const float d = source_[j];
    return rescaled_ ? fmaxf((d - origin_) * factor_, 0.0f) : d;
  }

  const float* source_;  // [k]
  float* results_;       // [k]
  std::int64_t k_;
  bool onto_, rescaled_ = false;
  float origin_ = 0.0f, factor_ = 1.0f;
  float values_[kPerThread > 0 ? kPerThread : 1], sums_[kPerThread > 0 ? kPerThread : 1];
};

}  // namespace fastpdr::cuda
