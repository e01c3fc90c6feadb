// CPU search for the bandwidth of every row, W rows at a time in the lanes of a vector: neighbour lists are short
// (14 to 50), so that sums along a row would be mostly horizontal ones.
//
// With beta = 1 / sigma, the sum over the entries beyond rho is a sum of exponentials of beta: its logarithm is convex
// and falls. Newton's method on it, from beta = 0 where it needs no exponential, comes from the left and never
// passes the root, so no bracket is needed; three to four evaluations suffice where a bisection takes 20 to 64.
#include "fastpdr/fuzzy.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <vector>

#include "simd.h"

namespace fastpdr {
namespace {

using simd::Floats;
using simd::Ints;

constexpr int kMaxEvaluations = 64;
constexpr float kClose = 1e-4f;         // in the logarithm of the sum; one more step squares it
constexpr float kSmallestBeta = 1e-6f;  // of scaled distances, where only sigma = inf would do
constexpr float kLargestExponent = 126.0f;
constexpr float kSmallestShare = 1e-3f;          // of the mean distance, for sigma
constexpr double kSmallestInterpolation = 1e-5;  // of local_connectivity beyond a whole number
constexpr float kLog2E = 1.44269504088896f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Search {
  const float* dist;     // [n, k]
  const float* targets;  // [k + 1], log2(m + 1)
  std::int64_t n, k;
  std::int64_t whole;  // local_connectivity rounded down
  float fraction;      // and the rest, 0 where it is negligible
  float* weights;      // [n, k]
  float* rho;          // [n]
  float* sigma;        // [n]
};

template <int W, int... Lane>
FASTPDR_INLINE Ints<W> lane_numbers(std::integer_sequence<int, Lane...>) {
  return Ints<W>{Lane...};
}

// Rows to columns [padded, W]; what is beyond k or n is missing.
template <int W>
FASTPDR_INLINE void load_columns(const Search& search, std::int64_t first_row, std::int64_t padded, float* columns) {
  const Ints<W> lanes = lane_numbers<W>(std::make_integer_sequence<int, W>{});
  const std::int64_t entries = search.n * search.k;
  for (std::int64_t j = 0; j < padded; j += W) {
    Floats<W> tile[W];
    const auto width = static_cast<std::int32_t>(std::min<std::int64_t>(search.k - j, W));
    for (int row = 0; row < W; ++row) {
      const std::int64_t at = (first_row + row) * search.k + j;
      float line[W] = {};
      if (at + W <= entries) {
        std::memcpy(line, search.dist + at, sizeof line);
      } else if (at < entries) {
        std::memcpy(line, search.dist + at, sizeof(float) * width);
      }
      const Ints<W> present = lanes < (first_row + row < search.n ? width : 0);
      tile[row] = present ? simd::load<W>(line) : simd::splat<W>(kInfinity);
    }
    simd::transpose<W>(tile);
    for (int column = 0; column < W; ++column) simd::store<W>(columns + (j + column) * W, tile[column]);
  }
}

template <int W>
FASTPDR_INLINE void store_rows(const float* columns, std::int64_t padded, std::int64_t k, int rows, float* target) {
  for (std::int64_t j = 0; j < padded; j += W) {
    Floats<W> tile[W];
    const std::int64_t width = std::min<std::int64_t>(k - j, W);
    for (int column = 0; column < W; ++column) tile[column] = simd::load<W>(columns + (j + column) * W);
    simd::transpose<W>(tile);
    for (int row = 0; row < rows; ++row) std::memcpy(target + row * k + j, &tile[row], sizeof(float) * width);
  }
}

// The distance up to which a row is one with its neighbourhood: that to the local_connectivity-th neighbour that is
// not at distance 0, interpolated, or to the last where there are not as many.
FASTPDR_INLINE float connected_distance(const Search& search, const float* row, std::int64_t finite,
                                        std::int64_t zeros) {
  const float* const positive = row + zeros;
  const std::int64_t count = finite - zeros;
  const std::int64_t needed = search.whole + (search.fraction > 0.0f);
  if (count == 0 || needed == 0) return 0.0f;
  if (count < needed) return positive[count - 1];
  const float lower = search.whole > 0 ? positive[search.whole - 1] : 0.0f;
  return search.fraction > 0.0f ? lower + search.fraction * (positive[search.whole] - lower) : lower;
}

// What W rows are, before any search; distances are scaled by a power of two to a maximum in [1, 2).
template <int W>
struct Lanes {
  Floats<W> inverse_unit;  // of the scaling
  Floats<W> rho;           // unscaled
  Floats<W> mean;          // scaled, the point itself included
  Floats<W> target;        // of the sum over the entries beyond rho
  Floats<W> beyond;        // number of entries beyond rho
  Floats<W> excess;        // sum of what they are beyond rho
  Ints<W> valid;           // neither NaN nor -inf
  Ints<W> alone;           // one neighbour, and within rho
};

// Turns the columns of distances into what is beyond rho, scaled: 0 within, +inf for a missing neighbour.
template <int W>
FASTPDR_INLINE Lanes<W> prepare(const Search& search, std::int64_t first_row, std::int64_t padded, float* columns) {
  const Floats<W> zero = {};
  Lanes<W> lanes;
  Floats<W> largest = zero;
  Ints<W> finite = {}, zeros = {};
  lanes.valid = zero == zero;
  for (std::int64_t j = 0; j < padded; ++j) {
    const Floats<W> d = simd::load<W>(columns + j * W);
    const Ints<W> is_finite = d < kInfinity;
    largest = simd::maximum<W>(is_finite ? d : zero, largest);
    finite -= is_finite;
    zeros -= d <= 0.0f;
    lanes.valid &= d > -kInfinity;
  }
  float rho[W] = {}, target[W] = {};
  for (int lane = 0; lane < W && first_row + lane < search.n; ++lane) {
    if (!lanes.valid[lane]) continue;
    rho[lane] = connected_distance(search, search.dist + (first_row + lane) * search.k, finite[lane], zeros[lane]);
    target[lane] = search.targets[finite[lane]];
  }
  const Ints<W> exponent = (Ints<W>)largest & 0x7f800000;
  const Ints<W> inverse = 0x7f000000 - exponent;
  lanes.inverse_unit = (Floats<W>)(inverse > 0x00800000 ? inverse : Ints<W>{} + 0x00800000);
  lanes.rho = simd::load<W>(rho);

  Ints<W> tied = {};
  Floats<W> total = zero;
  lanes.excess = zero;
  for (std::int64_t j = 0; j < padded; ++j) {
    const Floats<W> d = simd::load<W>(columns + j * W);
    const Floats<W> x = simd::maximum<W>((d - lanes.rho) * lanes.inverse_unit, zero);
    total += d < kInfinity ? d * lanes.inverse_unit : zero;
    lanes.excess += x < kInfinity ? x : zero;
    tied -= x == 0.0f;
    simd::store<W>(columns + j * W, x);
  }
  lanes.mean = total / __builtin_convertvector(finite + 1, Floats<W>);
  lanes.target = simd::load<W>(target) - __builtin_convertvector(tied, Floats<W>);
  lanes.beyond = __builtin_convertvector(finite - tied, Floats<W>);
  lanes.alone = (finite == 1) & (tied == 1);
  return lanes;
}

// The scaled precision, in base 2, of the rows that can reach their target.
template <int W>
FASTPDR_INLINE Floats<W> solve(const float* columns, std::int64_t padded, const Lanes<W>& lanes) {
  const Floats<W> tiny = simd::splat<W>(FLT_MIN), clamp = simd::splat<W>(kLargestExponent);
  Ints<W> active = lanes.valid & (lanes.target > 0.0f) & (lanes.beyond > 0.0f);
  const Floats<W> target = active ? lanes.target : Floats<W>{} + 1.0f;
  const Floats<W> first_ratio = active ? lanes.beyond / target : Floats<W>{} + 1.0f;
  Floats<W> beta = simd::log_positive<W>(first_ratio) * lanes.beyond / simd::maximum<W>(lanes.excess, tiny) * kLog2E;
  beta = active ? beta : Floats<W>{};
  for (int evaluation = 0; evaluation < kMaxEvaluations && simd::any<W>(active); ++evaluation) {
    Floats<W> sum = {}, first = {};
    for (std::int64_t j = 0; j < padded; ++j) {
      const Floats<W> x = simd::load<W>(columns + j * W);
      const Floats<W> exponent = simd::minimum<W>(x * beta, clamp);
      const Floats<W> e = x > 0.0f ? simd::exp2_bounded<W>(-exponent) : Floats<W>{};
      sum += e;
      first += exponent * e;
    }
    const Floats<W> ratio = active ? simd::maximum<W>(sum / target, tiny) : Floats<W>{} + 1.0f;
    const Floats<W> error = simd::log_positive<W>(ratio);
    // The slope of log sum against log beta is -log 2 * first / sum.
    const Floats<W> step = error * kLog2E * sum / simd::maximum<W>(first, tiny);
    beta = active ? beta * simd::maximum<W>(step + 1.0f, simd::splat<W>(0.5f)) : beta;
    active &= (error > kClose) | (error < -kClose);
  }
  return simd::maximum<W>(beta, simd::splat<W>(kSmallestBeta));
}

// The rows [first_row, first_row + W), but for the bound on sigma of the rows with rho = 0.
template <int W>
FASTPDR_INLINE void weigh_group_body(const Search& search, std::int64_t first_row, float* columns) {
  const std::int64_t k = search.k, padded = (k + W - 1) / W * W;
  const int rows = static_cast<int>(std::min<std::int64_t>(W, search.n - first_row));
  const Floats<W> zero = {}, clamp = simd::splat<W>(kLargestExponent);
  load_columns<W>(search, first_row, padded, columns);
  const Lanes<W> lanes = prepare<W>(search, first_row, padded, columns);
  Floats<W> sigma = kLog2E / solve<W>(columns, padded, lanes);
  sigma = lanes.target > 0.0f ? sigma : zero;
  sigma = lanes.alone ? lanes.inverse_unit : sigma;
  sigma = lanes.rho > 0.0f ? simd::maximum<W>(sigma, lanes.mean * kSmallestShare) : sigma;
  const Floats<W> beta = kLog2E / simd::maximum<W>(sigma, simd::splat<W>(FLT_MIN));
  // The weight at the clamp is subtracted, so that a missing neighbour weighs exactly 0.
  const Floats<W> nothing = simd::exp2_bounded<W>(-clamp);
  for (std::int64_t j = 0; j < padded; ++j) {
    const Floats<W> x = simd::load<W>(columns + j * W);
    const Floats<W> e = simd::exp2_bounded<W>(-simd::minimum<W>(x * beta, clamp)) - nothing;
    const Floats<W> weight = x > 0.0f ? e : zero + 1.0f;
    simd::store<W>(columns + j * W, lanes.valid ? weight : zero + kNaN);
  }
  store_rows<W>(columns, padded, k, rows, search.weights + first_row * k);
  const Floats<W> unscaled = lanes.valid ? sigma / lanes.inverse_unit : zero + kNaN;
  const Floats<W> rho = lanes.valid ? lanes.rho : zero + kNaN;
  std::memcpy(search.sigma + first_row, &unscaled, sizeof(float) * rows);
  std::memcpy(search.rho + first_row, &rho, sizeof(float) * rows);
}

FASTPDR_MULTIVERSION(weigh_group, (const Search& search, std::int64_t first_row, float* columns),
                     (search, first_row, columns))

// The mean distance over all valid rows, every point itself included.
double mean_distance(const Search& search) {
  double total = 0.0;
  std::int64_t entries = 0;
  for (std::int64_t i = 0; i < search.n; ++i) {
    if (!(search.rho[i] >= 0.0f)) continue;
    ++entries;
    for (std::int64_t j = 0; j < search.k; ++j) {
      const float d = search.dist[i * search.k + j];
      total += d < kInfinity ? d : 0.0f;
      entries += d < kInfinity;
    }
  }
  return entries > 0 ? total / static_cast<double>(entries) : 0.0;
}

// Rows with rho = 0 are rare (all neighbours coincide with the point) unless local_connectivity is 0.
void bound_by_mean_of_all(const Search& search) {
  if (std::find(search.rho, search.rho + search.n, 0.0f) == search.rho + search.n) return;
  const auto smallest = static_cast<float>(kSmallestShare * mean_distance(search));
#pragma omp parallel for schedule(static) if (search.n * search.k > 16384)
  for (std::int64_t i = 0; i < search.n; ++i) {
    if (search.rho[i] != 0.0f || search.sigma[i] >= smallest) continue;
    search.sigma[i] = smallest;
    for (std::int64_t j = 0; j < search.k; ++j) {
      const float d = search.dist[i * search.k + j];
      search.weights[i * search.k + j] = d > 0.0f ? std::exp(-d / smallest) : 1.0f;
    }
  }
}

}  // namespace

void fuzzy_weights(const float* dist, std::int64_t n, std::int64_t k, double local_connectivity, float* weights,
                   float* rho, float* sigma) {
  std::vector<float> targets(k + 1);
  for (std::int64_t m = 0; m <= k; ++m) targets[m] = static_cast<float>(std::log2(static_cast<double>(m + 1)));
  // No row has more than k neighbours, so that a larger number is not needed (and may not fit).
  const double connectivity = std::min(local_connectivity, static_cast<double>(k) + 1.0);
  const auto whole = static_cast<std::int64_t>(connectivity);
  const double rest = connectivity - static_cast<double>(whole);
  const bool negligible = whole > 0 && rest <= kSmallestInterpolation;
  const Search search{dist, targets.data(), n, k, whole, negligible ? 0.0f : static_cast<float>(rest), weights,
                      rho,  sigma};
  const std::int64_t width = simd::width(simd::level()), padded = (k + width - 1) / width * width;
  const std::int64_t groups = (n + width - 1) / width;
#pragma omp parallel if (n * k > 16384)
  {
    std::vector<float> columns(width * padded);
#pragma omp for schedule(dynamic, 16)
    for (std::int64_t group = 0; group < groups; ++group) weigh_group(search, group * width, columns.data());
  }
  bound_by_mean_of_all(search);
}

}  // namespace fastpdr
