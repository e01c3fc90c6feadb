// CUDA pair loss (fastpdr/pairs.h) by the tiles of tiles.cuh: the stored pairs attract, all pairs repel.
//
// With w = s^-b / a (one logarithm, one exponential; b = 1 needs neither) both curves are rational in w: the force is
// one division, and the values of a row's next four pairs share one logarithm, that of their product, or one for two
// where it could overflow. It is the special-function unit that a pair of b != 1 waits for, so two pairs share the
// division where the product of what they divide by is no larger than a float. Only near pairs can pull harder than
// clip; the others are spared the root.
//
// Precision policy: tiles.cuh; full logarithms and powers along the stored pairs, which are few.
#include <cmath>

#include "fastpdr/cuda.h"
#include "fastpdr/pairs.h"
#include "tiles.cuh"

namespace fastpdr::cuda {
namespace {

using tiles::Beside;
using tiles::kLn2;
using tiles::kQuad;
using tiles::Scales;
using tiles::Totals;

constexpr double kNearest = 1e-12;      // squared distance below which points coincide
constexpr double kLargestPower = 60.0;  // of 2 that a s^b reaches, up or down
constexpr double kTamePower = 30.0;     // of 2 that s^-b / a reaches at most where four of them can be multiplied

// A force pull * sqrt(sqdist) no longer than clip; at distance 0 there is none, and the root's inverse is infinite.
__device__ __forceinline__ float shorten_pull(float pull, float sqdist, float clip) {
  return fminf(pull, clip * tiles::inverse_root(sqdist));
}

// -log q and its pull along the stored pairs.
struct Attraction {
  static constexpr int kValues = 1;
  float a, b, shift, clip;  // 1 / q = shift + a s^b
  float smallest, largest;  // bounds of log2 s^b

  __device__ __forceinline__ float evaluate(float v, float sqdist, float, double (&value)[1]) const {
    const float s = fmaxf(sqdist, static_cast<float>(kNearest));
    const float power = b == 1.0f ? a * s : a * exp2f(fminf(fmaxf(b * log2f(s), smallest), largest));
    value[0] += v * log1pf((shift - 1.0f) + power);
    const float pull = 2.0f * b * power / ((shift + power) * s);
    return v * (clip > 0.0f ? shorten_pull(pull, sqdist, clip) : pull);
  }
};

// -log2(1 - q) and its push between all pairs, in units of `unit`. A tame curve needs no bounds: s is never below
// kNearest, and the product of four pairs' 1 / (1 - q) is a float.
template <bool kUnitPower, bool kKeras, bool kTame>
struct Repulsion {
  static constexpr int kRows = 4, kForces = 1, kValues = 1, kRowValues = 0;
  static constexpr bool kShares = false, kDense = false, kShortens = true;
  float inverse_a, log2_inverse_a, b, eps;
  float nearest, largest;  // bounds of s and of log2 w
  float reach, clip;       // where, and to which length in units, forces are shortened

  __device__ float start() const { return eps; }
  __device__ float near() const { return reach; }
  __device__ float shorten(float push, float sqdist) const { return shorten_pull(push, sqdist, clip); }

  template <bool kMasked>
  __device__ __forceinline__ void evaluate(const float (&sum)[kQuad], const Beside& beside, float (&value)[1],
                                           float (&push)[1][kQuad]) const {
    float ratio[kQuad], w[kQuad], divisor[kQuad];
#pragma unroll
    for (int q = 0; q < kQuad; ++q) {
      const float s = kTame ? sum[q] : fmaxf(sum[q], nearest);
      if constexpr (kUnitPower) {
        const float below = kKeras ? s + inverse_a : s, above = below + inverse_a;
        push[0][q] = tiles::reciprocal(above * below);
        ratio[q] = above * above * push[0][q];
      } else {
        const float power = fmaf(-b, tiles::log2_approximate(s), log2_inverse_a);
        w[q] = tiles::exp2_approximate(kTame ? power : fminf(power, largest));
        const float below = kKeras ? 1.0f + w[q] : 1.0f, above = below + w[q];
        divisor[q] = above * below * s;
        if constexpr (kKeras) {
          const float inverse = tiles::reciprocal(divisor[q]);
          push[0][q] = w[q] * inverse;
          ratio[q] = above * above * s * inverse;
        } else {
          ratio[q] = above;
        }
      }
    }
    if constexpr (!kUnitPower && !kKeras) {
#pragma unroll
      for (int q = 0; q < kQuad; q += 2) {
        const float inverse = tiles::reciprocal(divisor[q] * divisor[q + 1]);
        push[0][q] = w[q] * (inverse * divisor[q + 1]);
        push[0][q + 1] = w[q + 1] * (inverse * divisor[q]);
      }
    }
    if constexpr (kMasked) {
#pragma unroll
      for (int q = 0; q < kQuad; ++q) {
        ratio[q] = beside.counted[q] ? ratio[q] : 1.0f;
        push[0][q] = beside.counted[q] ? push[0][q] : 0.0f;
      }
    }
    const float low = ratio[0] * ratio[1], high = ratio[2] * ratio[3];
    if constexpr (kTame) {
      value[0] += tiles::log2_approximate(low * high);
    } else {
      value[0] += tiles::log2_approximate(low) + tiles::log2_approximate(high);
    }
  }
};

// The loss, and the factors of attraction and repulsion.
struct Finish {
  static constexpr int kTotals = 3;
  double repulsion, unit;  // of the mean over all pairs' values; of their forces
  const std::int64_t* points;
  std::int64_t b;
  const Scales* scales;
  float* loss;
  double* factors;

