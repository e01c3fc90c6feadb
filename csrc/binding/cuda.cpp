// The operators on CUDA tensors: checks, allocation, the launch on the current stream of the tensors' device.
//
// Nothing waits for the device but alias_table, symmetrize, and subgraph without a capacity, whose results have sizes
// that depend on the contents. The losses do not check the contents of a sparse matrix, as that would wait too: where
// they lead astray the loss is NaN.
#include "fastpdr/cuda.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <limits>
#include <tuple>
#include <type_traits>
#include <vector>

#include "arguments.h"
#include "current_stream.h"

namespace fastpdr::binding {
namespace {

void require_success(cudaError_t error, const char* op) {
  STD_TORCH_CHECK(error == cudaSuccess, "fastpdr::", op, " failed: CUDA reports '", cudaGetErrorString(error), "' (",
                  cudaGetErrorName(error), ")");
}

// Makes the device of a tensor the current one, also for the runtime that is linked into this module.
class Launch {
 public:
  Launch(const char* op, const Tensor& like)
      : op_(op), guard_(like.get_device_index()), stream_(current_stream(like.get_device_index())) {
    require_success(cudaSetDevice(like.get_device_index()), op);
  }

  cudaStream_t stream() const { return stream_; }
  void check(cudaError_t error) const { require_success(error, op_); }

