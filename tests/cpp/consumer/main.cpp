// Calls the kernels on cases worked out by hand; the exit status says whether they are right.
#include <fastpdr/fuzzy.h>
#include <fastpdr/info.h>
#include <fastpdr/pairs.h>
#include <fastpdr/perplexity.h>
#include <fastpdr/sampling.h>
#include <fastpdr/student_t.h>
#include <fastpdr/subgraph.h>
#include <fastpdr/symmetrize.h>

#include <cmath>
#include <cstdint>
#include <cstdio>

namespace {

bool near(double a, double b) {
  return std::fabs(a - b) < 1e-5;
}

// Equal distances: uniform rows, whatever the perplexity; all at rho: fully connected.
bool similarities_are_right() {
  const float sqdist[3] = {2.0f, 2.0f, INFINITY};
  const double perplexity = 2.0;
  float p[3], beta[1], weights[3], rho[1], sigma[1];
  fastpdr::perplexity_search(sqdist, &perplexity, 1, 3, 1, 1e-5, p, beta);
  fastpdr::fuzzy_weights(sqdist, 1, 3, 1.0, weights, rho, sigma);
  std::printf("p = %g %g %g, weights = %g %g %g\n", p[0], p[1], p[2], weights[0], weights[1], weights[2]);
  return near(p[0], 0.5) && p[2] == 0.0f && near(weights[1], 1.0) && weights[2] == 0.0f && near(rho[0], 2.0);
}

// Two points: P and Q are one half each, so the divergence vanishes; at distance 5 LargeVis's q is 1 / 26.
bool losses_are_right() {
  const float y[4] = {0.0f, 0.0f, 3.0f, 4.0f};
  const float dense[4] = {0.0f, 1.0f, 1.0f, 0.0f};
  const std::int64_t indptr[3] = {0, 1, 2}, indices[2] = {1, 0};
  const float values[2] = {1.0f, 1.0f};
  float global, by_row, pairs, gradient[4];
  fastpdr::student_t_kl(y, dense, 2, 2, 1.0, 1.0, false, &global, gradient);
  fastpdr::student_t_kl_csr(y, indptr, indices, values, 2, 2, 1.0, 1.0, true, &by_row, gradient);
  const fastpdr::PairCurve largevis{1.0, 1.0, 2.0, 0.0, 0.0, false};
  fastpdr::pair_loss(y, indptr, indices, values, 2, 2, largevis, &pairs, gradient);
  std::printf("losses = %g %g %g\n", global, by_row, pairs);
  return near(global, 0.0) && near(by_row, 0.0) && near(pairs, std::log(26.0) - 2.0 * std::log(25.0 / 26.0));
}

// Row 0 names row 1 and row 1 row 2: joined both ways, cut to rows 2 and 1, drawn by weight.
bool graphs_are_right() {
  const std::int64_t neighbors[3] = {1, 2, -1};
  const float lengths[3] = {1.0f, 3.0f, 0.0f};
  const fastpdr::Symmetrization<float> both(neighbors, lengths, 3, 1, 1.0, 0.0);
  std::int32_t indptr[4], indices[4];  // 32 bits are enough for so few
  std::int64_t table[4], drawn[16];
  float values[4];
  if (both.entries() != 4) return false;
  both.write(indptr, indices, values);

  const std::int64_t rows[2] = {2, 1};
  std::int64_t part_indptr[3], part_indices[3];
  float part_values[3];
  const std::int64_t found =
      fastpdr::subgraph(indptr, indices, values, rows, 3, 2, part_indptr, part_indices, part_values);

  const double weights[4] = {0.0, 0.0, 5.0, 0.0};
  fastpdr::alias_table(weights, 4, table);
  fastpdr::sample_edges(table, 4, 16, 7, 0, drawn);
  bool right = found == 2 && part_indices[0] == 1 && near(part_values[0], 3.0);
  for (const std::int64_t edge : drawn) right &= edge == 2;
  return right;
}

}  // namespace

int main() {
  std::printf("fastpdr %s (%s)\n", fastpdr::build_info().version, fastpdr::build_info().simd_used);
  const bool similarities = similarities_are_right(), losses = losses_are_right(), graphs = graphs_are_right();
  return similarities && losses && graphs ? 0 : 1;
}
