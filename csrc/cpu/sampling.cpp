// CPU alias table in five passes over the entries, in place, and its draws in blocks.
//
// The table is far larger than the caches, so a draw is one cache miss: the rows of a whole block are computed and
// asked for before the first of them is read. Philox runs on W draws at a time; its ten rounds are some 2 ns a draw.
#include "fastpdr/sampling.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "simd.h"

namespace fastpdr {
namespace {

constexpr std::int64_t kOne = std::int64_t{1} << 32;  // the mean weight in units
constexpr std::int64_t kSumBlock = 1024;              // weights summed before their sum is added to the total
constexpr std::int64_t kDraws = 128;                  // draws of a block
constexpr int kRounds = 10;

// Weights relative to the largest, so that no sum overflows, in blocks, so that its error is small: at most
// (kSumBlock + e / kSumBlock) / 2^53 of it.
template <typename T>
double relative_total(const T* weights, std::int64_t e, double largest) {
  double total = 0.0;
  for (std::int64_t begin = 0; begin < e; begin += kSumBlock) {
    const std::int64_t end = std::min(begin + kSumBlock, e);
    double block = 0.0;
    for (std::int64_t i = begin; i < end; ++i) block += static_cast<double>(weights[i]) / largest;
    total += block;
  }
  return total;
}

// Whole units of every entry, with sum e kOne. The factor is too small by what the total can be wrong, so that rounding
// down leaves units over; each positive weight gets an equal share, the first ones the rest.
template <typename T>
void quantise(const T* weights, std::int64_t e, std::int64_t* table) {
  const auto largest = static_cast<double>(*std::max_element(weights, weights + e));
  const double slack = 2.0 * (kSumBlock + e / kSumBlock + 4) / 9007199254740992.0;  // 2^53
  const double total = relative_total(weights, e, largest) * (1.0 + slack);
  const double factor = static_cast<double>(e) * kOne / total;
  std::int64_t left = e * kOne, positive = 0;
  for (std::int64_t i = 0; i < e; ++i) {
    const double relative = static_cast<double>(weights[i]) / largest;
    const auto units = static_cast<std::int64_t>(relative * factor);
    table[i] = units;
    left -= units;
    positive += relative > 0.0;
  }
  const std::int64_t share = left / positive;
  std::int64_t rest = left % positive;
  for (std::int64_t i = 0; i < e; ++i) {
    if (!(static_cast<double>(weights[i]) / largest > 0.0)) continue;
    table[i] += share + (rest > 0);
    --rest;
  }
}

// Units that are still to be dealt with are not negative, finished entries are: one array holds both.
std::int64_t finished(std::int64_t threshold, std::int64_t alias) {
  return INT64_MIN | std::min(threshold, kOne - 1) << kAliasBits | alias;
}

// The next entry at or after `i` with kOne units or more that is not finished.
std::int64_t next_heavy(const std::int64_t* table, std::int64_t e, std::int64_t i) {
  while (i < e && table[i] < kOne) ++i;
  return i;
}

// Light entries in their order take what they lack from the heavy one that is open. When it has no more than kOne
// left it is closed, and takes what it lacks itself from the next. Units add up, so the last one ends with kOne.
void pair_up(std::int64_t e, std::int64_t* table) {
  std::int64_t heavy = next_heavy(table, e, 0);
  std::int64_t left = table[heavy];
  const auto close = [&] {
    const std::int64_t closed = heavy, lacking = kOne - left;
    heavy = next_heavy(table, e, heavy + 1);
    table[closed] = finished(left, lacking > 0 ? heavy : closed);
    if (heavy < e) left = table[heavy] - lacking;
  };
  for (std::int64_t i = 0; i < e; ++i) {
    const std::int64_t units = table[i];
    if (units < 0 || units >= kOne) continue;  // closed, or heavy
    while (left <= kOne) close();
    table[i] = finished(units, heavy);
    left -= kOne - units;
  }
  while (heavy < e) close();
  for (std::int64_t i = 0; i < e; ++i) table[i] &= INT64_MAX;
}

// Ten rounds of Philox4x32 on the counters (first + l, step), l < kDraws; r3 is not used.
struct Words {
  std::uint32_t r0[kDraws], r1[kDraws], r2[kDraws];
};

template <int W>
FASTPDR_INLINE void philox_body(std::uint64_t first, std::uint64_t seed, std::uint64_t step, Words& words) {
  for (std::int64_t l = 0; l < kDraws; ++l) {
    const std::uint64_t draw = first + static_cast<std::uint64_t>(l);
    auto c0 = static_cast<std::uint32_t>(draw), c1 = static_cast<std::uint32_t>(draw >> 32);
    auto c2 = static_cast<std::uint32_t>(step), c3 = static_cast<std::uint32_t>(step >> 32);
    auto k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
    for (int round = 0; round < kRounds; ++round) {
      const std::uint64_t even = std::uint64_t{0xD2511F53} * c0, odd = std::uint64_t{0xCD9E8D57} * c2;
      c0 = static_cast<std::uint32_t>(odd >> 32) ^ c1 ^ k0;
      c1 = static_cast<std::uint32_t>(odd);
      c2 = static_cast<std::uint32_t>(even >> 32) ^ c3 ^ k1;
      c3 = static_cast<std::uint32_t>(even);
      k0 += 0x9E3779B9;
      k1 += 0xBB67AE85;
    }
    words.r0[l] = c0;
    words.r1[l] = c1;
    words.r2[l] = c2;
  }
}

FASTPDR_MULTIVERSION(philox, (std::uint64_t first, std::uint64_t seed, std::uint64_t step, Words& words),
                     (first, seed, step, words))

// floor(r e / 2^64): uniform on [0, e) to within e / 2^64.
FASTPDR_INLINE std::int64_t scale(std::uint64_t r, std::int64_t e) {
  __extension__ typedef unsigned __int128 Wide;
  return static_cast<std::int64_t>(static_cast<Wide>(r) * static_cast<std::uint64_t>(e) >> 64);
}

void draw_block(const std::int64_t* table, std::int64_t e, std::int64_t first, std::int64_t count, std::int64_t seed,
                std::int64_t step, std::int64_t* edges) {
  Words words;
  philox(first, seed, step, words);
  for (std::int64_t l = 0; l < count; ++l) {
    edges[l] = scale(words.r0[l] | std::uint64_t{words.r1[l]} << 32, e);
    __builtin_prefetch(table + edges[l]);
  }
  for (std::int64_t l = 0; l < count; ++l) {
    const std::int64_t entry = table[edges[l]];
    edges[l] = words.r2[l] < entry >> kAliasBits ? edges[l] : entry & (kAliasMaxEntries - 1);
  }
}

}  // namespace

template <typename T>
void alias_table(const T* weights, std::int64_t e, std::int64_t* table) {
  quantise(weights, e, table);
  pair_up(e, table);
}

template FASTPDR_API void alias_table<float>(const float*, std::int64_t, std::int64_t*);
template FASTPDR_API void alias_table<double>(const double*, std::int64_t, std::int64_t*);

void sample_edges(const std::int64_t* table, std::int64_t e, std::int64_t n_edges, std::int64_t seed, std::int64_t step,
                  std::int64_t* edges) {
#pragma omp parallel for schedule(static) if (n_edges > 8192)
  for (std::int64_t first = 0; first < n_edges; first += kDraws) {
    draw_block(table, e, first, std::min(kDraws, n_edges - first), seed, step, edges + first);
  }
}

}  // namespace fastpdr
