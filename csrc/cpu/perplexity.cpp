// CPU search for the precision of every row: one group of W rows advances in lock step, each row's entropy
// sums are taken along the row, and the W root-finding steps are one vector operation.
//
// The root is sought in log(beta) by Newton's method on logit(H / log m), m = finite entries: H falls from
// log m to 0 nearly like a logistic function of log(beta), so about three evaluations suffice from the
// start beta = sqrt(2 (log m - log K) / var d), which is exact for Gaussian distances. A bracket keeps it safe.
// Perplexities are taken from the largest down: the sums at one solution give the first step to the next.
#include "fastpdr/perplexity.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "simd.h"

namespace fastpdr {
namespace {

using simd::Floats;
using simd::Ints;

constexpr std::int64_t kBlock = 1024;  // entries summed in float32 before widening to float64
constexpr int kMaxEvaluations = 96;    // bisection alone halves a bracket of 1e38 in 8 bits by then
constexpr float kLargestStep = 4.0f;   // in log(beta)
constexpr int kLargestExponent = 100;  // of the scaled distances
constexpr float kLog2 = 0.693147180559945f, kLog2E = 1.44269504088896f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Search {
  const float* sqdist;         // [n, k]
  const double* perplexities;  // [h]
  const std::int64_t* order;   // [h], perplexities from the largest to the smallest
  std::int64_t n, k, h;
  double tolerance;
  float* p;     // [n, k]
  float* beta;  // [n, h]
};

// What one row is, before any search.
struct Row {
  double unit;          // distances are divided by this power of two
  double deviation;     // of the finite scaled distances
  std::int64_t finite;  // entries that are not excluded
  std::int64_t tied;    // finite entries equal to the minimum
  bool valid;           // neither NaN nor -inf
};

// Sums over one row at beta: weight = sum e, first = sum x e, second = sum x^2 e, with x = beta d, e = exp(-x).
struct Sums {
  double weight, first, second;
};

// Copies a row, pads it with +inf to a multiple of W, shifts it to minimum 0 and scales it to a maximum of about
// 2^100, so that float32 holds distances from 1e-30 to 1e30 beside each other.
template <int W>
FASTPDR_INLINE Row prepare_row(const float* source, std::int64_t k, std::int64_t padded, float* scaled) {
  std::memcpy(scaled, source, sizeof(float) * k);
  std::fill(scaled + k, scaled + padded, kInfinity);
  Floats<W> lowest = simd::splat<W>(kInfinity), highest = simd::splat<W>(-kInfinity);
  Ints<W> finite = {}, comparable = simd::splat<W>(0.0f) == 0.0f;
  for (std::int64_t j = 0; j < padded; j += W) {
    const Floats<W> d = simd::load<W>(scaled + j);
    const Ints<W> is_finite = d < kInfinity;
    lowest = simd::minimum<W>(d, lowest);
    highest = simd::maximum<W>(is_finite ? d : lowest, highest);
    finite -= is_finite;
    comparable &= d > -kInfinity;  // neither NaN nor -inf
  }
  Row row{1.0, 0.0, 0, 0, true};
  float low = kInfinity, high = -kInfinity;
  for (int lane = 0; lane < W; ++lane) {
    low = std::min(low, lowest[lane]);
    if (highest[lane] < kInfinity) high = std::max(high, highest[lane]);
    row.finite += finite[lane];
    if (!comparable[lane]) row.valid = false;
  }
  if (!row.valid || row.finite == 0) return row;

  int exponent = 0;
  std::frexp(high - low, &exponent);
  const float inverse = std::ldexp(1.0f, std::min(kLargestExponent - exponent, 127));
  const float square_unit = std::ldexp(1.0f, -kLargestExponent / 2);  // keeps squares and their sum finite
  row.unit = 1.0 / inverse;
  Ints<W> tied = {};
  double total = 0.0, square = 0.0;
  for (std::int64_t begin = 0; begin < padded; begin += kBlock) {
    const std::int64_t end = std::min(begin + kBlock, padded);
    Floats<W> block_total = {}, block_square = {};
    for (std::int64_t j = begin; j < end; j += W) {
      const Floats<W> t = (simd::load<W>(scaled + j) - low) * inverse;
      const Floats<W> counted = (t < kInfinity ? t : Floats<W>{}) * square_unit;
      block_total += counted;
      block_square += counted * counted;
      tied -= t == 0.0f;
      simd::store<W>(scaled + j, t);
    }
    total += simd::sum<W>(block_total);
    square += simd::sum<W>(block_square);
  }
  for (int lane = 0; lane < W; ++lane) row.tied += tied[lane];
  const double mean = total / row.finite;
  row.deviation = std::sqrt(std::max(square / row.finite - mean * mean, 0.0)) / square_unit;
  return row;
}

// Works in base 2: beta2 = beta / log 2. The weight at the clamp is subtracted, so that an excluded entry
// (and whatever is below 2^-126) weighs exactly 0; the clamp keeps 0 * inf out of x e.
template <int W>
FASTPDR_INLINE Sums evaluate_row(const float* scaled, std::int64_t padded, float beta2, float* weights) {
  const Floats<W> clamp = simd::splat<W>(126.0f);
  const Floats<W> nothing = simd::exp2_bounded<W>(-clamp);
  Sums sums{0.0, 0.0, 0.0};
  for (std::int64_t begin = 0; begin < padded; begin += kBlock) {
    const std::int64_t end = std::min(begin + kBlock, padded);
    Floats<W> weight = {}, first = {}, second = {};
    for (std::int64_t j = begin; j < end; j += W) {
      const Floats<W> x = simd::minimum<W>(simd::load<W>(scaled + j) * beta2, clamp);
      const Floats<W> e = simd::exp2_bounded<W>(-x) - nothing;
      const Floats<W> xe = x * e;
      simd::store<W>(weights + j, e);
      weight += e;
      first += xe;
      second += x * xe;
    }
    sums.weight += simd::sum<W>(weight);
    sums.first += simd::sum<W>(first);
    sums.second += simd::sum<W>(second);
  }
  return sums;
}

// The state of W searches, one row per lane; beta is that of the scaled distances, in base 2.
template <int W>
struct Lanes {
  Floats<W> beta, low, high;  // the precision and its bracket
  Floats<W> entropy, slope;   // H and -dH / dlog(beta) at beta, in nats
  Floats<W> weight;           // sum of the weights at beta
  Floats<W> log_finite;       // log m
};

// One step of the bracketed Newton iteration towards entropy = target.
template <int W>
FASTPDR_INLINE Floats<W> next_beta(const Lanes<W>& lanes, Floats<W> target) {
  const Floats<W> tiny = simd::splat<W>(1e-12f), largest = simd::splat<W>(kLargestStep);
  const Floats<W> above = simd::maximum<W>(lanes.entropy, tiny);
  const Floats<W> below = simd::maximum<W>(lanes.log_finite - lanes.entropy, tiny);
  const Floats<W> ratio = (below * target) / (above * (lanes.log_finite - target));
  const Floats<W> derivative = lanes.slope * (1.0f / below + 1.0f / above);
  const Floats<W> newton =
      -simd::log_positive<W>(simd::maximum<W>(ratio, simd::splat<W>(FLT_MIN))) / simd::maximum<W>(derivative, tiny);
  const Floats<W> step = simd::minimum<W>(simd::maximum<W>(newton, -largest), largest);
  const Floats<W> candidate = lanes.beta * simd::exp2_bounded<W>(step * kLog2E);
  const Ints<W> inside = (candidate > lanes.low) & (candidate < lanes.high);
  const Floats<W> middle = simd::square_root<W>(lanes.low) * simd::square_root<W>(lanes.high);
  return inside ? candidate : (lanes.high < kInfinity ? middle : lanes.beta);
}

// Entropy and slope of the active rows at their beta.
template <int W>
FASTPDR_INLINE void evaluate(const float* scaled, std::int64_t padded, Ints<W> active, Lanes<W>& lanes,
                             float* weights) {
  float beta[W], weight[W] = {}, mean[W] = {}, variance[W] = {};
  std::int32_t wanted[W];
  std::memcpy(beta, &lanes.beta, sizeof beta);
  std::memcpy(wanted, &active, sizeof wanted);
  for (int lane = 0; lane < W; ++lane) {
    if (!wanted[lane]) continue;
    const Sums sums = evaluate_row<W>(scaled + lane * padded, padded, beta[lane], weights + lane * padded);
    const double average = sums.first / sums.weight;
    weight[lane] = static_cast<float>(sums.weight);
    mean[lane] = static_cast<float>(average);
    variance[lane] = static_cast<float>(sums.second / sums.weight - average * average);
  }
  // A row's own minimum contributes 1 to its weight, so the logarithm's argument is at least 1.
  const Floats<W> total = simd::maximum<W>(simd::load<W>(weight), simd::splat<W>(1.0f));
  lanes.weight = active ? total : lanes.weight;
  lanes.entropy = active ? simd::log_positive<W>(total) + simd::load<W>(mean) * kLog2 : lanes.entropy;
  lanes.slope = active ? simd::load<W>(variance) * (kLog2 * kLog2) : lanes.slope;
}

// Solves one perplexity for the active rows; leaves their weights at the solution.
template <int W>
FASTPDR_INLINE void solve(const float* scaled, std::int64_t padded, Ints<W> active, Floats<W> target, float tolerance,
                          Lanes<W>& lanes, float* weights) {
  for (int evaluation = 0; evaluation < kMaxEvaluations && simd::any<W>(active); ++evaluation) {
    evaluate<W>(scaled, padded, active, lanes, weights);
    const Floats<W> error = lanes.entropy - target;
    active &= (error > tolerance) | (error < -tolerance);
    lanes.low = (active & (error > 0.0f)) ? lanes.beta : lanes.low;
    lanes.high = (active & (error < 0.0f)) ? lanes.beta : lanes.high;
    const Floats<W> next = next_beta<W>(lanes, target);
    active &= next != lanes.beta;
    lanes.beta = active ? next : lanes.beta;
  }
}

// Adds share * weights / total to a row of p (or writes it, for the first perplexity).
FASTPDR_INLINE void add_row(const float* weights, std::int64_t k, double share, double total, bool first, float* p) {
  const float factor = static_cast<float>(share / total);
  if (first) {
    for (std::int64_t j = 0; j < k; ++j) p[j] = weights[j] * factor;
  } else {
    for (std::int64_t j = 0; j < k; ++j) p[j] += weights[j] * factor;
  }
}

// Writes 1 for the entries that carry a uniform row and 0 elsewhere.
FASTPDR_INLINE void mark_uniform(const float* scaled, std::int64_t k, float below, float* weights) {
  for (std::int64_t j = 0; j < k; ++j) weights[j] = scaled[j] < below ? 1.0f : 0.0f;
}

// All perplexities for the rows [first_row, first_row + W). A perplexity out of a row's reach gets the uniform
// distribution over its finite entries, or over those tied at the minimum.
template <int W>
FASTPDR_INLINE void search_group_body(const Search& search, std::int64_t first_row, float* scratch) {
  const std::int64_t k = search.k, padded = (k + W - 1) / W * W;
  const int rows = static_cast<int>(std::min<std::int64_t>(W, search.n - first_row));
  float* scaled = scratch;                // [W, padded]
  float* weights = scratch + W * padded;  // [W, padded]
  Row row[W];
  float log_finite[W] = {}, deviation[W];
  for (int lane = 0; lane < W; ++lane) {
    if (lane < rows) {
      row[lane] = prepare_row<W>(search.sqdist + (first_row + lane) * k, k, padded, scaled + lane * padded);
      log_finite[lane] = std::log(static_cast<float>(std::max<std::int64_t>(row[lane].finite, 1)));
    }
    deviation[lane] = lane < rows ? std::max(static_cast<float>(row[lane].deviation), 1e-30f) : 1.0f;
  }
  Lanes<W> lanes{};
  lanes.log_finite = simd::load<W>(log_finite);
  lanes.high = simd::splat<W>(kInfinity);
  const float slack = 0.5f * static_cast<float>(search.tolerance);
  Ints<W> started = {};
  for (std::int64_t s = 0; s < search.h; ++s) {
    const std::int64_t index = search.order[s];
    const double perplexity = search.perplexities[index];
    std::int32_t reachable[W] = {};
    for (int lane = 0; lane < rows; ++lane) {
      const Row& r = row[lane];
      reachable[lane] = r.valid && perplexity < r.finite && perplexity >= r.tied ? -1 : 0;
    }
    Ints<W> active;
    std::memcpy(&active, reachable, sizeof active);
    // The target stays inside (0, log m), where the logit exists; the tolerance covers the difference.
    const Floats<W> wished = simd::splat<W>(static_cast<float>(std::log(perplexity)));
    const Floats<W> target =
        simd::maximum<W>(simd::minimum<W>(wished, lanes.log_finite - slack), simd::splat<W>(slack));
    const Floats<W> start =
        simd::square_root<W>((lanes.log_finite - target) * 2.0f) / simd::load<W>(deviation) * kLog2E;
    lanes.beta = active ? (started ? next_beta<W>(lanes, target) : start) : lanes.beta;
    solve<W>(scaled, padded, active, target, static_cast<float>(search.tolerance), lanes, weights);
    lanes.low = active ? lanes.beta : lanes.low;
    lanes.high = simd::splat<W>(kInfinity);
    started |= active;
    for (int lane = 0; lane < rows; ++lane) {
      const Row& r = row[lane];
      float* line = weights + lane * padded;
      double total = lanes.weight[lane], precision = lanes.beta[lane] * double{kLog2} / r.unit;
      if (!reachable[lane]) {
        const bool whole = perplexity >= r.finite;
        mark_uniform(scaled + lane * padded, k, whole ? kInfinity : FLT_MIN, line);
        total = static_cast<double>(std::max<std::int64_t>(whole ? r.finite : r.tied, 1));
        precision = whole ? 0.0 : FLT_MAX;
      }
      if (!r.valid) total = precision = std::numeric_limits<double>::quiet_NaN();
      add_row(line, k, 1.0 / search.h, total, s == 0, search.p + (first_row + lane) * k);
      search.beta[(first_row + lane) * search.h + index] = static_cast<float>(std::min(precision, double{FLT_MAX}));
    }
  }
}

FASTPDR_MULTIVERSION(search_group, (const Search& search, std::int64_t first_row, float* scratch),
                     (search, first_row, scratch))

}  // namespace

void perplexity_search(const float* sqdist, const double* perplexities, std::int64_t n, std::int64_t k, std::int64_t h,
                       double tolerance, float* p, float* beta) {
  if (n == 0 || h == 0) return;
  std::vector<std::int64_t> order(h);
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int64_t a, std::int64_t b) { return perplexities[a] > perplexities[b]; });
  const Search search{sqdist, perplexities, order.data(), n, k, h, std::max(tolerance, 2e-6), p, beta};
  const std::int64_t width = simd::width(simd::level()), padded = (k + width - 1) / width * width;
  const std::int64_t groups = (n + width - 1) / width;
#pragma omp parallel if (n * k * h > 16384)
  {
    std::vector<float> scratch(2 * width * padded + width);
#pragma omp for schedule(dynamic, 8)
    for (std::int64_t group = 0; group < groups; ++group) search_group(search, group * width, scratch.data());
  }
}

}  // namespace fastpdr
