// UMAP's and LargeVis's loss of a map, with its gradient: attraction along given pairs, repulsion between all pairs.
//
// Method: McInnes, Healy & Melville (2018), "UMAP: Uniform Manifold Approximation and Projection"; Tang, Liu, Zhang &
// Mei (2016), "Visualizing Large-scale and High-dimensional Data" (LargeVis). With s = |y_i - y_j|^2,
//   q(s) = 1 / (1 + a s^b), or 1 / (2 + a s^b) with `keras`, the curve that umap-learn's Keras version trains,
//   v = targets / sum of targets:
//   loss = sum_ij v_ij (-log q(s_ij)) + repulsion * mean over i != j of (-log(1 - q(s_ij + eps))).
// LargeVis is a = b = 1. The diagonal of the targets is ignored; they need not be symmetric.
// The gradient of each pair's two logarithms with respect to y_i is shortened to length `clip` (0: left as it is).
//
// Precision policy: per-pair arithmetic float32, sums widened to float64 every few tiles of pairs; the order of all
// sums depends on the sizes alone, so results are the same bits for any number of threads. a s^b is held within 2^60.
// Memory beyond the arguments: O(b c), never a [b, b] temporary.
#pragma once

#include <cstdint>

#include "fastpdr/export.h"

namespace fastpdr {

// The largest c; 2, 3 and 4 have kernels of their own.
constexpr std::int64_t kPairsMaxComponents = 64;

struct PairCurve {
  double a, b;
  double repulsion;
  double eps;   // added to the squared distance in the repulsion
  double clip;  // 0: none
  bool keras;
};

// Row i of the targets holds values[indptr[i] .. indptr[i + 1]) in the columns indices[...]. Points must be closer
// than 1e9. b < 2 gives loss 0; targets without mass off the diagonal leave the repulsion.
FASTPDR_API void pair_loss(const float* y,               // [b, c]
                           const std::int64_t* indptr,   // [b + 1]
                           const std::int64_t* indices,  // [nnz], each in [0, b)
                           const float* values,          // [nnz]
                           std::int64_t b, std::int64_t c, const PairCurve& curve,
                           float* loss,   // []
                           float* grad);  // [b, c]

}  // namespace fastpdr
