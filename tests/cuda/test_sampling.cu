// sample_edges: the very integers of the CPU kernel.
#include "check.h"
#include "fastpdr/cuda.h"
#include "fastpdr/sampling.h"

namespace {

using fastpdr::check::Device;

void test_draws(std::int64_t e, std::int64_t n_edges, std::int64_t seed, std::int64_t step) {
  const std::vector<float> uneven = fastpdr::check::uniform(e, 0.0f, 1.0f, 3);
  std::vector<double> weights(uneven.begin(), uneven.end());
  for (double& weight : weights) weight = weight < 0.3 ? 0.0 : weight * weight;
  weights[e / 2] = 5.0;
  std::vector<std::int64_t> table(e), expected(n_edges);
  fastpdr::alias_table(weights.data(), e, table.data());
  fastpdr::sample_edges(table.data(), e, n_edges, seed, step, expected.data());

  const Device<std::int64_t> device_table(table);
  const std::string what = "e = " + std::to_string(e) + ", n_edges = " + std::to_string(n_edges);
  const auto actual = fastpdr::check::repeated(what, [&] {
    Device<std::int64_t> edges(n_edges);
    fastpdr::check::require_done(
        fastpdr::cuda::sample_edges(device_table.data(), e, n_edges, seed, step, edges.data(), nullptr));
    return edges.host();
  });
  fastpdr::check::equal(what, actual, expected);
}

}  // namespace

int main() {
  return fastpdr::check::run([] {
    for (const std::int64_t e : {1, 2, 31, 32, 33, 1000}) {
      for (const std::int64_t n_edges : fastpdr::check::kSizes) test_draws(e, n_edges, 7, 0);
    }
    // All four words are in use.
    const std::int64_t seed = (std::int64_t{1} << 62) + 12345678901, step = (std::int64_t{1} << 61) + 9876543210987;
    test_draws(5000, 3000, seed, step);
    test_draws(5000, 3000, INT64_MAX, INT64_MAX);
  });
}