 private:
  const char* op_;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

Tensor workspace(const char* op, const Tensor& like, std::size_t bytes) {
  return allocate(op, like, {static_cast<int64_t>(bytes)}, ScalarType::Byte);
}

// Waits for the device.
int64_t read_number(const Tensor& number) {
  const Tensor host = torch::stable::to(number, torch::stable::Device(torch::headeronly::DeviceType::CPU));
  return *read<int64_t>(host);
}

std::tuple<Tensor, Tensor> perplexity_search(const Tensor& sqdist_, std::vector<double> perplexities, double tol) {
  const Tensor sqdist = require(sqdist_, ScalarType::Float, 2, "perplexity_search: sqdist");
  const int64_t n = sqdist.size(0), k = sqdist.size(1), h = static_cast<int64_t>(perplexities.size());
  const Launch launch("perplexity_search", sqdist);
  Tensor p = allocate("perplexity_search", sqdist, {n, k}, ScalarType::Float);
  Tensor beta = allocate("perplexity_search", sqdist, {n, h}, ScalarType::Float);
  launch.check(cuda::perplexity_search(read<float>(sqdist), perplexities.data(), n, k, h, tol, write<float>(p),
                                       write<float>(beta), launch.stream()));
  return {p, beta};
}

std::tuple<Tensor, Tensor> student_t_kl(const Tensor& y, const Tensor& p, double dof, double exaggeration,
                                        bool by_row) {
  const Map map(y, kStudentTMaxComponents, "student_t_kl");
  const SquareP square(p, map, "student_t_kl");
  const Launch launch("student_t_kl", map.y);
  Tensor work = workspace("student_t_kl", map.y, cuda::student_t_kl_workspace(map.b, map.c, by_row));
  Tensor loss = allocate("student_t_kl", map.y, {}, ScalarType::Float);
  Tensor grad = allocate("student_t_kl", map.y, {map.b, map.c}, ScalarType::Float);
  launch.check(cuda::student_t_kl(read<float>(map.y), read<float>(square.p), map.b, map.c, dof, exaggeration, by_row,
                                  work.mutable_data_ptr(), write<float>(loss), write<float>(grad), launch.stream()));
  return {loss, grad};
}

std::tuple<Tensor, Tensor> student_t_kl_csr(const Tensor& y, const Tensor& indptr, const Tensor& indices,
                                            const Tensor& values, double dof, double exaggeration, bool by_row,
                                            std::optional<Tensor> points_) {
  const Map map(y, kStudentTMaxComponents, "student_t_kl_csr");
  const Csr p(indptr, indices, values, map, "student_t_kl_csr");
  const Points points(points_, map.y, "y", "student_t_kl_csr");
  const Launch launch("student_t_kl_csr", map.y);
  Tensor work = workspace("student_t_kl_csr", map.y, cuda::student_t_kl_csr_workspace(map.b, map.c, by_row));
  Tensor loss = allocate("student_t_kl_csr", map.y, {}, ScalarType::Float);
  Tensor grad = allocate("student_t_kl_csr", map.y, {map.b, map.c}, ScalarType::Float);
  launch.check(cuda::student_t_kl_csr(read<float>(map.y), read<int64_t>(p.indptr), read<int64_t>(p.indices),
                                      read<float>(p.values), points.data(), p.nnz, map.b, map.c, dof, exaggeration,
                                      by_row, work.mutable_data_ptr(), write<float>(loss), write<float>(grad),
                                      launch.stream()));
  return {loss, grad};
}

std::tuple<Tensor, Tensor> pair_loss(const Tensor& y, const Tensor& indptr, const Tensor& indices, const Tensor& values,
                                     double a, double b, double repulsion, double eps, double clip, bool keras,
                                     std::optional<Tensor> points_) {
  const Map map(y, kPairsMaxComponents, "pair_loss");
  const Csr targets(indptr, indices, values, map, "pair_loss");
  const Points points(points_, map.y, "y", "pair_loss");
  const Launch launch("pair_loss", map.y);
  Tensor work = workspace("pair_loss", map.y, cuda::pair_loss_workspace(map.b, map.c));
  Tensor loss = allocate("pair_loss", map.y, {}, ScalarType::Float);
  Tensor grad = allocate("pair_loss", map.y, {map.b, map.c}, ScalarType::Float);
  launch.check(cuda::pair_loss(read<float>(map.y), read<int64_t>(targets.indptr), read<int64_t>(targets.indices),
                               read<float>(targets.values), points.data(), targets.nnz, map.b, map.c,
                               PairCurve{a, b, repulsion, eps, clip, keras}, work.mutable_data_ptr(),
                               write<float>(loss), write<float>(grad), launch.stream()));
  return {loss, grad};
}

Tensor alias_table(const Tensor& weights) {
  const Weights checked(weights);
  const Tensor host = torch::stable::to(checked.weights, torch::stable::Device(torch::headeronly::DeviceType::CPU));
  return torch::stable::to(alias_table_on_host(host), weights.device());
}

Tensor sample_edges(const Tensor& table, int64_t n_edges, int64_t seed, int64_t step) {
  const Draws draws(table, n_edges, seed, step);
  const Launch launch("sample_edges", draws.table);
  Tensor edges = allocate("sample_edges", draws.table, {n_edges}, ScalarType::Long);
  launch.check(cuda::sample_edges(read<int64_t>(draws.table), draws.e, n_edges, seed, step, write<int64_t>(edges),
                                  launch.stream()));
  return edges;
}

template <typename Index, typename T>
std::tuple<Tensor, Tensor, Tensor> subgraph_of(const Subgraph& of, Index*, T*) {
  const Launch launch("subgraph", of.values);
  Tensor work = workspace("subgraph", of.indices, cuda::subgraph_workspace(of.n));
  Tensor indptr_out = allocate("subgraph", of.rows, {of.b + 1}, ScalarType::Long);
  Tensor entries = allocate("subgraph", of.rows, {}, ScalarType::Long);
  launch.check(cuda::subgraph_count(read<Index>(of.indptr), read<Index>(of.indices), read<int64_t>(of.rows),
                                    of.points.data(), of.n, of.nnz, of.b,
                                    of.capacity.value_or(std::numeric_limits<int64_t>::max()), work.mutable_data_ptr(),
                                    write<int64_t>(indptr_out), write<int64_t>(entries), launch.stream()));
  const int64_t count = of.capacity ? *of.capacity : read_number(entries);
  STD_TORCH_CHECK(count != cuda::kSubgraphStrayRow, "subgraph: rows must lie in [0, n)");
  STD_TORCH_CHECK(count != cuda::kSubgraphFallingIndptr, "subgraph: indptr must rise from 0 to the number of entries");
  require_subgraph_found(count);
  Tensor indices_out = allocate("subgraph", of.rows, {count}, ScalarType::Long);
  Tensor values_out = allocate("subgraph", of.values, {count}, of.values.scalar_type());
  launch.check(cuda::subgraph_fill(read<Index>(of.indptr), read<Index>(of.indices), read<T>(of.values),
                                   read<int64_t>(of.rows), of.n, of.nnz, of.b, work.const_data_ptr(),
                                   read<int64_t>(indptr_out), write<int64_t>(indices_out), write<T>(values_out),
                                   launch.stream()));
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
  const Launch launch("fuzzy_weights", dist);
  Tensor work = workspace("fuzzy_weights", dist, cuda::fuzzy_weights_workspace());
  Tensor weights = allocate("fuzzy_weights", dist, {n, k}, ScalarType::Float);
  Tensor rho = allocate("fuzzy_weights", dist, {n}, ScalarType::Float);
  Tensor sigma = allocate("fuzzy_weights", dist, {n}, ScalarType::Float);
  launch.check(cuda::fuzzy_weights(read<float>(dist), n, k, local_connectivity, work.mutable_data_ptr(),
                                   write<float>(weights), write<float>(rho), write<float>(sigma), launch.stream()));
  return {weights, rho, sigma};
}

template <typename T>
std::tuple<Tensor, Tensor, Tensor> symmetrize_of(const Neighbors& of, double sum_factor, double product_factor) {
  const Launch launch("symmetrize", of.values);
  Tensor work = workspace("symmetrize", of.values, cuda::symmetrize_workspace(of.n, of.k));
  Tensor ends = allocate("symmetrize", of.indices, {of.n + 1}, ScalarType::Long);
  Tensor entries = allocate("symmetrize", of.indices, {}, ScalarType::Long);
  launch.check(cuda::symmetrize_count(read<int64_t>(of.indices), read<T>(of.values), of.n, of.k, sum_factor,
                                      product_factor, work.mutable_data_ptr(), write<int64_t>(ends),
                                      write<int64_t>(entries), launch.stream()));
  const int64_t count = read_number(entries);
  require_symmetrized(count);
  const ScalarType index = index_type(of.n, count);
  Tensor indptr = allocate("symmetrize", of.indices, {of.n + 1}, index);
  Tensor columns = allocate("symmetrize", of.indices, {count}, index);
  Tensor merged = allocate("symmetrize", of.values, {count}, of.values.scalar_type());
  const auto fill = [&](auto* indptr_out, auto* columns_out) {
    launch.check(cuda::symmetrize_fill(read<T>(of.values), of.n, of.k, sum_factor, product_factor,
                                       work.const_data_ptr(), read<int64_t>(ends), indptr_out, columns_out,
                                       write<T>(merged), launch.stream()));
  };
  if (index == ScalarType::Int) {
    fill(write<int32_t>(indptr), write<int32_t>(columns));
  } else {
    fill(write<int64_t>(indptr), write<int64_t>(columns));
  }
  return {indptr, columns, merged};
}

std::tuple<Tensor, Tensor, Tensor> symmetrize(const Tensor& indices, const Tensor& values, double sum_factor,
                                              double product_factor) {
  const Neighbors of(indices, values);
  return of.values.scalar_type() == ScalarType::Double ? symmetrize_of<double>(of, sum_factor, product_factor)
                                                       : symmetrize_of<float>(of, sum_factor, product_factor);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> layer_norm_gelu(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                                           double eps) {
  LayerForward of(x, weight, bias);
  const Launch launch(of.kOp, of.layer.x);
  launch.check(with_rows_of(of.layer, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    return cuda::layer_norm_gelu(read<T>(of.layer.x), read<float>(of.layer.weight), read<float>(of.bias), of.layer.n,
                                 of.layer.d, eps, write<T>(of.y), write<T>(of.slope), write<float>(of.mean),
                                 write<float>(of.scale), launch.stream());
  }));
  return of.results();
}

std::tuple<Tensor, Tensor, Tensor> layer_norm_gelu_backward(const Tensor& grad, const Tensor& x, const Tensor& slope,
                                                            const Tensor& weight, const Tensor& mean,
                                                            const Tensor& scale) {
  LayerBackward of(grad, x, slope, weight, mean, scale);
  const Launch launch(of.kOp, of.layer.x);
  Tensor work = workspace(of.kOp, of.layer.x, cuda::layer_norm_gelu_backward_workspace(of.layer.n, of.layer.d));
  launch.check(with_rows_of(of.layer, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    return cuda::layer_norm_gelu_backward(read<T>(of.grad), read<T>(of.layer.x), read<T>(of.slope),
                                          read<float>(of.layer.weight), read<float>(of.mean), read<float>(of.scale),
                                          of.layer.n, of.layer.d, work.mutable_data_ptr(), write<T>(of.grad_x),
                                          write<float>(of.grad_weight), write<float>(of.grad_bias), launch.stream());
  }));
  return of.results();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastpdr, CUDA, m) {
  m.impl("perplexity_search", TORCH_BOX(&perplexity_search));
  m.impl("student_t_kl", TORCH_BOX(&student_t_kl));
  m.impl("student_t_kl_csr", TORCH_BOX(&student_t_kl_csr));
  m.impl("pair_loss", TORCH_BOX(&pair_loss));
  m.impl("alias_table", TORCH_BOX(&alias_table));
  m.impl("sample_edges", TORCH_BOX(&sample_edges));
  m.impl("subgraph", TORCH_BOX(&subgraph));
  m.impl("fuzzy_weights", TORCH_BOX(&fuzzy_weights));
  m.impl("symmetrize", TORCH_BOX(&symmetrize));
  m.impl("layer_norm_gelu", TORCH_BOX(&layer_norm_gelu));
  m.impl("layer_norm_gelu_backward", TORCH_BOX(&layer_norm_gelu_backward));
}

}  // namespace fastpdr::binding
