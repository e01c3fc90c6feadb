// perplexity_search: the CPU kernel's p and beta, for every shape of a group of threads.
#include <algorithm>
#include <cfloat>

#include "check.h"
#include "fastpdr/cuda.h"
#include "fastpdr/perplexity.h"

namespace {

using fastpdr::check::Device;
using fastpdr::check::expect;
using fastpdr::check::near;
using Floats = std::vector<float>;
using Doubles = std::vector<double>;

constexpr double kTolerance = 2e-6;  // as close as float32 comes, so that two searches end alike
constexpr float kInfinity = INFINITY, kNaN = NAN;

// p, then beta.
Floats on_device(const Floats& sqdist, const Doubles& perplexities, std::int64_t n, std::int64_t k, double tolerance) {
  const Device<float> in(sqdist);
  const auto h = static_cast<std::int64_t>(perplexities.size());
  Device<float> p(n * k), beta(n * h);
  fastpdr::check::require_done(fastpdr::cuda::perplexity_search(in.data(), perplexities.data(), n, k, h, tolerance,
                                                                p.data(), beta.data(), nullptr));
  Floats result = p.host();
  const Floats precisions = beta.host();
  result.insert(result.end(), precisions.begin(), precisions.end());
  return result;
}

Floats on_host(const Floats& sqdist, const Doubles& perplexities, std::int64_t n, std::int64_t k, double tolerance) {
  const auto h = static_cast<std::int64_t>(perplexities.size());
  Floats result(n * (k + h));
  fastpdr::perplexity_search(sqdist.data(), perplexities.data(), n, k, h, tolerance, result.data(),
                             result.data() + n * k);
  return result;
}

Floats part(const Floats& of, std::int64_t begin, std::int64_t end) {
  return Floats(of.begin() + begin, of.begin() + end);
}

// Squared distances of points of N(0, I) in d dimensions.
Floats distances(std::int64_t n, std::int64_t k, int d = 10) {
  const Floats normals = fastpdr::check::normal(n * k * d, std::sqrt(2.0f), static_cast<unsigned>(n + k));
  Floats result(n * k);
  for (std::size_t i = 0; i < normals.size(); ++i) result[i / d] += normals[i] * normals[i];
  return result;
}

// beta is not as well determined as p: a perplexity near 1 or near the number of entries hardly depends on it.
void test(const std::string& what, const Floats& sqdist, const Doubles& perplexities, std::int64_t n, std::int64_t k,
          double tolerance = kTolerance, double allowed = fastpdr::check::kRelativeRms) {
  const Floats result =
      fastpdr::check::repeated(what, [&] { return on_device(sqdist, perplexities, n, k, tolerance); });
  const Floats expected = on_host(sqdist, perplexities, n, k, tolerance);
  near(what + ", p", part(result, 0, n * k), part(expected, 0, n * k), allowed);
  double worst = 0.0;
  for (std::size_t i = n * k; i < result.size(); ++i) {
    const double error = std::abs(static_cast<double>(result[i]) - expected[i]);
    if (result[i] != expected[i]) worst = std::max(worst, error / std::max<double>(std::abs(expected[i]), FLT_MIN));
  }
  expect(worst <= 5e-3, what + ", beta: " + std::to_string(worst));
}

void test_sizes() {
  // Every shape: registers of a warp, of a block, none.
  for (const std::int64_t k : fastpdr::check::kThorough
                                  ? std::vector<std::int64_t>{0, 1, 2, 7, 31, 32, 33, 64, 65, 96, 97, 129, 257, 500}
                                  : std::vector<std::int64_t>{0, 1, 33, 65, 97, 129, 257}) {
    for (const std::int64_t n : {0, 1, 9, 33}) {
      Doubles perplexities;
      for (double perplexity = 2.0; perplexity < static_cast<double>(k); perplexity *= 2.0) {
        perplexities.push_back(perplexity);
      }
      if (perplexities.empty()) perplexities.push_back(1.0);
      test("n = " + std::to_string(n) + ", k = " + std::to_string(k), distances(n, k), perplexities, n, k);
    }
  }
  for (const std::int64_t k : fastpdr::check::kThorough ? std::vector<std::int64_t>{513, 1025, 4097, 9000}
                                                        : std::vector<std::int64_t>{600, 1100, 4097}) {
    test("k = " + std::to_string(k), distances(2, k, 4), {30.0, 3.0, 300.0}, 2, k);
  }
}

// Many perplexities, some twice, in any order: each is found as if it were alone.
void test_many_perplexities(std::int64_t k) {
  const std::int64_t n = 3;
  Doubles perplexities;
  for (int s = 0; s < 70; ++s) perplexities.push_back(1.5 + (s * 37 % 50) * 0.5);
  const Floats sqdist = distances(n, k);
  const Floats result = on_device(sqdist, perplexities, n, k, kTolerance);
  Floats expected(n * (k + perplexities.size()));
  for (std::size_t s = 0; s < perplexities.size(); ++s) {
    const Floats alone = on_host(sqdist, {perplexities[s]}, n, k, kTolerance);
    for (std::int64_t i = 0; i < n * k; ++i) expected[i] += alone[i] / static_cast<float>(perplexities.size());
    for (std::int64_t i = 0; i < n; ++i) expected[n * k + i * perplexities.size() + s] = alone[n * k + i];
  }
  const std::string what = "70 perplexities, k = " + std::to_string(k);
  near(what + ", p", part(result, 0, n * k), part(expected, 0, n * k));
  near(what + ", beta", part(result, n * k, result.size()), part(expected, n * k, expected.size()));
}

void test_rows_of_all_kinds() {
  const std::int64_t n = 12, k = 40;
  Floats sqdist = distances(n, k);
  const auto row = [&](std::int64_t i) { return sqdist.begin() + i * k; };
  std::fill(row(0), row(1), kInfinity);                  // nothing
  std::fill(row(1) + 1, row(2), kInfinity);              // one entry
  std::fill(row(2) + 20, row(3), kInfinity);             // not enough for the largest perplexity
  std::fill(row(3), row(4), 4.0f);                       // all equal
  std::fill(row(4), row(4) + 12, 0.0f);                  // more at the minimum than the smallest perplexity
  std::fill(row(5), row(5) + 3, -1.0f);                  // less than that, and negative
  for (auto d = row(6); d != row(7); ++d) *d *= 1e-30f;  // of another scale
  for (auto d = row(7); d != row(8); ++d) *d *= 1e30f;
  *row(8) = 1e30f;                                                         // a far outlier
  for (int j = 0; j < k; ++j) row(9)[j] = std::ldexp(1.0f, 5 * (j - 20));  // all scales in one row
  for (auto d = row(10); d != row(11); ++d) *d += 1e4f;                    // far from everything
  test("rows of all kinds", sqdist, {5.0, 25.0, 10.0, 1.0}, n, k);
  const Floats result = on_device(sqdist, {39.9, 1.0, 1e300}, n, k, 1e-5);
  expect(*std::max_element(result.begin(), result.begin() + k) == 0.0f, "a row without entries is 0");
  expect(result[k] == 1.0f && result[k + 1] == 0.0f, "a row with one entry is 1 there");

  // A row that is not valid is NaN and leaves the others as they are.
  Floats broken = sqdist;
  broken[5 * k + 7] = kNaN;
  broken[6 * k] = -kInfinity;
  const Doubles perplexities{5.0, 25.0};
  const Floats before = on_device(sqdist, perplexities, n, k, 1e-5),
               after = on_device(broken, perplexities, n, k, 1e-5);
  bool nan = true, same = true;
  for (std::size_t i = 0; i < after.size(); ++i) {
    const std::size_t of = i < static_cast<std::size_t>(n * k) ? i / k : (i - n * k) / 2;
    if (of == 5 || of == 6) {
      nan &= std::isnan(after[i]);
    } else {
      same &= std::memcmp(&before[i], &after[i], sizeof(float)) == 0;
    }
  }
  expect(nan, "a row with NaN or -inf is NaN");
  expect(same, "the other rows are not changed by it");
}

// Entropies in float64 at the betas found are within the tolerance.
void test_tolerance(double tolerance, double allowed) {
  const std::int64_t n = 40, k = 90;
  const Doubles perplexities{1.5, 5.0, 30.0, 85.0, 89.9};
  const auto h = static_cast<std::int64_t>(perplexities.size());
  const Floats sqdist = distances(n, k), result = on_device(sqdist, perplexities, n, k, tolerance);
  double worst = 0.0;
  for (std::int64_t i = 0; i < n; ++i) {
    const float low = *std::min_element(sqdist.begin() + i * k, sqdist.begin() + (i + 1) * k);
    for (std::int64_t s = 0; s < h; ++s) {
      const double beta = result[n * k + i * h + s];
      double weight = 0.0, first = 0.0;
      for (std::int64_t j = 0; j < k; ++j) {
        const double x = beta * (static_cast<double>(sqdist[i * k + j]) - low), e = std::exp(-x);
        weight += e;
        first += x * e;
      }
      worst = std::max(worst, std::abs(std::log(weight) + first / weight - std::log(perplexities[s])));
    }
  }
  expect(worst <= allowed, "entropy within " + std::to_string(tolerance) + ": " + std::to_string(worst));
}

}  // namespace

int main() {
  return fastpdr::check::run([] {
    test_sizes();
    test_many_perplexities(20);
    test_many_perplexities(200);
    test_rows_of_all_kinds();
    const double perplexity = 30.0;
    expect(fastpdr::cuda::perplexity_search(nullptr, &perplexity, std::int64_t{1} << 31, 90, 1, 1e-5, nullptr, nullptr,
                                            nullptr) == cudaErrorInvalidValue,
           "more rows than a grid has blocks");
    test_tolerance(1e-5, 1.2e-5);
    test_tolerance(1e-1, 1.01e-1);
    test_tolerance(1e-9, 5e-6);
    if (!fastpdr::check::kThorough) return;
    test_many_perplexities(4100);
    test("a batch", distances(300, 300), {2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0}, 300, 300, 1e-5, 3e-5);
  });
}
