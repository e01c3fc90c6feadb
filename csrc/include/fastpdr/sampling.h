// Draws from a discrete distribution: an alias table, and a counter-based generator to draw with.
//
// Method: Walker (1977), "An efficient method for generating discrete random variables with general distributions",
// built by the sweep of Hübschle-Schneider & Sanders (2022), "Parallel weighted random sampling"; Salmon, Moraes, Dror
// & Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3" (Philox4x32-10).
// Precision policy: weights are rounded to whole units of their mean / 2^32 first, with sum e 2^32 exactly; all that
// follows is integer arithmetic, so the table holds these units to the last one, and every implementation the same.
#pragma once

#include <cstdint>

#include "fastpdr/export.h"

namespace fastpdr {

// Beyond, e 2^32 does not fit in 63 bits. Drawing has no such bound.
constexpr std::int64_t kAliasMaxEntries = std::int64_t{1} << 31;

// Row i of the table: a threshold in [0, 2^32], the share of entry i that is its own, and the entry that has the rest.
// The probability of every entry is its weight / sum within 2^-31 / e; a weight of 0 is never drawn.
FASTPDR_API void alias_table(const double* weights,  // [e], finite, >= 0, not all 0
                             std::int64_t e,         // 1 <= e < kAliasMaxEntries
                             std::int64_t* table);   // [e, 2]

// Draw t is a function of table, seed, step and t alone: Philox with the key `seed` and the counter (t, step) gives
// words r0..r3; row floor((r0 + 2^32 r1) e / 2^64) of the table is taken where r2 < threshold, else its alias.
FASTPDR_API void sample_edges(const std::int64_t* table,  // [e, 2]
                              std::int64_t e, std::int64_t n_edges, std::int64_t seed, std::int64_t step,
                              std::int64_t* edges);  // [n_edges]

}  // namespace fastpdr
