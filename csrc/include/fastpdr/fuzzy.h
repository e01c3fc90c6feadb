// Fuzzy memberships of nearest neighbours: UMAP's smooth kNN distances.
//
// Method: McInnes, Healy & Melville (2018), "UMAP: Uniform Manifold Approximation and Projection for Dimension
// Reduction", section 3.1. For row i with m neighbours, rho_i the distance to the nearest (or one between two) and
//   w_ij = exp(-max(d_ij - rho_i, 0) / sigma_i),  sum_j w_ij = log2(m + 1):
// UMAP counts the point itself as a neighbour and leaves it out of the sum. sigma is at least 0.001 times the mean
// distance, itself included at distance 0: that of the row, or of all rows where rho = 0.
// Precision policy: float32; the sum is within 1e-6 of its target, relative.
#pragma once

#include <cstdint>

#include "fastpdr/export.h"

namespace fastpdr {

// Rows of `dist` ascend. +inf marks a neighbour that is missing: its weight is exactly 0 and it counts for nothing. A
// target that is reached whatever sigma (more neighbours within rho than it) takes the smallest sigma; a lone
// neighbour within rho takes 1, as UMAP does. A row with NaN or -inf is NaN.
FASTPDR_API void fuzzy_weights(const float* dist,  // [n, k]
                               std::int64_t n, std::int64_t k,
                               double local_connectivity,  // >= 0
                               float* weights,             // [n, k]
                               float* rho,                 // [n]
                               float* sigma);              // [n]

}  // namespace fastpdr
