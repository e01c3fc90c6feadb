// Runs one kernel on fixed input, for a count of its instructions: kernels CASE; without a case it lists them.
//
// Only what is called inside `counted` is to be counted (callgrind --toggle-collect=counted). Inputs are of the sizes
// of a training step, from a generator of our own, so that they are the same with every compiler and library.
#include <fastpdr/coranking.h>
#include <fastpdr/fuzzy.h>
#include <fastpdr/info.h>
#include <fastpdr/layer_norm_gelu.h>
#include <fastpdr/pairs.h>
#include <fastpdr/perplexity.h>
#include <fastpdr/sampling.h>
#include <fastpdr/student_t.h>
#include <fastpdr/subgraph.h>
#include <fastpdr/symmetrize.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

extern "C" __attribute__((noinline)) void counted(const std::function<void()>& kernel) {
  kernel();
}

namespace {

class Numbers {  // Knuth's linear congruential generator, its upper bits
 public:
  float uniform() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<float>(state_ >> 40) * 0x1p-24f;
  }
  std::int64_t below(std::int64_t n) { return static_cast<std::int64_t>(uniform() * static_cast<float>(n)); }

 private:
  std::uint64_t state_ = 1;
};

std::vector<float> uniforms(std::int64_t count, float scale) {
  Numbers numbers;
  std::vector<float> result(count);
  for (float& value : result) value = scale * numbers.uniform();
  return result;
}

// A number of a row of float32 or bfloat16, the latter cut off.
template <typename T>
T row_entry(float value) {
  if constexpr (std::is_same_v<T, float>) {
    return value;
  } else {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return {static_cast<std::uint16_t>(bits >> 16)};
  }
}

struct Csr {
  std::vector<std::int64_t> indptr{0}, indices;
  std::vector<float> values;
};

// About `degree` entries in a row, none on the diagonal, columns ascending.
Csr sparse(std::int64_t n, std::int64_t degree) {
  Numbers numbers;
  Csr graph;
  for (std::int64_t row = 0; row < n; ++row) {
    std::vector<std::int64_t> columns;
    for (std::int64_t j = 0; j < degree; ++j) columns.push_back(numbers.below(n));
    std::sort(columns.begin(), columns.end());
    columns.erase(std::unique(columns.begin(), columns.end()), columns.end());
    for (std::int64_t column : columns) {
      if (column == row) continue;
      graph.indices.push_back(column);
      graph.values.push_back(0.1f + numbers.uniform());
    }
    graph.indptr.push_back(static_cast<std::int64_t>(graph.indices.size()));
  }
  return graph;
}

void perplexity(std::int64_t n, std::int64_t k, const std::vector<double>& levels, bool diagonal) {
  std::vector<float> sqdist = uniforms(n * k, 20.0f), p(n * k), beta(n * levels.size());
  if (diagonal) {
    for (std::int64_t i = 0; i < n; ++i) sqdist[i * k + i] = INFINITY;
  } else {
    for (std::int64_t i = 0; i < n; ++i) std::sort(sqdist.begin() + i * k, sqdist.begin() + (i + 1) * k);
  }
  const std::int64_t h = static_cast<std::int64_t>(levels.size());
  counted([&] { fastpdr::perplexity_search(sqdist.data(), levels.data(), n, k, h, 1e-5, p.data(), beta.data()); });
}

void student_t_dense(std::int64_t b) {
  const std::vector<float> y = uniforms(b * 2, 6.0f);
  std::vector<float> p(b * b), grad(b * 2);
  Numbers numbers;
  for (std::int64_t i = 0; i < b; ++i) {
    for (std::int64_t j = 0; j < i; ++j) p[i * b + j] = p[j * b + i] = numbers.uniform() / static_cast<float>(b * b);
  }
  float loss;
  counted([&] { fastpdr::student_t_kl(y.data(), p.data(), b, 2, 1.0, 1.0, false, &loss, grad.data()); });
}

void student_t_rows(std::int64_t b) {
  const std::vector<float> y = uniforms(b * 2, 6.0f);
  const Csr p = sparse(b, 4);
  std::vector<float> grad(b * 2);
  float loss;
  counted([&] {
    fastpdr::student_t_kl_csr(y.data(), p.indptr.data(), p.indices.data(), p.values.data(), b, 2, 1.0, 1.0, true, &loss,
                              grad.data());
  });
}

void pairs(std::int64_t b) {
  const std::vector<float> y = uniforms(b * 2, 6.0f);
  const Csr targets = sparse(b, 4);
  const fastpdr::PairCurve curve{1.577, 0.8951, 5.0, 1e-3, 4.0, false};
  std::vector<float> grad(b * 2);
  float loss;
  counted([&] {
    fastpdr::pair_loss(y.data(), targets.indptr.data(), targets.indices.data(), targets.values.data(), b, 2, curve,
                       &loss, grad.data());
  });
}

void fuzzy(std::int64_t n, std::int64_t k) {
  std::vector<float> dist = uniforms(n * k, 5.0f), weights(n * k), rho(n), sigma(n);
  for (std::int64_t i = 0; i < n; ++i) std::sort(dist.begin() + i * k, dist.begin() + (i + 1) * k);
  counted([&] { fastpdr::fuzzy_weights(dist.data(), n, k, 1.0, weights.data(), rho.data(), sigma.data()); });
}

