// Gaussian similarities of given perplexity, for one or several perplexities at once.
//
// Method: van der Maaten & Hinton (2008), "Visualizing Data using t-SNE", section 2 (the search for the
// precision beta of every row); Lee, Peluffo-Ordonez & Verleysen (2015), "Multi-scale similarities in
// stochastic neighbour embedding" (the mean over perplexities).
// Precision policy: exponentials in float32, row sums in blocks of 1024 widened to float64; the entropy of
// a row that can reach a perplexity is within `tolerance` nats of its logarithm (not below 2e-6).
#pragma once

#include <cstdint>

#include "fastpdr/export.h"

namespace fastpdr {

// For every row i and perplexity K_h: beta_ih with H(p_ih) = log K_h, p_ih ~ exp(-beta_ih (d_ij - min_j d_ij));
// p is the mean of p_ih over h. Rows are independent and may be any real numbers.
//
// +inf marks an excluded entry, which gets exactly 0. A perplexity that the row cannot reach from below
// (K_h >= finite entries) gives the uniform row and beta 0; one that ties at the minimum exclude (K_h < tied
// entries) gives the uniform row over the tied entries and beta FLT_MAX. A row without finite entries is all
// zero; a row with NaN or -inf is all NaN.
FASTPDR_API void perplexity_search(const float* sqdist,         // [n, k]
                                   const double* perplexities,  // [h], each >= 1
                                   std::int64_t n, std::int64_t k, std::int64_t h,
                                   double tolerance,  // nats
                                   float* p,          // [n, k]
                                   float* beta);      // [n, h]

}  // namespace fastpdr
