// The operators on CPU tensors: checks, allocation, the kernel.
#include <torch/csrc/stable/library.h>

#include <tuple>
#include <vector>

#include "fastpdr/pairs.h"
#include "fastpdr/perplexity.h"
#include "fastpdr/student_t.h"
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

void require_map(const Tensor& y, int64_t most, const char* op) {
  STD_TORCH_CHECK(y.size(1) >= 1 && y.size(1) <= most, op, ": y has too many columns");
}

std::tuple<Tensor, Tensor> student_t_kl(const Tensor& y_, const Tensor& p_, double dof, double exaggeration,
                                        bool by_row) {
  const Tensor y = require(y_, ScalarType::Float, 2, "student_t_kl: y");
  const Tensor p = require(p_, ScalarType::Float, 2, "student_t_kl: p");
  require_map(y, kStudentTMaxComponents, "student_t_kl");
  const int64_t b = y.size(0), c = y.size(1);
  STD_TORCH_CHECK(p.size(0) == b && p.size(1) == b, "student_t_kl: p must be [b, b]");
  Tensor loss = torch::stable::new_empty(y, {});
  Tensor grad = torch::stable::new_empty(y, {b, c});
  fastpdr::student_t_kl(read<float>(y), read<float>(p), b, c, dof, exaggeration, by_row, write<float>(loss),
                        write<float>(grad));
  return {loss, grad};
}

// A sparse [b, b] whose entries can be trusted: a stray index would be written through.
struct Csr {
  Tensor indptr, indices, values;

  Csr(const Tensor& indptr_, const Tensor& indices_, const Tensor& values_, int64_t b)
      : indptr(require(indptr_, ScalarType::Long, 1, "indptr")),
        indices(require(indices_, ScalarType::Long, 1, "indices")),
        values(require(values_, ScalarType::Float, 1, "values")) {
    const int64_t nnz = values.size(0);
    STD_TORCH_CHECK(indptr.size(0) == b + 1, "indptr must be [b + 1]");
    STD_TORCH_CHECK(indices.size(0) == nnz, "indices and values must be of one length");
    const int64_t *starts = read<int64_t>(indptr), *columns = read<int64_t>(indices);
    bool rises = starts[0] == 0 && starts[b] == nnz, inside = true;
    for (int64_t i = 0; i < b; ++i) rises &= starts[i] <= starts[i + 1];
    for (int64_t e = 0; e < nnz; ++e) inside &= static_cast<uint64_t>(columns[e]) < static_cast<uint64_t>(b);
    STD_TORCH_CHECK(rises, "indptr must rise from 0 to the number of entries");
    STD_TORCH_CHECK(inside, "indices must lie in [0, b)");
  }
};

std::tuple<Tensor, Tensor> student_t_kl_csr(const Tensor& y_, const Tensor& indptr, const Tensor& indices,
                                            const Tensor& values, double dof, double exaggeration, bool by_row) {
  const Tensor y = require(y_, ScalarType::Float, 2, "student_t_kl_csr: y");
  require_map(y, kStudentTMaxComponents, "student_t_kl_csr");
  const int64_t b = y.size(0), c = y.size(1);
  const Csr p(indptr, indices, values, b);
  Tensor loss = torch::stable::new_empty(y, {});
  Tensor grad = torch::stable::new_empty(y, {b, c});
  fastpdr::student_t_kl_csr(read<float>(y), read<int64_t>(p.indptr), read<int64_t>(p.indices), read<float>(p.values), b,
                            c, dof, exaggeration, by_row, write<float>(loss), write<float>(grad));
  return {loss, grad};
}

std::tuple<Tensor, Tensor> pair_loss(const Tensor& y_, const Tensor& indptr, const Tensor& indices,
                                     const Tensor& values, double a, double b_, double repulsion, double eps,
                                     double clip, bool keras) {
  const Tensor y = require(y_, ScalarType::Float, 2, "pair_loss: y");
  require_map(y, kPairsMaxComponents, "pair_loss");
  const int64_t b = y.size(0), c = y.size(1);
  const Csr targets(indptr, indices, values, b);
  Tensor loss = torch::stable::new_empty(y, {});
  Tensor grad = torch::stable::new_empty(y, {b, c});
  fastpdr::pair_loss(read<float>(y), read<int64_t>(targets.indptr), read<int64_t>(targets.indices),
                     read<float>(targets.values), b, c, PairCurve{a, b_, repulsion, eps, clip, keras},
                     write<float>(loss), write<float>(grad));
  return {loss, grad};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastpdr, CPU, m) {
  m.impl("perplexity_search", TORCH_BOX(&perplexity_search));
  m.impl("student_t_kl", TORCH_BOX(&student_t_kl));
  m.impl("student_t_kl_csr", TORCH_BOX(&student_t_kl_csr));
  m.impl("pair_loss", TORCH_BOX(&pair_loss));
}

}  // namespace fastpdr::binding
