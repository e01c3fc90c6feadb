// CPU co-ranking: a row's distances, as non-negative floats, are ordered like the integers of their bits, in three
// passes of a radix sort. It is stable, so that equal distances stay in the order of their columns, and the last pass
// writes ranks where another sort would write the order.
#include "fastpdr/coranking.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace fastpdr {
namespace {

struct Entry {
  std::uint32_t key, column;
};

// Digits of a key of 31 bits.
constexpr int kBits[] = {11, 10, 10};
constexpr int kShift[] = {0, 11, 21};

template <int Digit>
std::uint32_t digit(std::uint32_t key) {
  return (key >> kShift[Digit]) & ((1u << kBits[Digit]) - 1);
}

struct Places {
  std::uint32_t first[1 << 11], second[1 << 10], third[1 << 10];
};

// Turns counts into where each begins.
template <std::size_t N>
void begin_at(std::uint32_t (&counts)[N]) {
  std::uint32_t begin = 0;
  for (std::uint32_t& count : counts) begin += std::exchange(count, begin);
}

struct Scratch {
  std::vector<Entry> entries, moved;
  std::vector<std::uint32_t> ranks_x, ranks_z, counts;
  Places places;

  explicit Scratch(std::int64_t n) : entries(n), moved(n), ranks_x(n), ranks_z(n), counts(n, 0) {}
};

void rank(const float* sqdist, std::int64_t n, Scratch& scratch, std::uint32_t* ranks) {
  Places& places = scratch.places;
  std::memset(&places, 0, sizeof places);
  Entry *const entries = scratch.entries.data(), *const moved = scratch.moved.data();
  for (std::int64_t j = 0; j < n; ++j) {
    std::uint32_t key;
    std::memcpy(&key, sqdist + j, sizeof key);
    key &= 0x7fffffffu;  // of -0
    entries[j] = {key, static_cast<std::uint32_t>(j)};
    ++places.first[digit<0>(key)];
    ++places.second[digit<1>(key)];
    ++places.third[digit<2>(key)];
  }
  begin_at(places.first);
  begin_at(places.second);
  begin_at(places.third);
  for (std::int64_t j = 0; j < n; ++j) moved[places.first[digit<0>(entries[j].key)]++] = entries[j];
  for (std::int64_t j = 0; j < n; ++j) entries[places.second[digit<1>(moved[j].key)]++] = moved[j];
  for (std::int64_t j = 0; j < n; ++j) ranks[entries[j].column] = ++places.third[digit<2>(entries[j].key)];
}

}  // namespace

void coranking(const float* sqdist_x, const float* sqdist_z, std::int64_t b, std::int64_t n, std::int64_t k,
               std::int64_t* counts, std::int64_t* intruding, std::int64_t* torn) {
  std::fill(counts, counts + n, 0);
  std::int64_t beyond_x = 0, beyond_z = 0;
#pragma omp parallel reduction(+ : beyond_x, beyond_z) if (b * n > 16384)
  {
    Scratch scratch(n);
#pragma omp for schedule(static)
    for (std::int64_t i = 0; i < b; ++i) {
      rank(sqdist_x + i * n, n, scratch, scratch.ranks_x.data());
      rank(sqdist_z + i * n, n, scratch, scratch.ranks_z.data());
      for (std::int64_t j = 0; j < n; ++j) {
        const std::int64_t x = scratch.ranks_x[j], z = scratch.ranks_z[j];
        ++scratch.counts[std::max(x, z) - 1];
        beyond_x += z <= k && x > k ? x - k : 0;
        beyond_z += x <= k && z > k ? z - k : 0;
      }
    }
#pragma omp critical
    for (std::int64_t j = 0; j < n; ++j) counts[j] += scratch.counts[j];
  }
  *intruding = beyond_x;
  *torn = beyond_z;
}

}  // namespace fastpdr
