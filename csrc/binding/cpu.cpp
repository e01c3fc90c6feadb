// The operators on CPU tensors: checks, allocation, the kernel.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <tuple>
#include <type_traits>
#include <vector>

#include "arguments.h"
#include "fastpdr/coranking.h"
#include "fastpdr/fuzzy.h"
#include "fastpdr/layer_norm_gelu.h"
#include "fastpdr/perplexity.h"

namespace fastpdr::binding {
namespace {

std::tuple<Tensor, Tensor> perplexity_search(const Tensor& sqdist_, std::vector<double> perplexities, double tol) {
  const Tensor sqdist = require(sqdist_, ScalarType::Float, 2, "perplexity_search: sqdist");
  const int64_t n = sqdist.size(0), k = sqdist.size(1), h = static_cast<int64_t>(perplexities.size());
  Tensor p = allocate("perplexity_search", sqdist, {n, k}, ScalarType::Float);
  Tensor beta = allocate("perplexity_search", sqdist, {n, h}, ScalarType::Float);
  fastpdr::perplexity_search(read<float>(sqdist), perplexities.data(), n, k, h, tol, write<float>(p),
                             write<float>(beta));
  return {p, beta};
}

std::tuple<Tensor, Tensor> student_t_kl(const Tensor& y, const Tensor& p, double dof, double exaggeration,
                                        bool by_row) {
  const Map map(y, kStudentTMaxComponents, "student_t_kl");
  const SquareP square(p, map, "student_t_kl");
  Tensor loss = allocate("student_t_kl", map.y, {}, ScalarType::Float);
  Tensor grad = allocate("student_t_kl", map.y, {map.b, map.c}, ScalarType::Float);
  fastpdr::student_t_kl(read<float>(map.y), read<float>(square.p), map.b, map.c, dof, exaggeration, by_row,
                        write<float>(loss), write<float>(grad));
  return {loss, grad};
}

// The gradient of the rows behind the first m.
void clear_padding(const Map& map, int64_t m, Tensor& grad) {
  std::fill(write<float>(grad) + m * map.c, write<float>(grad) + map.b * map.c, 0.0f);
}

// The entries of the first b rows can be trusted afterwards: a stray index would be written through.
void require_contents(const Csr& matrix, int64_t b, bool padded) {
  const int64_t *starts = read<int64_t>(matrix.indptr), *columns = read<int64_t>(matrix.indices);
  bool rises = starts[0] == 0 && (padded ? starts[b] <= matrix.nnz : starts[b] == matrix.nnz), inside = true;
  for (int64_t i = 0; i < b; ++i) rises &= starts[i] <= starts[i + 1];
  STD_TORCH_CHECK(rises, "indptr must rise from 0 to the number of entries");
  for (int64_t e = 0; e < starts[b]; ++e) inside &= static_cast<uint64_t>(columns[e]) < static_cast<uint64_t>(b);
  STD_TORCH_CHECK(inside, "indices must lie in [0, b)");
}

std::tuple<Tensor, Tensor> student_t_kl_csr(const Tensor& y, const Tensor& indptr, const Tensor& indices,
                                            const Tensor& values, double dof, double exaggeration, bool by_row,
                                            std::optional<Tensor> points) {
  const Map map(y, kStudentTMaxComponents, "student_t_kl_csr");
  const Csr p(indptr, indices, values, map, "student_t_kl_csr");
  const int64_t m = Points(points, map.y, "y", "student_t_kl_csr").of(map.b);
  require_contents(p, m, points.has_value());
  Tensor loss = allocate("student_t_kl_csr", map.y, {}, ScalarType::Float);
  Tensor grad = allocate("student_t_kl_csr", map.y, {map.b, map.c}, ScalarType::Float);
  fastpdr::student_t_kl_csr(read<float>(map.y), read<int64_t>(p.indptr), read<int64_t>(p.indices),
                            read<float>(p.values), m, map.c, dof, exaggeration, by_row, write<float>(loss),
                            write<float>(grad));
  clear_padding(map, m, grad);
  return {loss, grad};
}

std::tuple<Tensor, Tensor> pair_loss(const Tensor& y, const Tensor& indptr, const Tensor& indices, const Tensor& values,
                                     double a, double b, double repulsion, double eps, double clip, bool keras,
                                     std::optional<Tensor> points) {
  const Map map(y, kPairsMaxComponents, "pair_loss");
  const Csr targets(indptr, indices, values, map, "pair_loss");
  const int64_t m = Points(points, map.y, "y", "pair_loss").of(map.b);
  require_contents(targets, m, points.has_value());
  Tensor loss = allocate("pair_loss", map.y, {}, ScalarType::Float);
  Tensor grad = allocate("pair_loss", map.y, {map.b, map.c}, ScalarType::Float);
  fastpdr::pair_loss(read<float>(map.y), read<int64_t>(targets.indptr), read<int64_t>(targets.indices),
                     read<float>(targets.values), m, map.c, PairCurve{a, b, repulsion, eps, clip, keras},
                     write<float>(loss), write<float>(grad));
  clear_padding(map, m, grad);
  return {loss, grad};
}

Tensor sample_edges(const Tensor& table, int64_t n_edges, int64_t seed, int64_t step) {
  const Draws draws(table, n_edges, seed, step);
  Tensor edges = allocate("sample_edges", draws.table, {n_edges}, ScalarType::Long);
  fastpdr::sample_edges(read<int64_t>(draws.table), draws.e, n_edges, seed, step, write<int64_t>(edges));
  return edges;
}

// The most entries that the rows can give; what the rows point to must exist before it is read.
template <typename Index>
int64_t subgraph_capacity(const Index* indptr, const int64_t* rows, int64_t n, int64_t b, int64_t nnz) {
  int64_t capacity = 0;
  bool inside = true, rises = true;
  for (int64_t s = 0; s < b && inside; ++s) {
    inside = static_cast<uint64_t>(rows[s]) < static_cast<uint64_t>(n);
    if (!inside) break;
    const int64_t begin = indptr[rows[s]], end = indptr[rows[s] + 1];
    rises &= begin >= 0 && begin <= end && end <= nnz;
    capacity += end - begin;
  }
  STD_TORCH_CHECK(inside, "subgraph: rows must lie in [0, n)");
  STD_TORCH_CHECK(rises, "subgraph: indptr must rise from 0 to the number of entries");
  return capacity;
}

template <typename Index, typename T>
std::tuple<Tensor, Tensor, Tensor> subgraph_of(const Subgraph& of, Index*, T*) {
  const int64_t m = of.points.of(of.b);
  const int64_t capacity = subgraph_capacity(read<Index>(of.indptr), read<int64_t>(of.rows), of.n, m, of.nnz);
  const std::unique_ptr<int64_t[]> columns(new int64_t[capacity]);
  const std::unique_ptr<T[]> found(new T[capacity]);
  Tensor indptr_out = allocate("subgraph", of.rows, {of.b + 1}, ScalarType::Long);
  const int64_t count =
      fastpdr::subgraph(read<Index>(of.indptr), read<Index>(of.indices), read<T>(of.values), read<int64_t>(of.rows),
                        of.n, m, write<int64_t>(indptr_out), columns.get(), found.get());
  require_subgraph_found(count);
  STD_TORCH_CHECK(count <= of.capacity.value_or(count), "subgraph: capacity must be the number of entries or more");
  std::fill(write<int64_t>(indptr_out) + m + 1, write<int64_t>(indptr_out) + of.b + 1, count);
  // What was found is a small part of what the rows hold.
  const int64_t room = of.capacity.value_or(count);
  Tensor indices_out = allocate("subgraph", of.rows, {room}, ScalarType::Long);
  Tensor values_out = allocate("subgraph", of.values, {room}, of.values.scalar_type());
  std::memcpy(write<int64_t>(indices_out), columns.get(), count * sizeof(int64_t));
  std::memcpy(write<T>(values_out), found.get(), count * sizeof(T));
  return {indptr_out, indices_out, values_out};
}

std::tuple<Tensor, Tensor, Tensor> subgraph(const Tensor& indptr, const Tensor& indices, const Tensor& values,
                                            const Tensor& rows, std::optional<Tensor> points,
                                            std::optional<int64_t> capacity) {
  const Subgraph of(indptr, indices, values, rows, points, capacity);
  return with_types(index_type(of.indptr), of.values.scalar_type(),
                    [&](auto* index, auto* value) { return subgraph_of(of, index, value); });
}

std::tuple<Tensor, Tensor, Tensor> fuzzy_weights(const Tensor& dist_, double local_connectivity) {
  const Tensor dist = require(dist_, ScalarType::Float, 2, "fuzzy_weights: dist");
  require_connectivity(local_connectivity);
  const int64_t n = dist.size(0), k = dist.size(1);
  Tensor weights = allocate("fuzzy_weights", dist, {n, k}, ScalarType::Float);
  Tensor rho = allocate("fuzzy_weights", dist, {n}, ScalarType::Float);
  Tensor sigma = allocate("fuzzy_weights", dist, {n}, ScalarType::Float);
  fastpdr::fuzzy_weights(read<float>(dist), n, k, local_connectivity, write<float>(weights), write<float>(rho),
                         write<float>(sigma));
  return {weights, rho, sigma};
}

template <typename T>
std::tuple<Tensor, Tensor, Tensor> symmetrize_of(const Neighbors& of, double sum_factor, double product_factor) {
  const Symmetrization<T> result(read<int64_t>(of.indices), read<T>(of.values), of.n, of.k, sum_factor, product_factor);
  const int64_t entries = result.entries();
  require_symmetrized(entries);
  const ScalarType index = index_type(of.n, entries);
  Tensor indptr = allocate("symmetrize", of.indices, {of.n + 1}, index);
  Tensor columns = allocate("symmetrize", of.indices, {entries}, index);
  Tensor merged = allocate("symmetrize", of.values, {entries}, of.values.scalar_type());
  if (index == ScalarType::Int) {
    result.write(write<int32_t>(indptr), write<int32_t>(columns), write<T>(merged));
  } else {
    result.write(write<int64_t>(indptr), write<int64_t>(columns), write<T>(merged));
  }
  return {indptr, columns, merged};
}

std::tuple<Tensor, Tensor, Tensor> symmetrize(const Tensor& indices, const Tensor& values, double sum_factor,
                                              double product_factor) {
  const Neighbors of(indices, values);
  return of.values.scalar_type() == ScalarType::Double ? symmetrize_of<double>(of, sum_factor, product_factor)
                                                       : symmetrize_of<float>(of, sum_factor, product_factor);
}

template <typename T>
Tensor alias_table_of(const Tensor& weights_) {
  const Weights weights(weights_);
  const T* values = read<T>(weights.weights);
  bool positive = false, valid = true;
  for (int64_t i = 0; i < weights.e; ++i) {
    positive |= values[i] > T{0};
    valid &= values[i] >= T{0} && values[i] < INFINITY;
  }
  STD_TORCH_CHECK(positive && valid, "alias_table: weights must be finite, >= 0 and not all 0");
  Tensor table = allocate("alias_table", weights.weights, {weights.e}, ScalarType::Long);
  fastpdr::alias_table(values, weights.e, write<int64_t>(table));
  return table;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> layer_norm_gelu(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                                           double eps) {
  LayerForward of(x, weight, bias);
  with_rows_of(of.layer, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    fastpdr::layer_norm_gelu(read<T>(of.layer.x), read<float>(of.layer.weight), read<float>(of.bias), of.layer.n,
                             of.layer.d, eps, write<T>(of.y), write<T>(of.slope), write<float>(of.mean),
                             write<float>(of.scale));
  });
  return of.results();
}

std::tuple<Tensor, Tensor, Tensor> layer_norm_gelu_backward(const Tensor& grad, const Tensor& x, const Tensor& slope,
                                                            const Tensor& weight, const Tensor& mean,
                                                            const Tensor& scale) {
  LayerBackward of(grad, x, slope, weight, mean, scale);
  with_rows_of(of.layer, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    fastpdr::layer_norm_gelu_backward(read<T>(of.grad), read<T>(of.layer.x), read<T>(of.slope),
                                      read<float>(of.layer.weight), read<float>(of.mean), read<float>(of.scale),
                                      of.layer.n, of.layer.d, write<T>(of.grad_x), write<float>(of.grad_weight),
                                      write<float>(of.grad_bias));
  });
  return of.results();
}

std::tuple<Tensor, Tensor, Tensor> coranking(const Tensor& sqdist_x, const Tensor& sqdist_z, int64_t k) {
  const Tensor x = require(sqdist_x, ScalarType::Float, 2, "coranking: sqdist_x");
  const Tensor z = require(sqdist_z, ScalarType::Float, 2, "coranking: sqdist_z", x, "sqdist_x");
  const int64_t b = x.size(0), n = x.size(1);
  STD_TORCH_CHECK(z.size(0) == b && z.size(1) == n, "coranking: sqdist_z must be [b, n] like sqdist_x");
  STD_TORCH_CHECK(n <= INT32_MAX, "coranking: sqdist_x must have fewer than 2^31 columns");
  Tensor counts = allocate("coranking", x, {n}, ScalarType::Long);
  Tensor intruding = allocate("coranking", x, {}, ScalarType::Long);
  Tensor torn = allocate("coranking", x, {}, ScalarType::Long);
  fastpdr::coranking(read<float>(x), read<float>(z), b, n, k, write<int64_t>(counts), write<int64_t>(intruding),
                     write<int64_t>(torn));
  return {counts, intruding, torn};
}

}  // namespace

