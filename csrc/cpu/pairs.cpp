// CPU pair loss: the stored pairs attract, all unordered pairs repel, each in a pass of its own (tiles.h).
//
// With w = s^-b / a (one logarithm, one exponential; b = 1 needs neither) both curves are rational in w: the force of a
// pair is one division. Its value is the logarithm of a ratio; ratios are multiplied up, and one logarithm taken of the
// product. A force is at most 2 b / sqrt(s), so that pairs beyond 2 b / clip need no look at their force's length.
#include "fastpdr/pairs.h"

#include <cfloat>

#include "tiles.h"

namespace fastpdr {
namespace {

using simd::Floats;
using simd::Ints;
using tiles::kRows;
using tiles::Points;

constexpr float kLog2E = 1.44269504088896f;
constexpr float kNearest = 1e-12f;      // squared distance below which points coincide
constexpr float kLargestPower = 60.0f;  // of 2 that a s^b reaches, up or down

struct Curve {
  float log2_inverse_a, inverse_a, b, eps, clip;
  float unclipped;  // squared distance from which on no force is longer than clip
  bool steep;       // whether kLargestPower can be passed

  explicit Curve(const PairCurve& curve)
      : log2_inverse_a(static_cast<float>(-std::log2(curve.a))),
        inverse_a(static_cast<float>(1.0 / curve.a)),
        b(static_cast<float>(curve.b)),
        eps(static_cast<float>(curve.eps)),
        clip(static_cast<float>(curve.clip)),
        unclipped(curve.clip > 0.0 ? static_cast<float>(std::pow(2.0 * curve.b / curve.clip, 2) * 1.001) : 0.0f),
        steep(std::abs(std::log2(kNearest)) * curve.b + std::abs(std::log2(curve.a)) > kLargestPower) {}
};

// w = s^-b / a
template <int W, bool kUnitPower>
FASTPDR_INLINE Floats<W> inverse_power(Floats<W> s, const Curve& curve) {
  if constexpr (kUnitPower) return curve.inverse_a / s;
  const simd::Logarithm<W> log(s);
  Floats<W> power = log.exponent * -curve.b + (log.mantissa * (-kLog2E * curve.b) + curve.log2_inverse_a);
  if (curve.steep) {
    const Floats<W> most = simd::splat<W>(kLargestPower);
    power = simd::maximum<W>(simd::minimum<W>(power, most), -most);
  }
  return simd::exp2_bounded<W>(power);
}

// A force pull * sqrt(sqdist) no longer than clip.
template <int W>
FASTPDR_INLINE Floats<W> shorten(Floats<W> pull, Floats<W> sqdist, float clip) {
  const Floats<W> bound = clip / simd::square_root<W>(simd::maximum<W>(sqdist, simd::splat<W>(FLT_MIN)));
  return simd::minimum<W>(pull, bound);
}

// -log q and its pull along the stored pairs.
template <bool kUnitPower, bool kKeras>
struct Attraction {
  Curve curve;
  double mass = 0.0, value = 0.0;

  template <int W>
  FASTPDR_INLINE Floats<W> evaluate(std::int64_t, Floats<W> v, Floats<W> sqdist) {
    const Floats<W> s = simd::maximum<W>(sqdist, simd::splat<W>(kNearest));
    const Floats<W> w = inverse_power<W, kUnitPower>(s, curve);
    const Floats<W> above = kKeras ? 1.0f + 2.0f * w : 1.0f + w;  // w / q
    mass += simd::sum<W>(v);
    value += simd::sum<W>(v * (simd::log_positive<W>(above) - simd::log_positive<W>(w)));
    const Floats<W> pull = 2.0f * curve.b / (above * s);
    return v * (curve.clip > 0.0f ? shorten<W>(pull, sqdist, curve.clip) : pull);
  }
};

// The logarithm of a product of ratios from 1 to 2^61, in lanes: the product is kept in [1, 2).
template <int W>
struct ProductLogarithm {
  Floats<W> mantissa = simd::splat<W>(1.0f);
  Ints<W> exponent = {};

  FASTPDR_INLINE void add(const Floats<W> (&ratio)[kRows]) {
    for (int r = 0; r < kRows; r += 2) {
      const Ints<W> bits = (Ints<W>)(mantissa * (ratio[r] * ratio[r + 1]));
      exponent += (bits >> 23) - 127;
      mantissa = (Floats<W>)((bits & 0x007fffff) | 0x3f800000);
    }
  }
  FASTPDR_INLINE double total() const {
    const Floats<W> whole = __builtin_convertvector(exponent, Floats<W>);
    return simd::sum<W>(simd::log_positive<W>(mantissa) + whole * 0.693147180559945f);
  }
};

// -log(1 - q) and its push between all pairs.
template <bool kUnitPower, bool kKeras>
struct Repulsion {
  static constexpr bool kSums = false;
  template <int W>
  using Values = ProductLogarithm<W>;
  Curve curve;