  // Sums of v, v (-log q), and -log2(1 - q).
  __device__ void operator()(const double (&sums)[kTotals]) const {
    const double inverse_mass = sums[0] == 0.0 ? 0.0 : 1.0 / sums[0];  // targets without mass pull nowhere
    const auto m = static_cast<double>(points_of(points, b));
    const double factor = m < 2.0 ? 0.0 : repulsion / (m * (m - 1.0));
    *loss = static_cast<float>(sums[1] * inverse_mass + factor * kLn2 * sums[2]);
    factors[0] = inverse_mass / scales->fixed_point;
    factors[1] = 2.0 * factor * unit;
  }
};

using AnyRepulsion = Repulsion<true, false, true>;

struct Memory {
  tiles::Plan plan;
  std::int64_t blocks;   // of passes over the stored pairs
  float* planes;         // [splits, c, b]
  double* totals;        // [plan.blocks()]
  double* row_masses;    // [b]
  double* masses;        // [blocks]
  double* stored;        // [blocks]
  std::int64_t* pulled;  // [b, c]
  Scales* scales;        // []
  double* factors;       // [2]

  Memory(tiles::Workspace& workspace, std::int64_t b, std::int64_t c)
      : plan(tiles::plan_of<AnyRepulsion>(b, c)),
        blocks(tiles::stored_blocks(b)),
        planes(workspace.take<float>(plan.splits * c * b)),
        totals(workspace.take<double>(plan.blocks())),
        row_masses(workspace.take<double>(b)),
        masses(workspace.take<double>(blocks)),
        stored(workspace.take<double>(blocks)),
        pulled(workspace.take<std::int64_t>(b * c)),
        scales(workspace.take<Scales>(1)),
        factors(workspace.take<double>(2)) {}
};

// No shorter than the attraction of a stored pair of weight 1 can be: 2 b min(1, a s^b) / sqrt(s).
double longest_attraction(const PairCurve& curve) {
  if (curve.clip > 0.0) return curve.clip;
  const double most = 1.0 / std::sqrt(kNearest);
  const double slope = curve.b >= 0.5 ? std::min(std::pow(curve.a, 0.5 / curve.b), most)
                                      : most * std::min(1.0, curve.a * std::pow(kNearest, curve.b));
  return 2.0 * curve.b * slope;
}

// Beyond this squared distance no force is as long as clip: it is shorter than 2 b / (sqrt(s) (1 + a s^b)), or with
// keras, whose forces are shorter still, than 2 b / sqrt(s). That falls with s.
double farthest_clipped(const PairCurve& curve) {
  double near = 0.0, far = 4.0 * curve.b * curve.b / (curve.clip * curve.clip);
  for (int halving = 0; halving < 20 && !curve.keras; ++halving) {
    const double s = 0.5 * (near + far);
    const bool clipped = 2.0 * curve.b > curve.clip * std::sqrt(s) * (1.0 + curve.a * std::pow(s, curve.b));
    (clipped ? near : far) = s;
  }
  return far;
}

template <bool kUnitPower, bool kKeras, bool kTame>
void repel(const float* y, const std::int64_t* points, std::int64_t b, std::int64_t c, const PairCurve& curve,
           double unit, const Memory& memory, cudaStream_t stream) {
  const double reach = curve.clip > 0.0 ? farthest_clipped(curve) : -1.0;  // without a clip no pair is near
  Repulsion<kUnitPower, kKeras, kTame> term;
  term.inverse_a = static_cast<float>(1.0 / curve.a);
  term.log2_inverse_a = static_cast<float>(-std::log2(curve.a));
  term.b = static_cast<float>(curve.b);
  term.eps = static_cast<float>(curve.eps);
  term.nearest = static_cast<float>(kNearest);
  term.largest = static_cast<float>(kLargestPower);
  term.reach = static_cast<float>(1.0001 * reach);
  term.clip = static_cast<float>(curve.clip / unit);
  tiles::launch_pairs(y, points, b, c, term, memory.planes, memory.totals, stream);
}

template <bool kUnitPower, bool kKeras, typename... Arguments>
void repel(const PairCurve& curve, Arguments... arguments) {
  const double steepest = -curve.b * std::log2(std::max(curve.eps, kNearest)) - std::log2(curve.a);
  if (curve.eps >= kNearest && steepest < kTamePower) {
    repel<kUnitPower, kKeras, true>(arguments...);
  } else {
    repel<kUnitPower, kKeras, false>(arguments...);
  }
}

}  // namespace

std::size_t pair_loss_workspace(std::int64_t b, std::int64_t c) {
  if (b < 2) return 0;
  tiles::Workspace workspace(nullptr);
  const Memory memory(workspace, b, c);
  return workspace.bytes();
}

cudaError_t pair_loss(const float* y, const std::int64_t* indptr, const std::int64_t* indices, const float* values,
                      const std::int64_t* points, std::int64_t nnz, std::int64_t b, std::int64_t c,
                      const PairCurve& curve, void* workspace, float* loss, float* grad, cudaStream_t stream) {
  if (b < 2) return tiles::clear(b, c, loss, grad, stream);
  tiles::Workspace pieces(workspace);
  const Memory memory(pieces, b, c);
  const tiles::Stored stored{indptr, indices, values, nnz};
  const std::size_t pulled_bytes = static_cast<std::size_t>(b * c) * sizeof(std::int64_t);
  const cudaError_t error = cudaMemsetAsync(memory.pulled, 0, pulled_bytes, stream);
  if (error != cudaSuccess) return error;
  const dim3 blocks = grid(memory.blocks), threads(tiles::kStoredThreads);
  FASTPDR_LAUNCH(tiles::weigh, blocks, threads, 0, stream, stored, b, memory.row_masses, memory.masses);
  const double log2_a = std::log2(curve.a);
  const Attraction attraction{static_cast<float>(curve.a),
                              static_cast<float>(curve.b),
                              curve.keras ? 2.0f : 1.0f,
                              static_cast<float>(curve.clip),
                              static_cast<float>(-kLargestPower - log2_a),
                              static_cast<float>(kLargestPower - log2_a)};
  FASTPDR_LAUNCH((tiles::attract<Attraction>), blocks, threads, 0, stream, y, stored, b, static_cast<int>(c),
                 attraction, longest_attraction(curve), memory.masses, memory.pulled, memory.scales, memory.stored);
  const bool unit_power = curve.b == 1.0;
  const double unit = 2.0 * curve.b / (unit_power ? curve.a : 1.0);
  if (unit_power && curve.keras) {
    repel<true, true>(curve, y, points, b, c, curve, unit, memory, stream);
  } else if (unit_power) {
    repel<true, false>(curve, y, points, b, c, curve, unit, memory, stream);
  } else if (curve.keras) {
    repel<false, true>(curve, y, points, b, c, curve, unit, memory, stream);
  } else {
    repel<false, false>(curve, y, points, b, c, curve, unit, memory, stream);
  }
  const Finish last{curve.repulsion, unit, points, b, memory.scales, loss, memory.factors};
  const tiles::TotalsOf<Finish::kTotals> totals{
      {{memory.masses, memory.blocks}, {memory.stored, memory.blocks}, {memory.totals, memory.plan.blocks()}}};
  FASTPDR_LAUNCH((tiles::finish<Finish>), dim3(1), dim3(tiles::kFinishThreads), 0, stream, totals, last);
  tiles::launch_combine({}, memory.pulled, {memory.planes, memory.plan.splits, c}, b, c, memory.factors, grad, stream);
  return cudaGetLastError();
}

}  // namespace fastpdr::cuda