Tensor alias_table_on_host(const Tensor& weights) {
  return weights.scalar_type() == ScalarType::Double ? alias_table_of<double>(weights) : alias_table_of<float>(weights);
}

STABLE_TORCH_LIBRARY_IMPL(fastpdr, CPU, m) {
  m.impl("perplexity_search", TORCH_BOX(&perplexity_search));
  m.impl("student_t_kl", TORCH_BOX(&student_t_kl));
  m.impl("student_t_kl_csr", TORCH_BOX(&student_t_kl_csr));
  m.impl("pair_loss", TORCH_BOX(&pair_loss));
  m.impl("alias_table", TORCH_BOX(&alias_table_on_host));
  m.impl("sample_edges", TORCH_BOX(&sample_edges));
  m.impl("subgraph", TORCH_BOX(&subgraph));
  m.impl("fuzzy_weights", TORCH_BOX(&fuzzy_weights));
  m.impl("symmetrize", TORCH_BOX(&symmetrize));
  m.impl("coranking", TORCH_BOX(&coranking));
  m.impl("layer_norm_gelu", TORCH_BOX(&layer_norm_gelu));
  m.impl("layer_norm_gelu_backward", TORCH_BOX(&layer_norm_gelu_backward));
}

}  // namespace fastpdr::binding
