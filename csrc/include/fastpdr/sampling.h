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

// Beyond, neither e 2^32 fits in 63 bits nor an alias in 31.
constexpr std::int64_t kAliasMaxEntries = std::int64_t{1} << 31;

// A number of the table is threshold 2^31 + alias, 8 bytes: a threshold in [0, 2^32), the share of the entry that is
// its own, and the entry that has the rest. One that keeps its whole share is its own alias, whatever the threshold.
constexpr int kAliasBits = 31;

// The probability of every entry is its weight / sum within 2^-31 / e; a weight of 0 is never drawn. T is float or
// double. Takes no memory but the table.
template <typename T>
FASTPDR_API void alias_table(const T* weights,      // [e], finite, >= 0, not all 0
                             std::int64_t e,        // 1 <= e < kAliasMaxEntries
                             std::int64_t* table);  // [e]

// Draw t is a function of table, seed, step and t alone: Philox with the key `seed` and the counter (t, step) gives
// words r0..r3; entry floor((r0 + 2^32 r1) e / 2^64) is taken where r2 < its threshold, else its alias.
FASTPDR_API void sample_edges(const std::int64_t* table,  // [e]
                              std::int64_t e, std::int64_t n_edges, std::int64_t seed, std::int64_t step,
                              std::int64_t* edges);  // [n_edges]

}  // namespace fastpdr
