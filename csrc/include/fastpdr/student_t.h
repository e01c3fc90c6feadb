// Kullback-Leibler divergence between similarities p and the Student-t similarities of a map, with its gradient.
//
// Method: van der Maaten & Hinton (2008), "Visualizing Data using t-SNE", for dof = 1; van der Maaten (2009),
// "Learning a Parametric Embedding by Preserving Local Structure", for any dof. With
//   t_ij = 1 + |y_i - y_j|^2 / dof,  w_ij = t_ij^(-(dof + 1) / 2),  Z = sum_{i != j} w_ij,  p normalised to sum 1:
//   loss = sum p log p - exaggeration * sum p log w + log Z
//   d loss / d y_i = (dof + 1) / dof * sum_j (exaggeration (p_ij + p_ji) - 2 w_ij / Z) (y_i - y_j) / t_ij.
// Exaggeration multiplies the attraction alone. The diagonal of p is ignored; p need not be symmetric.
// Normalised `by_row` (InfoNC-t-SNE: Damrich, Boehm, Hamprecht & Kobak 2023, "From t-SNE to UMAP with contrastive
// learning"), every row is compared with its own Z_i = sum_{k != i} w_ik, weighted by its mass r_i = sum_j p_ij:
//   loss = sum p log(p / r) - exaggeration * sum p log w + sum_i r_i log Z_i.
//
// Precision policy: per-pair arithmetic float32, sums widened to float64 every few tiles of pairs; the order
// of all sums depends on the sizes alone, so results are the same bits for any number of threads.
// Memory beyond the arguments: O(b c), never a [b, b] temporary.
#pragma once

#include <cstdint>

#include "fastpdr/export.h"

namespace fastpdr {

// The largest c; 2, 3 and 4 have kernels of their own.
constexpr std::int64_t kStudentTMaxComponents = 64;

// Dense p. Points must be closer than 1e9. b < 2 gives loss 0; a p without mass off its diagonal leaves log Z.
FASTPDR_API void student_t_kl(const float* y,  // [b, c]
                              const float* p,  // [b, b]
                              std::int64_t b, std::int64_t c, double dof, double exaggeration, bool by_row,
                              float* loss,   // []
                              float* grad);  // [b, c]

// Sparse p: row i holds values[indptr[i] .. indptr[i + 1]) in the columns indices[...].
FASTPDR_API void student_t_kl_csr(const float* y,               // [b, c]
                                  const std::int64_t* indptr,   // [b + 1]
                                  const std::int64_t* indices,  // [nnz], each in [0, b)
                                  const float* values,          // [nnz]
                                  std::int64_t b, std::int64_t c, double dof, double exaggeration, bool by_row,
                                  float* loss,   // []
                                  float* grad);  // [b, c]

}  // namespace fastpdr
