// CUDA search for the bandwidth of every row: a warp, or a block for a long row, takes one.
//
// Method: that of the CPU kernel, Newton's on the logarithm of the sum from beta = 0, which needs no bracket. Blocks go
// through the rows in strides and leave their sums of the distances behind; a second launch adds these up and bounds
// the sigma of rows with rho = 0. Precision policy: exponentials in float32 (2 units in the last place), row sums as in
// rows.cuh, the mean of all distances in float64.
#include <algorithm>
#include <cfloat>
#include <cmath>

#include "fastpdr/cuda.h"
#include "rows.cuh"

namespace fastpdr::cuda {
namespace {

constexpr std::int64_t kBlocks = 1024;  // the same for every device, as the order of the sums depends on it
constexpr int kMaxEvaluations = 64;
constexpr float kClose = 1e-4f;                  // in the logarithm of the sum; one more step squares it
constexpr float kSmallestBeta = 1e-6f;           // of scaled distances, where only sigma = inf would do
constexpr float kVanishing = 126.0f;             // 2^-126 and less is 0
constexpr float kSmallestShare = 1e-3f;          // of the mean distance, for sigma
constexpr double kSmallestInterpolation = 1e-5;  // of local_connectivity beyond a whole number
constexpr float kLog2E = 1.44269504088896f;

struct Search {
  const float* dist;  // [n, k]
  std::int64_t n, k;
  std::int64_t whole;  // local_connectivity rounded down
  float fraction;      // and the rest, 0 where it is negligible
  float* weights;      // [n, k]
  float* rho;          // [n]
  float* sigma;        // [n]
};

// What a block leaves of its valid rows.
struct Share {
  double distance;  // their sum
  double entries;   // their number, every point itself included
};

// The distance up to which a row is one with its neighbourhood: that to the local_connectivity-th neighbour that is
// not at distance 0, interpolated, or to the last where there are not as many.
__device__ __forceinline__ float connected_distance(const Search& search, const float* row, std::int64_t finite,
                                                    std::int64_t zeros) {
  const float* const positive = row + zeros;
  const std::int64_t count = finite - zeros;
  const std::int64_t needed = search.whole + (search.fraction > 0.0f);
  if (count <= 0 || needed == 0) return 0.0f;
  if (count < needed) return positive[count - 1];
  const float lower = search.whole > 0 ? positive[search.whole - 1] : 0.0f;
  return search.fraction > 0.0f ? lower + search.fraction * (positive[search.whole] - lower) : lower;
}

// The power of two that scales `largest` to [1, 2).
__device__ __forceinline__ float inverse_unit_of(float largest) {
  return __int_as_float(max(0x7f000000 - (__float_as_int(largest) & 0x7f800000), 0x00800000));
}

__device__ __forceinline__ float weight_of(float exponent) {
  return exponent < kVanishing ? exp2f(-exponent) : 0.0f;
}

// The precision, in base 2, at which the weights beyond rho sum up to `target`, of scaled distances beyond it.
template <int kThreads, int kPerThread>
__device__ __forceinline__ float solve(Group<kThreads>& group, const Row<kThreads, kPerThread>& row, float target,
                                       float beyond, float excess) {
  if (!(target > 0.0f) || beyond == 0.0f) return kSmallestBeta;
  float beta = logf(beyond / target) * beyond / fmaxf(excess, FLT_MIN) * kLog2E;
  for (int evaluation = 0; evaluation < kMaxEvaluations; ++evaluation) {
    typename Group<kThreads>::Sum sums[2];
    row.sum(group, sums, [beta](float x, float (&s)[2]) {
      const float exponent = fminf(x * beta, kVanishing), e = x > 0.0f ? weight_of(exponent) : 0.0f;
      s[0] += e;
      s[1] += exponent * e;
    });
    const auto sum = static_cast<float>(sums[0]), first = static_cast<float>(sums[1]);
    const float error = logf(fmaxf(sum / target, FLT_MIN));
    // The slope of log sum against log beta is -log 2 * first / sum.
    beta *= fmaxf(error * kLog2E * sum / fmaxf(first, FLT_MIN) + 1.0f, 0.5f);
    if (!(fabsf(error) > kClose)) break;
  }
  return fmaxf(beta, kSmallestBeta);
}

template <int kThreads, int kPerThread>
__global__ void __launch_bounds__(kRowThreads, 2) weigh(const Search search, Share* __restrict__ shares) {
  using Sum = typename Group<kThreads>::Sum;
  Group<kThreads> group;
  double distance = 0.0, entries = 0.0;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * Group<kThreads>::kPerBlock;
  for (std::int64_t i = group.index(); i < search.n; i += stride) {
    const float* const source = search.dist + i * search.k;
    Row<kThreads, kPerThread> row(source, search.k, search.weights + i * search.k, false);
    Sum counts[3];
    row.sum(group, counts, [](float d, float (&s)[3]) {
      s[0] += d < kInfinity ? 1.0f : 0.0f;
      s[1] += d <= 0.0f ? 1.0f : 0.0f;
      s[2] += d > -kInfinity ? 0.0f : 1.0f;
    });
    float rho = kNaN, sigma = kNaN;
    if (counts[2] > 0) {
      row.add([](float) { return kNaN; });
    } else {
      const auto finite = static_cast<std::int64_t>(counts[0]);
      rho = connected_distance(search, source, finite, static_cast<std::int64_t>(counts[1]));
      const float inverse_unit = inverse_unit_of(finite > 0 ? fmaxf(source[finite - 1], 0.0f) : 0.0f);
      Sum sums[3];
      row.sum(group, sums, [=](float d, float (&s)[3]) {
        const float x = fmaxf((d - rho) * inverse_unit, 0.0f);
        s[0] += d < kInfinity ? d * inverse_unit : 0.0f;
        s[1] += x < kInfinity ? x : 0.0f;
        s[2] += x == 0.0f ? 1.0f : 0.0f;
      });
      row.rescale(rho, inverse_unit);
      const auto members = static_cast<float>(finite + 1), tied = static_cast<float>(sums[2]);
      const float target = log2f(members) - tied;
      const float beta = solve(group, row, target, members - 1.0f - tied, static_cast<float>(sums[1]));
      float scaled = target > 0.0f ? kLog2E / beta : 0.0f;
      if (finite == 1 && sums[2] == 1) scaled = inverse_unit;
      if (rho > 0.0f) scaled = fmaxf(scaled, static_cast<float>(sums[0]) / members * kSmallestShare);
      const float precision = kLog2E / fmaxf(scaled, FLT_MIN);
      row.add([precision](float x) { return x > 0.0f ? weight_of(fminf(x * precision, kVanishing)) : 1.0f; });
      const float unit = 1.0f / inverse_unit;
      sigma = scaled * unit;
      distance += static_cast<double>(sums[0]) * static_cast<double>(unit);
      entries += static_cast<double>(finite + 1);
    }
    row.store();
    if (group.rank() == 0) {
      search.rho[i] = rho;
      search.sigma[i] = sigma;
    }
  }
  const bool counts_once = group.rank() == 0;
  distance = block_sum<kRowThreads>(counts_once ? distance : 0.0);
  entries = block_sum<kRowThreads>(counts_once ? entries : 0.0);
  if (threadIdx.x == 0) shares[blockIdx.x] = {distance, entries};
}

// Rows with rho = 0 are rare (all neighbours coincide with the point) unless local_connectivity is 0: a warp looks at
// 32 rows at once.
__global__ void __launch_bounds__(kRowThreads)
    bound(const Search search, const Share* __restrict__ shares, std::int64_t count) {
  double distance = 0.0, entries = 0.0;
  for (std::int64_t s = threadIdx.x; s < count; s += kRowThreads) {
    distance += shares[s].distance;
    entries += shares[s].entries;
  }
  distance = block_sum<kRowThreads>(distance);
  entries = block_sum<kRowThreads>(entries);
  const auto smallest = static_cast<float>(entries > 0.0 ? kSmallestShare * (distance / entries) : 0.0);
  const float beta = kLog2E / fmaxf(smallest, FLT_MIN);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kRowThreads;
  for (std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kRowThreads + threadIdx.x - lane; first < search.n;
       first += stride) {
    const std::int64_t i = first + lane;
    const bool small = i < search.n && search.rho[i] == 0.0f && search.sigma[i] < smallest;
    if (small) search.sigma[i] = smallest;
    for (unsigned rows = __ballot_sync(kAllLanes, small); rows != 0; rows &= rows - 1) {
      const std::int64_t begin = (first + __ffs(static_cast<int>(rows)) - 1) * search.k;
      for (std::int64_t j = begin + lane; j < begin + search.k; j += kWarp) {
        const float d = search.dist[j];
        search.weights[j] = d > 0.0f ? weight_of(fminf(d * beta, kVanishing)) : 1.0f;
      }
    }
  }
}

std::int64_t blocks(std::int64_t n, std::int64_t rows) {
  return std::min(divide_up(n, rows), kBlocks);
}

template <int kThreads, int kPerThread>
void launch(const Search& search, Share* shares, cudaStream_t stream) {
  const std::int64_t count = blocks(search.n, Group<kThreads>::kPerBlock);
  FASTPDR_LAUNCH((weigh<kThreads, kPerThread>), grid(count), dim3(kRowThreads), 0, stream, search, shares);
  FASTPDR_LAUNCH(bound, grid(blocks(search.n, kRowThreads)), dim3(kRowThreads), 0, stream, search, shares, count);
}

}  // namespace

std::size_t fuzzy_weights_workspace() {
  return kBlocks * sizeof(Share);
}

cudaError_t fuzzy_weights(const float* dist, std::int64_t n, std::int64_t k, double local_connectivity, void* workspace,
                          float* weights, float* rho, float* sigma, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  // No row has more than k neighbours, so that a larger number is not needed (and may not fit).
  const double connectivity = std::min(local_connectivity, static_cast<double>(k) + 1.0);
  const auto whole = static_cast<std::int64_t>(connectivity);
  const double rest = connectivity - static_cast<double>(whole);
  const bool negligible = whole > 0 && rest <= kSmallestInterpolation;
  const Search search{dist, n, k, whole, negligible ? 0.0f : static_cast<float>(rest), weights, rho, sigma};
  const auto start = k <= 32    ? launch<kWarp, 1>
                     : k <= 64  ? launch<kWarp, 2>
                     : k <= 128 ? launch<kWarp, 4>
                     : k <= 512 ? launch<kWarp, 16>
                                : launch<kRowThreads, 0>;
  start(search, static_cast<Share*>(workspace), stream);
  return cudaGetLastError();
}

}  // namespace fastpdr::cuda