void symmetrize(std::int64_t n, std::int64_t k) {
  const std::vector<float> values = uniforms(n * k, 1.0f);
  std::vector<std::int64_t> indices(n * k);
  Numbers numbers;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t step = 1 + numbers.below(n / (2 * k));
    for (std::int64_t j = 0; j < k; ++j) indices[i * k + j] = (i + (j + 1) * step) % n;
  }
  counted([&] {
    const fastpdr::Symmetrization<float> both(indices.data(), values.data(), n, k, 1.0, -1.0);
    std::vector<std::int32_t> indptr(n + 1), columns(both.entries());
    std::vector<float> weights(both.entries());
    both.write(indptr.data(), columns.data(), weights.data());
  });
}

void subgraph(std::int64_t n, std::int64_t b) {
  const Csr graph = sparse(n, 20);
  const std::vector<std::int32_t> graph_indptr(graph.indptr.begin(), graph.indptr.end());
  const std::vector<std::int32_t> graph_indices(graph.indices.begin(), graph.indices.end());
  std::vector<std::int64_t> rows, indptr(b + 1);
  for (std::int64_t i = 0; i < b; ++i) rows.push_back(i * (n / b));
  std::int64_t most = 0;
  for (std::int64_t row : rows) most += graph.indptr[row + 1] - graph.indptr[row];
  std::vector<std::int64_t> indices(most);
  std::vector<float> values(most);
  counted([&] {
    fastpdr::subgraph(graph_indptr.data(), graph_indices.data(), graph.values.data(), rows.data(), n, b, indptr.data(),
                      indices.data(), values.data());
  });
}

void sampling(std::int64_t e, std::int64_t draws) {
  const std::vector<float> weights = uniforms(e, 1.0f);
  std::vector<std::int64_t> table(e), edges(draws);
  counted([&] {
    fastpdr::alias_table(weights.data(), e, table.data());
    fastpdr::sample_edges(table.data(), e, draws, 0, 0, edges.data());
  });
}

// Forward and backward, whose incoming gradient is the value itself.
template <typename T>
void layer_norm_gelu(std::int64_t n, std::int64_t d) {
  std::vector<T> x(n * d), y(n * d), slope(n * d), grad_x(n * d);
  Numbers numbers;
  for (T& value : x) value = row_entry<T>(numbers.uniform());
  const std::vector<float> weight = uniforms(d, 1.0f), bias = uniforms(d, 0.5f);
  std::vector<float> mean(n), scale(n), grad_weight(d), grad_bias(d);
  counted([&] {
    fastpdr::layer_norm_gelu(x.data(), weight.data(), bias.data(), n, d, 1e-5, y.data(), slope.data(), mean.data(),
                             scale.data());
    fastpdr::layer_norm_gelu_backward(y.data(), x.data(), slope.data(), weight.data(), mean.data(), scale.data(), n, d,
                                      grad_x.data(), grad_weight.data(), grad_bias.data());
  });
}

void coranking(std::int64_t b, std::int64_t n) {
  const std::vector<float> x = uniforms(b * n, 1.0f);
  const std::vector<float> z(x.rbegin(), x.rend());
  std::vector<std::int64_t> counts(n);
  std::int64_t intruding, torn;
  counted([&] { fastpdr::coranking(x.data(), z.data(), b, n, 12, counts.data(), &intruding, &torn); });
}

const std::vector<std::pair<std::string, std::function<void()>>> kCases = {
    {"perplexity of 90 neighbours", [] { perplexity(1000, 90, {30.0}, false); }},
    {"perplexity of a batch, 8 scales", [] { perplexity(500, 500, {2, 4, 8, 16, 32, 64, 128, 256}, true); }},
    {"student_t, dense", [] { student_t_dense(1000); }},
    {"student_t, sparse by row", [] { student_t_rows(1024); }},
    {"pairs", [] { pairs(1024); }},
    {"fuzzy", [] { fuzzy(5000, 14); }},
    {"symmetrize", [] { symmetrize(5000, 14); }},
    {"subgraph", [] { subgraph(20'000, 1024); }},
    {"layer_norm_gelu, float32", [] { layer_norm_gelu<float>(512, 256); }},
    {"layer_norm_gelu, bfloat16", [] { layer_norm_gelu<fastpdr::BFloat16>(512, 256); }},
    {"coranking", [] { coranking(20, 5000); }},
    {"sampling", [] { sampling(100'000, 100'000); }},
};

}  // namespace

int main(int count, char** arguments) {
  if (count == 1) {
    const fastpdr::BuildInfo info = fastpdr::build_info();
    std::printf("%s\n%s\n", info.compiler, info.simd_used);
    for (const auto& [name, run] : kCases) std::printf("%s\n", name.c_str());
    return 0;
  }
  for (const auto& [name, run] : kCases) {
    if (name == arguments[1]) {
      run();
      return 0;
    }
  }
  std::fprintf(stderr, "no case %s\n", arguments[1]);
  return 1;
}
