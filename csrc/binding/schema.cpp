// The operators of torch.ops.fastpdr: their signatures, once for all devices.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(fastpdr, m) {
  m.def("perplexity_search(Tensor sqdist, float[] perplexities, float tol) -> (Tensor p, Tensor beta)");
  m.def("student_t_kl(Tensor y, Tensor p, float dof, float exaggeration, bool by_row) -> (Tensor loss, Tensor grad)");
  m.def(
      "student_t_kl_csr(Tensor y, Tensor indptr, Tensor indices, Tensor values, float dof, float exaggeration, "
      "bool by_row, Tensor? points=None) -> (Tensor loss, Tensor grad)");
  m.def(
      "pair_loss(Tensor y, Tensor indptr, Tensor indices, Tensor values, float a, float b, float repulsion, float eps, "
      "float clip, bool keras, Tensor? points=None) -> (Tensor loss, Tensor grad)");
  m.def("alias_table(Tensor weights) -> Tensor");
  m.def("sample_edges(Tensor table, int n_edges, int seed, int step) -> Tensor");
  m.def(
      "subgraph(Tensor indptr, Tensor indices, Tensor values, Tensor rows, Tensor? points=None, int? capacity=None) "
      "-> (Tensor indptr, Tensor indices, Tensor values)");
  m.def("fuzzy_weights(Tensor dist, float local_connectivity) -> (Tensor weights, Tensor rho, Tensor sigma)");
  m.def(
      "symmetrize(Tensor indices, Tensor values, float sum_factor, float product_factor) "
      "-> (Tensor indptr, Tensor indices, Tensor values)");
  m.def(
      "layer_norm_gelu(Tensor x, Tensor weight, Tensor bias, float eps) "
      "-> (Tensor y, Tensor slope, Tensor mean, Tensor scale)");
  m.def(
      "layer_norm_gelu_backward(Tensor grad, Tensor x, Tensor slope, Tensor weight, Tensor mean, Tensor scale) "
      "-> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)");
  m.def("coranking(Tensor sqdist_x, Tensor sqdist_z, int k) -> (Tensor counts, Tensor intruding, Tensor torn)");
}