  template <int W>
  FASTPDR_INLINE void evaluate(const Floats<W> (&sqdist)[kRows], std::int64_t, std::int64_t,
                               ProductLogarithm<W>& values, Floats<W> (&push)[kRows]) const {
    Floats<W> ratio[kRows];  // 1 / (1 - q)
    Floats<W> nearest = simd::splat<W>(curve.unclipped);
    for (int r = 0; r < kRows; ++r) {
      const Floats<W> s = simd::maximum<W>(sqdist[r] + curve.eps, simd::splat<W>(kNearest));
      const Floats<W> w = inverse_power<W, kUnitPower>(s, curve);
      const Floats<W> below = kKeras ? 1.0f + w : simd::splat<W>(1.0f);
      const Floats<W> above = below + w;
      const Floats<W> inverse = 1.0f / (above * below * s);
      ratio[r] = kKeras ? above * above * s * inverse : above;
      push[r] = 2.0f * curve.b * w * inverse;
      nearest = simd::minimum<W>(nearest, s);
    }
    values.add(ratio);
    if (simd::any<W>(nearest < curve.unclipped)) {
      for (int r = 0; r < kRows; ++r) push[r] = shorten<W>(push[r], sqdist[r], curve.clip);
    }
  }
};

struct Problem {
  const Points* points;
  tiles::Stored targets;
  Curve curve;
  bool keras;
};

struct Totals {
  double mass = 0.0, attraction = 0.0, repulsion = 0.0;
};

template <int W, int C, bool kUnitPower, bool kKeras>
FASTPDR_INLINE void process_chunk_of(const Problem& problem, std::int64_t chunk, float* pulled, float* pushed,
                                     Totals& totals) {
  Attraction<kUnitPower, kKeras> attraction{problem.curve};
  tiles::add_stored_pairs<W, C>(*problem.points, problem.targets, attraction, chunk, pulled);
  const Repulsion<kUnitPower, kKeras> repulsion{problem.curve};
  totals = {attraction.mass, attraction.value, tiles::add_all_pairs<W, C>(*problem.points, repulsion, chunk, pushed)};
}

template <int W, int C>
FASTPDR_INLINE void choose_curve(const Problem& problem, std::int64_t chunk, float* pulled, float* pushed,
                                 Totals& totals) {
  const bool unit = problem.curve.b == 1.0f;
  if (problem.keras) {
    if (unit) return process_chunk_of<W, C, true, true>(problem, chunk, pulled, pushed, totals);
    return process_chunk_of<W, C, false, true>(problem, chunk, pulled, pushed, totals);
  }
  if (unit) return process_chunk_of<W, C, true, false>(problem, chunk, pulled, pushed, totals);
  return process_chunk_of<W, C, false, false>(problem, chunk, pulled, pushed, totals);
}

template <int W>
FASTPDR_INLINE void process_chunk_body(const Problem& problem, std::int64_t chunk, float* pulled, float* pushed,
                                       Totals& totals) {
  switch (problem.points->c) {
    case 2: return choose_curve<W, 2>(problem, chunk, pulled, pushed, totals);
    case 3: return choose_curve<W, 3>(problem, chunk, pulled, pushed, totals);
    case 4: return choose_curve<W, 4>(problem, chunk, pulled, pushed, totals);
    default: return choose_curve<W, 0>(problem, chunk, pulled, pushed, totals);
  }
}

FASTPDR_MULTIVERSION(process_chunk,
                     (const Problem& problem, std::int64_t chunk, float* pulled, float* pushed, Totals& totals),
                     (problem, chunk, pulled, pushed, totals))

}  // namespace

void pair_loss(const float* y, const std::int64_t* indptr, const std::int64_t* indices, const float* values,
               std::int64_t b, std::int64_t c, const PairCurve& curve, float* loss, float* grad) {
  const tiles::Map map(y, b, c);
  const Points& points = map.points();
  const Problem problem{&points, {indptr, indices, values}, Curve(curve), curve.keras};
  const tiles::Sums pulled(points, c), pushed(points, c);
  std::vector<Totals> totals(points.chunks);
#pragma omp parallel for schedule(dynamic, 1) if (points.chunks > 1)
  for (std::int64_t chunk = 0; chunk < points.chunks; ++chunk) {
    process_chunk(problem, chunk, pulled.cleared(chunk), pushed.cleared(chunk), totals[chunk]);
  }
  Totals sum;
  for (const Totals& part : totals) {
    sum.mass += part.mass;
    sum.attraction += part.attraction;
    sum.repulsion += part.repulsion;
  }
  // Fewer than two points, or targets without mass: what is not defined pulls and pushes nowhere.
  const double inverse_mass = sum.mass != 0.0 ? 1.0 / sum.mass : 0.0;
  const double factor = b > 1 ? curve.repulsion / (static_cast<double>(b) * (b - 1)) : 0.0;
  tiles::combine(points, pulled, inverse_mass, pushed, 2.0 * factor, grad);
  *loss = tiles::checked(sum.attraction * inverse_mass + factor * sum.repulsion, points, grad);
}

}  // namespace fastpdr
