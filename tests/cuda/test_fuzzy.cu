// fuzzy_weights: the CPU kernel's weights, rho and sigma, for every shape of a group of threads.
#include <algorithm>

#include "check.h"
#include "fastpdr/cuda.h"
#include "fastpdr/fuzzy.h"

namespace {

using fastpdr::check::Device;
using fastpdr::check::expect;
using fastpdr::check::near;
using Floats = std::vector<float>;

constexpr float kInfinity = INFINITY, kNaN = NAN;

// The weights, then rho, then sigma.
Floats on_device(const Floats& dist, std::int64_t n, std::int64_t k, double local_connectivity) {
  const Device<float> in(dist);
  Device<char> workspace(fastpdr::cuda::fuzzy_weights_workspace());
  Device<float> weights(n * k), rho(n), sigma(n);
  fastpdr::check::require_done(fastpdr::cuda::fuzzy_weights(in.data(), n, k, local_connectivity, workspace.data(),
                                                            weights.data(), rho.data(), sigma.data(), nullptr));
  Floats result = weights.host();
  for (const Floats& part : {rho.host(), sigma.host()}) result.insert(result.end(), part.begin(), part.end());
  return result;
}

Floats on_host(const Floats& dist, std::int64_t n, std::int64_t k, double local_connectivity) {
  Floats result(n * (k + 2));
  float* const rho = result.data() + n * k;
  fastpdr::fuzzy_weights(dist.data(), n, k, local_connectivity, result.data(), rho, rho + n);
  return result;
}

Floats part(const Floats& of, std::int64_t begin, std::int64_t end) {
  return Floats(of.begin() + begin, of.begin() + end);
}

void sort_rows(Floats& dist, std::int64_t k) {
  for (std::size_t i = 0; k > 0 && i < dist.size(); i += k) std::sort(dist.begin() + i, dist.begin() + i + k);
}

// Ascending distances between points of N(0, I) in d dimensions.
Floats distances(std::int64_t n, std::int64_t k, int d = 8) {
  const Floats normals = fastpdr::check::normal(n * k * d, std::sqrt(2.0f), static_cast<unsigned>(n + k));
  Floats result(n * k);
  for (std::size_t i = 0; i < normals.size(); ++i) result[i / d] += normals[i] * normals[i];
  for (float& value : result) value = std::sqrt(value);
  sort_rows(result, k);
  return result;
}

// NaN where NaN is expected, and else as near as the largest of a row's numbers allows.
void test(const std::string& what, const Floats& dist, std::int64_t n, std::int64_t k, double local_connectivity,
          double allowed = fastpdr::check::kRelativeRms) {
  Floats result = fastpdr::check::repeated(what, [&] { return on_device(dist, n, k, local_connectivity); });
  Floats expected = on_host(dist, n, k, local_connectivity);
  bool same_nan = true;
  for (std::size_t i = 0; i < result.size(); ++i) {
    same_nan &= std::isnan(result[i]) == std::isnan(expected[i]);
    if (std::isnan(expected[i])) result[i] = expected[i] = 0.0f;
  }
  expect(same_nan, what + ": NaN");
  near(what + ", weights", part(result, 0, n * k), part(expected, 0, n * k), allowed);
  expect(part(result, n * k, n * (k + 1)) == part(expected, n * k, n * (k + 1)), what + ", rho");
  double worst = 0.0;
  for (std::int64_t i = n * (k + 1); i < n * (k + 2); ++i) {
    if (result[i] == expected[i]) continue;
    worst = std::max(worst, std::abs(static_cast<double>(result[i]) / static_cast<double>(expected[i]) - 1.0));
  }
  expect(worst <= 10 * allowed, what + ", sigma: " + std::to_string(worst));
}

void test_sizes() {
  for (const std::int64_t k : fastpdr::check::kThorough
                                  ? std::vector<std::int64_t>{0, 2, 7, 14, 31, 32, 33, 64, 65, 129, 513, 1500}
                                  : std::vector<std::int64_t>{0, 14, 33, 129, 513}) {
    const auto test_size = [k](std::int64_t n, double local_connectivity) {
      // A sum of rounded differences, divided by the smallest sigma.
      const bool floored = (k == 2 || k == 7) && local_connectivity > 1.0;
      test("n = " + std::to_string(n) + ", k = " + std::to_string(k) + ", " + std::to_string(local_connectivity),
           distances(n, k), n, k, local_connectivity, floored ? 1e-3 : fastpdr::check::kRelativeRms);
    };
    for (const std::int64_t n : {0, 1, k > 500 ? 2 : 33}) test_size(n, 1.0);
    for (const double local_connectivity : {0.0, 0.5, 1.5, 3.0}) test_size(k > 500 ? 1 : 9, local_connectivity);
  }
}

void test_rows_of_all_kinds(std::int64_t k, double local_connectivity) {
  const std::int64_t n = 14;
  Floats dist = distances(n, k);
  const auto row = [&](std::int64_t i) { return dist.begin() + i * k; };
  std::fill(row(0), row(1), kInfinity);      // nothing
  std::fill(row(1) + 1, row(2), kInfinity);  // one neighbour
  std::fill(row(2), row(2) + 1, 0.0f);       // one, in the same place
  std::fill(row(2) + 1, row(3), kInfinity);
  std::fill(row(3) + k / 2, row(4), kInfinity);  // half as many
  std::fill(row(4), row(5), 0.0f);               // all in the same place
  std::fill(row(5), row(6), 2.5f);               // all as far
  std::fill(row(6), row(6) + k / 4, 0.0f);       // some duplicates
  std::fill(row(7), row(7) + k / 3, *row(7));    // of the nearest
  for (auto d = row(8); d != row(9); ++d) *d *= 1e-30f;
  for (auto d = row(9); d != row(10); ++d) *d *= 1e25f;
  row(10)[k - 1] = 1e30f;  // a far outlier
  *row(11) = -kInfinity;
  row(12)[k / 2] = kNaN;
  for (int j = 0; j < k && j < 20; ++j) row(13)[j] = std::ldexp(1.0f, 6 * (j - 10));
  for (std::int64_t i = 0; i < n; ++i) {
    if (i != 12) std::sort(row(i), row(i + 1));
  }
  test("rows of all kinds, k = " + std::to_string(k) + ", " + std::to_string(local_connectivity), dist, n, k,
       local_connectivity, 1e-4);
}

// Some rows need the mean of all.
void test_bounded(std::int64_t n, double local_connectivity) {
  const std::int64_t k = 5;
  Floats dist = distances(n, k);
  for (std::int64_t i = 0; i < n; i += 7) std::fill(dist.begin() + i * k, dist.begin() + (i + 1) * k, 0.0f);
  for (std::int64_t i = 0; i < n; i += 31) std::fill(dist.begin() + i * k, dist.begin() + i * k + 3, 0.0f);
  test("mean of " + std::to_string(n) + " rows, " + std::to_string(local_connectivity), dist, n, k, local_connectivity);
}

// More rows than all blocks take in one turn; most are short of neighbours, which is quick.
void test_many_rows() {
  const std::int64_t n = 8300, k = 3;
  Floats dist(n * k, kInfinity);
  for (std::int64_t i = 0; i < n; ++i) dist[i * k] = static_cast<float>(i % 5);
  for (std::int64_t i = 0; i < n * k; i += 97 * k) std::copy_n(std::begin({1.0f, 2.0f, 5.0f}), k, dist.begin() + i);
  const Floats result = on_device(dist, n, k, 1.0), expected = on_host(dist, n, k, 1.0);
  near("many rows, weights", part(result, 0, n * k), part(expected, 0, n * k));
  near("many rows, sigma", part(result, n * (k + 1), n * (k + 2)), part(expected, n * (k + 1), n * (k + 2)));
}

void test_sum() {
  const std::int64_t n = 100, k = 14;
  const Floats result = on_device(distances(n, k), n, k, 1.0);
  double worst = 0.0;
  for (std::int64_t i = 0; i < n; ++i) {
    double sum = 0.0;
    for (std::int64_t j = 0; j < k; ++j) sum += result[i * k + j];
    worst = std::max(worst, std::abs(sum / std::log2(k + 1.0) - 1.0));
  }
  expect(worst <= 2e-6, "the sum is the target: " + std::to_string(worst));
}

}  // namespace

int main() {
  return fastpdr::check::run([] {
    test_sizes();
    for (const std::int64_t k : {14, 40, 100, 600}) {
      for (const double local_connectivity : {0.0, 1.0}) test_rows_of_all_kinds(k, local_connectivity);
    }
    test_bounded(300, 1.0);
    test_bounded(300, 0.0);
    test_sum();
    if (fastpdr::check::kThorough) test_many_rows();
  });
}
