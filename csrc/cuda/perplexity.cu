// CUDA search for the precision of every row: a warp, or a block for a long row, takes one through all perplexities.
//
// Method: that of the CPU kernel, Newton's on logit(H / log m) as a function of log(beta) inside a bracket, from the
// largest perplexity to the smallest. The row and its share of p stay in registers; no row waits for another, and one
// launch does all. Precision policy: exponentials in float32 (2 units in the last place), row sums as in rows.cuh;
// all in base 2, entropies in bits.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <numeric>
#include <vector>

#include "fastpdr/cuda.h"
#include "rows.cuh"

namespace fastpdr::cuda {
namespace {

constexpr int kScales = 32;                // of one launch
constexpr int kMaxEvaluations = 96;        // bisection alone halves a bracket of 1e38 in 8 bits by then
constexpr float kLargestStep = 5.77f;      // in log2(beta)
constexpr int kLargestExponent = 100;      // of the scaled distances
constexpr float kVanishing = 126.0f;       // 2^-126 and less is 0
constexpr float kSquareUnit = 0x1.0p-50f;  // keeps squares of scaled distances and their sum finite
constexpr float kTiny = 1e-12f;
constexpr float kLog2 = 0.693147180559945f, kLog2E = 1.44269504088896f;

// From the largest perplexity to the smallest; passed by value, so that a CUDA graph keeps them.
struct Scales {
  std::int64_t whole[kScales];   // perplexities rounded down: counts compare with them as with the perplexities
  std::int64_t column[kScales];  // in beta
  float bits[kScales];           // their logarithms
  int count;
  bool onto;  // p already has the share of other perplexities
  float share;
};

struct Search {
  const float* sqdist;  // [n, k]
  std::int64_t n, k, h;
  float tolerance;  // bits
  float* p;         // [n, k]
  float* beta;      // [n, h]
};

// What a row is, before any search.
struct Shape {
  float inverse_unit;         // scaled distances are (d - min d) times this power of two
  float deviation;            // of the finite scaled distances
  std::int64_t finite, tied;  // entries that are not excluded; that equal the minimum
  bool valid;                 // neither NaN nor -inf
};

// The search of one row: what the weights 2^(-beta t) of the scaled distances t are.
struct State {
  float beta, low, high;    // the precision and its bracket
  float weight;             // sum of the weights
  float entropy, variance;  // of the distribution, in bits, and of beta t in it
};

__device__ __forceinline__ float exponent_of(float t, float beta) {
  return fminf(t * beta, kVanishing);  // keeps inf * 0 out of x e
}

__device__ __forceinline__ float weight_of(float exponent) {
  return exponent < kVanishing ? exp2f(-exponent) : 0.0f;
}

// 2^e with e at most 127, such that `span` times it is below 2^kLargestExponent.
__device__ __forceinline__ float inverse_unit_of(float span) {
  const int exponent = (__float_as_int(span) >> 23) - 126;
  return __int_as_float((min(kLargestExponent - exponent, 127) + 127) << 23);
}

// Shifts the row to minimum 0 and scales it to a maximum of about 2^100, so that float32 holds distances from 1e-30 to
// 1e30 beside each other.
template <int kThreads, int kPerThread>
__device__ __forceinline__ Shape prepare(Group<kThreads>& group, Row<kThreads, kPerThread>& row) {
  using Sum = typename Group<kThreads>::Sum;
  Sum least[3] = {kInfinity, kInfinity, 0};  // the minimum, minus the maximum, -1 where not comparable
  row.each([&](float d) {
    if (d < kInfinity) {
      least[0] = Least{}(least[0], static_cast<Sum>(d));
      least[1] = Least{}(least[1], static_cast<Sum>(-d));
    }
    if (!(d > -kInfinity)) least[2] = -1;
  });
  group.combine(least, Least{});
  Shape shape{1.0f, 1.0f, 0, 0, least[2] == 0};
  const auto low = static_cast<float>(least[0]);
  if (!shape.valid || low == kInfinity) return shape;
  shape.inverse_unit = inverse_unit_of(static_cast<float>(-least[1]) - low);
  row.rescale(low, shape.inverse_unit);

  Sum sums[4];
  row.sum(group, sums, [](float t, float (&s)[4]) {
    const float counted = t < kInfinity ? t * kSquareUnit : 0.0f;
    s[0] += counted;
    s[1] += counted * counted;
    s[2] += t < kInfinity ? 1.0f : 0.0f;
    s[3] += t == 0.0f ? 1.0f : 0.0f;
  });
  const float share = 1.0f / static_cast<float>(sums[2]), mean = static_cast<float>(sums[0]) * share;
  const float variance = static_cast<float>(sums[1]) * share - mean * mean;  // rounded to less than it is, perhaps
  shape.deviation = fmaxf(sqrtf(fmaxf(variance, 1e-7f * mean * mean)) / kSquareUnit, 1e-30f);
  shape.finite = static_cast<std::int64_t>(sums[2]);
  shape.tied = static_cast<std::int64_t>(sums[3]);
  return shape;
}

template <int kThreads, int kPerThread>
__device__ __forceinline__ void evaluate(Group<kThreads>& group, const Row<kThreads, kPerThread>& row, State& state) {
  typename Group<kThreads>::Sum sums[3];
  const float beta = state.beta;
  row.sum(group, sums, [beta](float t, float (&s)[3]) {
    const float x = exponent_of(t, beta), e = weight_of(x), xe = x * e;
    s[0] += e;
    s[1] += xe;
    s[2] += x * xe;
  });
  state.weight = fmaxf(static_cast<float>(sums[0]), 1.0f);  // the minimum has weight 1
  const float mean = static_cast<float>(sums[1]) / state.weight;
  state.entropy = log2f(state.weight) + mean;
  state.variance = __fdividef(static_cast<float>(sums[2]), state.weight) - mean * mean;
}

// One step of the bracketed Newton iteration; the same beta where float32 has no better.
__device__ __forceinline__ float next_beta(const State& state, float target, float largest) {
  const float above = fmaxf(state.entropy, kTiny), below = fmaxf(largest - state.entropy, kTiny);
  const float ratio = __fdividef(below * target, above * (largest - target));
  // The slope of the entropy in bits over log2(beta) is -variance log^2 2; that of the logit has its own logarithm.
  const float slope = __fdividef(state.variance * kLog2 * largest, below * above);
  const float step = __fdividef(-__log2f(fmaxf(ratio, FLT_MIN)), fmaxf(slope, kTiny));
  const float candidate = state.beta * exp2f(fminf(fmaxf(step, -kLargestStep), kLargestStep));
  if (candidate > state.low && candidate < state.high) return candidate;
  return state.low > 0.0f && state.high < kInfinity ? sqrtf(state.low) * sqrtf(state.high) : state.beta;
}

template <int kThreads, int kPerThread>
__global__ void __launch_bounds__(kRowThreads, 2) search_rows(const Search search, const Scales scales) {
  Group<kThreads> group;
  const std::int64_t i = group.index();
  if (i >= search.n) return;
  Row<kThreads, kPerThread> row(search.sqdist + i * search.k, search.k, search.p + i * search.k, scales.onto);
  const Shape shape = prepare(group, row);
  const float largest = log2f(fmaxf(static_cast<float>(shape.finite), 1.0f)), slack = 0.5f * search.tolerance;
  State state{};
  bool started = false;
  for (int s = 0; s < scales.count; ++s) {
    const bool uniform = scales.whole[s] >= shape.finite, ties = scales.whole[s] < shape.tied;
    float beta = kNaN;
    if (!shape.valid) {
      row.add([](float) { return kNaN; });
    } else if (uniform || ties) {
      const float end = uniform ? kInfinity : FLT_TRUE_MIN;
      const float share = scales.share / fmaxf(static_cast<float>(uniform ? shape.finite : shape.tied), 1.0f);
      row.add([=](float t) { return t < end ? share : 0.0f; });
      beta = uniform ? 0.0f : FLT_MAX;
    } else {
      // The target stays inside (0, log m), where the logit exists; the tolerance covers the difference.
      const float target = fmaxf(fminf(scales.bits[s], largest - slack), slack);
      if (!started) {
        // Exact for Gaussian distances.
        state.beta = __fdividef(sqrtf((largest - target) * (2.0f * kLog2)), shape.deviation) * kLog2E;
      }
      state.low = started ? state.beta : 0.0f;
      state.high = kInfinity;
      bool known = started;  // the sums at the last solution are there already
      for (int evaluation = 1;; ++evaluation) {
        if (!known) evaluate(group, row, state);
        known = false;
        const float error = state.entropy - target;
        if (!(fabsf(error) > search.tolerance) || evaluation == kMaxEvaluations) break;
        (error > 0.0f ? state.low : state.high) = state.beta;
        const float next = next_beta(state, target, largest);
        if (next == state.beta) break;
        state.beta = next;
      }
      started = true;
      const float share = scales.share / state.weight, precision = state.beta;
      row.add([=](float t) { return share * weight_of(exponent_of(t, precision)); });
      beta = fminf(precision * kLog2 * shape.inverse_unit, FLT_MAX);
    }
    if (group.rank() == 0) search.beta[i * search.h + scales.column[s]] = beta;
  }
  row.store();
}

template <int kThreads, int kPerThread>
void launch(const Search& of, const Scales& scales, cudaStream_t stream) {
  constexpr int kRows = Group<kThreads>::kPerBlock;
  FASTPDR_LAUNCH((search_rows<kThreads, kPerThread>), grid(divide_up(of.n, kRows)), dim3(kRowThreads), 0, stream, of,
                 scales);
}

}  // namespace

cudaError_t perplexity_search(const float* sqdist, const double* perplexities, std::int64_t n, std::int64_t k,
                              std::int64_t h, double tolerance, float* p, float* beta, cudaStream_t stream) {
  if (n == 0 || h == 0) return cudaSuccess;
  if (n >= std::int64_t{1} << 31) return cudaErrorInvalidValue;  // blocks of a grid
  std::vector<std::int64_t> order(h);
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int64_t a, std::int64_t b) { return perplexities[a] > perplexities[b]; });
  const Search of{sqdist, n, k, h, static_cast<float>(std::max(tolerance, 2e-6)) * kLog2E, p, beta};
  const auto start = k <= 32     ? launch<kWarp, 1>
                     : k <= 64   ? launch<kWarp, 2>
                     : k <= 96   ? launch<kWarp, 3>
                     : k <= 128  ? launch<kWarp, 4>
                     : k <= 256  ? launch<kWarp, 8>
                     : k <= 512  ? launch<kWarp, 16>
                     : k <= 1024 ? launch<kRowThreads, 4>
                     : k <= 4096 ? launch<kRowThreads, 16>
                                 : launch<kRowThreads, 0>;
  for (std::int64_t first = 0; first < h; first += kScales) {
    Scales scales{};
    scales.count = static_cast<int>(std::min<std::int64_t>(kScales, h - first));
    scales.onto = first > 0;
    scales.share = static_cast<float>(1.0 / static_cast<double>(h));
    for (int s = 0; s < scales.count; ++s) {
      scales.column[s] = order[first + s];
      const double perplexity = perplexities[scales.column[s]];
      scales.whole[s] = static_cast<std::int64_t>(std::min(perplexity, 0x1.0p62));
      scales.bits[s] = static_cast<float>(std::log2(perplexity));
    }
    start(of, scales, stream);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace fastpdr::cuda
