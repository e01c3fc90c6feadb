// Sums over the co-ranking of two spaces, from which the measures of a map's neighbourhoods are made.
//
// Lee & Verleysen (2009), "Quality assessment of dimensionality reduction: rank-based criteria"; Venna & Kaski (2001),
// "Neighborhood preservation in nonlinear projection methods". Ranks and sums are integers: exact.
#pragma once

#include <cstdint>

#include "fastpdr/export.h"

namespace fastpdr {

// For each of b anchors all n columns are ranked from 1 by their distance in either space, those at equal distance by
// number. Distances are >= 0, inf for the anchor itself. counts[K - 1] is the number of columns whose larger rank is K;
// intruding the sum of max(0, rank_x - k) over the k nearest in z; torn that of max(0, rank_z - k) over the k nearest
// in x. n < 2^31.
FASTPDR_API void coranking(const float* sqdist_x,  // [b, n]
                           const float* sqdist_z,  // [b, n]
                           std::int64_t b, std::int64_t n, std::int64_t k,
                           std::int64_t* counts,     // [n]
                           std::int64_t* intruding,  // []
                           std::int64_t* torn);      // []

}  // namespace fastpdr
