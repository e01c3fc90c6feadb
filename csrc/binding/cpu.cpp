// The operators on CPU tensors: checks, allocation, the kernel.
#include <torch/csrc/stable/library.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <tuple>
#include <vector>

#include "fastpdr/fuzzy.h"
#include "fastpdr/perplexity.h"
#include "fastpdr/sampling.h"
#include "fastpdr/student_t.h"
#include "fastpdr/subgraph.h"
#include "fastpdr/symmetrize.h"
#include "tensor.h"

namespace fastpdr::binding {
namespace {

std::tuple<Tensor, Tensor> perplexity_search(const Tensor& sqdist_, std::vector<double> perplexities, double tol) {
  const Tensor sqdist = require(sqdist_, ScalarType::Float, 2, "perplexity_search: sqdist");
  const int64_t n = sqdist.size(0), k = sqdist.size(1), h = static_cast<int64_t>(perplexities.size());
  Tensor p = torch::stable::new_empty(sqdist, {n, k});
  Tensor beta = torch::stable::new_empty(sqdist, {n, h});
  fastpdr::perplexity_search(read<float>(sqdist), perplexities.data(), n, k, h, tol, write<float>(p),
                             write<float>(beta));
  return {p, beta};
}

void require_map(const Tensor& y) {
  STD_TORCH_CHECK(y.size(1) >= 1 && y.size(1) <= kStudentTMaxComponents, "student_t_kl: y has too many columns");
}

std::tuple<Tensor, Tensor> student_t_kl(const Tensor& y_, const Tensor& p_, double dof, double exaggeration) {
  const Tensor y = require(y_, ScalarType::Float, 2, "student_t_kl: y");
  const Tensor p = require(p_, ScalarType::Float, 2, "student_t_kl: p");
  require_map(y);
  const int64_t b = y.size(0), c = y.size(1);
  STD_TORCH_CHECK(p.size(0) == b && p.size(1) == b, "student_t_kl: p must be [b, b]");
  Tensor loss = torch::stable::new_empty(y, {});
  Tensor grad = torch::stable::new_empty(y, {b, c});
  fastpdr::student_t_kl(read<float>(y), read<float>(p), b, c, dof, exaggeration, write<float>(loss),
                        write<float>(grad));
  return {loss, grad};
}

// A stray index would be written through.
void require_csr(const int64_t* indptr, const int64_t* indices, int64_t b, int64_t nnz) {
  bool rises = indptr[0] == 0 && indptr[b] == nnz, inside = true;
  for (int64_t i = 0; i < b; ++i) rises &= indptr[i] <= indptr[i + 1];
  for (int64_t e = 0; e < nnz; ++e) inside &= static_cast<uint64_t>(indices[e]) < static_cast<uint64_t>(b);
  STD_TORCH_CHECK(rises, "student_t_kl_csr: indptr must rise from 0 to the number of entries");
  STD_TORCH_CHECK(inside, "student_t_kl_csr: indices must lie in [0, b)");
}

std::tuple<Tensor, Tensor> student_t_kl_csr(const Tensor& y_, const Tensor& indptr_, const Tensor& indices_,
                                            const Tensor& values_, double dof, double exaggeration) {
  const Tensor y = require(y_, ScalarType::Float, 2, "student_t_kl_csr: y");
  const Tensor indptr = require(indptr_, ScalarType::Long, 1, "student_t_kl_csr: indptr");
  const Tensor indices = require(indices_, ScalarType::Long, 1, "student_t_kl_csr: indices");
  const Tensor values = require(values_, ScalarType::Float, 1, "student_t_kl_csr: values");
  require_map(y);
  const int64_t b = y.size(0), c = y.size(1), nnz = values.size(0);
  STD_TORCH_CHECK(indptr.size(0) == b + 1, "student_t_kl_csr: indptr must be [b + 1]");
  STD_TORCH_CHECK(indices.size(0) == nnz, "student_t_kl_csr: indices and values must be of one length");
  require_csr(read<int64_t>(indptr), read<int64_t>(indices), b, nnz);
  Tensor loss = torch::stable::new_empty(y, {});
  Tensor grad = torch::stable::new_empty(y, {b, c});
  fastpdr::student_t_kl_csr(read<float>(y), read<int64_t>(indptr), read<int64_t>(indices), read<float>(values), b, c,
                            dof, exaggeration, write<float>(loss), write<float>(grad));
  return {loss, grad};
}

Tensor alias_table(const Tensor& weights_) {
  const Tensor weights = require(weights_, ScalarType::Double, 1, "alias_table: weights");
  const int64_t e = weights.size(0);
  STD_TORCH_CHECK(e >= 1 && e < kAliasMaxEntries, "alias_table: weights must be [e] with 1 <= e < 2^31");
  const double* values = read<double>(weights);
  bool positive = false, valid = true;
  for (int64_t i = 0; i < e; ++i) {
    positive |= values[i] > 0.0;
    valid &= values[i] >= 0.0 && values[i] < INFINITY;
  }
  STD_TORCH_CHECK(positive && valid, "alias_table: weights must be finite, >= 0 and not all 0");
  Tensor table = torch::stable::new_empty(weights, {e, 2}, ScalarType::Long);
  fastpdr::alias_table(values, e, write<int64_t>(table));
  return table;
}

Tensor sample_edges(const Tensor& table_, int64_t n_edges, int64_t seed, int64_t step) {
  const Tensor table = require(table_, ScalarType::Long, 2, "sample_edges: table");
  STD_TORCH_CHECK(table.size(0) >= 1 && table.size(1) == 2, "sample_edges: table must be [e, 2] with e >= 1");
  STD_TORCH_CHECK(n_edges >= 0 && seed >= 0 && step >= 0, "sample_edges: n_edges, seed and step must be >= 0");
  Tensor edges = torch::stable::new_empty(table, {n_edges});
  fastpdr::sample_edges(read<int64_t>(table), table.size(0), n_edges, seed, step, write<int64_t>(edges));
  return edges;
}

// The most entries that the rows can give; what the rows point to must exist before it is read.
int64_t subgraph_capacity(const int64_t* indptr, const int64_t* rows, int64_t n, int64_t b, int64_t nnz) {
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

template <typename T>
std::tuple<Tensor, Tensor, Tensor> subgraph_of(const Tensor& indptr, const Tensor& indices, const Tensor& values,
                                               const Tensor& rows) {
  const int64_t n = indptr.size(0) - 1, b = rows.size(0);
  const int64_t capacity = subgraph_capacity(read<int64_t>(indptr), read<int64_t>(rows), n, b, indices.size(0));
  const std::unique_ptr<int64_t[]> columns(new int64_t[capacity]);
  const std::unique_ptr<T[]> found(new T[capacity]);
  Tensor indptr_out = torch::stable::new_empty(indptr, {b + 1});
  const int64_t count =
      fastpdr::subgraph(read<int64_t>(indptr), read<int64_t>(indices), read<T>(values), read<int64_t>(rows), n, b,
                        write<int64_t>(indptr_out), columns.get(), found.get());
  STD_TORCH_CHECK(count != kSubgraphRepeatedRow, "subgraph: rows must be distinct");
  STD_TORCH_CHECK(count != kSubgraphStrayColumn, "subgraph: indices must lie in [0, n)");
  // What was found is a small part of the capacity.
  Tensor indices_out = torch::stable::new_empty(indices, {count}),
         values_out = torch::stable::new_empty(values, {count});
  std::memcpy(write<int64_t>(indices_out), columns.get(), count * sizeof(int64_t));
  std::memcpy(write<T>(values_out), found.get(), count * sizeof(T));
  return {indptr_out, indices_out, values_out};
}

std::tuple<Tensor, Tensor, Tensor> subgraph(const Tensor& indptr_, const Tensor& indices_, const Tensor& values_,
                                            const Tensor& rows_) {
  const Tensor indptr = require(indptr_, ScalarType::Long, 1, "subgraph: indptr");
  const Tensor indices = require(indices_, ScalarType::Long, 1, "subgraph: indices");
  const bool wide = values_.scalar_type() == ScalarType::Double;
  const Tensor values = require(values_, wide ? ScalarType::Double : ScalarType::Float, 1, "subgraph: values");
  const Tensor rows = require(rows_, ScalarType::Long, 1, "subgraph: rows");
  STD_TORCH_CHECK(indptr.size(0) >= 1, "subgraph: indptr must be [n + 1]");
  STD_TORCH_CHECK(indices.size(0) == values.size(0), "subgraph: indices and values must be of one length");
  STD_TORCH_CHECK(rows.size(0) <= kSubgraphMaxRows, "subgraph: rows must be fewer than 2^29");
  return wide ? subgraph_of<double>(indptr, indices, values, rows) : subgraph_of<float>(indptr, indices, values, rows);
}

std::tuple<Tensor, Tensor, Tensor> fuzzy_weights(const Tensor& dist_, double local_connectivity) {
  const Tensor dist = require(dist_, ScalarType::Float, 2, "fuzzy_weights: dist");
  STD_TORCH_CHECK(local_connectivity >= 0.0, "fuzzy_weights: local_connectivity must be >= 0");
  const int64_t n = dist.size(0), k = dist.size(1);
  Tensor weights = torch::stable::new_empty(dist, {n, k});
  Tensor rho = torch::stable::new_empty(dist, {n});
  Tensor sigma = torch::stable::new_empty(dist, {n});
  fastpdr::fuzzy_weights(read<float>(dist), n, k, local_connectivity, write<float>(weights), write<float>(rho),
                         write<float>(sigma));
  return {weights, rho, sigma};
}

template <typename T>
std::tuple<Tensor, Tensor, Tensor> symmetrize_of(const Tensor& indices, const Tensor& values, double sum_factor,
                                                 double product_factor) {
  const int64_t n = indices.size(0), k = indices.size(1);
  const Symmetrization<T> result(read<int64_t>(indices), read<T>(values), n, k, sum_factor, product_factor);
  const int64_t entries = result.entries();
  STD_TORCH_CHECK(entries != kSymmetrizeStrayIndex, "symmetrize: indices must lie in [-1, n)");
  STD_TORCH_CHECK(entries != kSymmetrizeOwnIndex, "symmetrize: indices must not name the row itself");
  STD_TORCH_CHECK(entries != kSymmetrizeRepeatedIndex, "symmetrize: indices must be distinct within a row");
  Tensor indptr = torch::stable::new_empty(indices, {n + 1});
  Tensor columns = torch::stable::new_empty(indices, {entries});
  Tensor merged = torch::stable::new_empty(values, {entries});
  result.write(write<int64_t>(indptr), write<int64_t>(columns), write<T>(merged));
  return {indptr, columns, merged};
}

std::tuple<Tensor, Tensor, Tensor> symmetrize(const Tensor& indices_, const Tensor& values_, double sum_factor,
                                              double product_factor) {
  const Tensor indices = require(indices_, ScalarType::Long, 2, "symmetrize: indices");
  const bool wide = values_.scalar_type() == ScalarType::Double;
  const Tensor values = require(values_, wide ? ScalarType::Double : ScalarType::Float, 2, "symmetrize: values");
  STD_TORCH_CHECK(values.size(0) == indices.size(0) && values.size(1) == indices.size(1),
                  "symmetrize: values must be [n, k] like indices");
  STD_TORCH_CHECK(indices.size(0) <= kSymmetrizeMaxRows, "symmetrize: indices must have fewer than 2^31 rows");
  return wide ? symmetrize_of<double>(indices, values, sum_factor, product_factor)
              : symmetrize_of<float>(indices, values, sum_factor, product_factor);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastpdr, CPU, m) {
  m.impl("perplexity_search", TORCH_BOX(&perplexity_search));
  m.impl("student_t_kl", TORCH_BOX(&student_t_kl));
  m.impl("student_t_kl_csr", TORCH_BOX(&student_t_kl_csr));
  m.impl("alias_table", TORCH_BOX(&alias_table));
  m.impl("sample_edges", TORCH_BOX(&sample_edges));
  m.impl("subgraph", TORCH_BOX(&subgraph));
  m.impl("fuzzy_weights", TORCH_BOX(&fuzzy_weights));
  m.impl("symmetrize", TORCH_BOX(&symmetrize));
}

}  // namespace fastpdr::binding
