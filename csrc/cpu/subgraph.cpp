// CPU gather of a batch's own entries from a sparse matrix.
//
// Nearly all look-ups miss. A bitmap of 64 bits a row of the batch answers 63 of 64 of them without a branch that
// could be mispredicted; the few others go to the hash. Its slots hold 32-bit places instead of rows, so that both
// tables of a batch of 1000 are 24 KB and stay in the nearest cache. The rows of the matrix are far apart in memory;
// each is asked for some rows ahead of its use.
#include "fastpdr/subgraph.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace fastpdr {
namespace {

constexpr std::int64_t kChunkRows = 256;      // rows of one piece of work
constexpr std::int64_t kAhead = 8;            // rows between asking for one and reading it
constexpr std::int64_t kLineBytes = 64;       // of a cache line
constexpr std::int64_t kParallelRows = 2048;  // below, threads cost more than they save

// From row to place, by linear probing from a multiplicative hash; and whether a row may have one.
class Places {
 public:
  Places(const std::int64_t* rows, std::int64_t b) : rows_(rows) {
    int slot_bits = 3;
    while ((std::int64_t{1} << slot_bits) < 4 * b) ++slot_bits;
    shift_ = 64 - slot_bits - kBitsOfSlot;
    mask_ = (std::uint64_t{1} << slot_bits) - 1;
    slots_.assign(mask_ + 1, -1);
    bits_.assign(((mask_ + 1) << kBitsOfSlot) / 64, 0);
    for (std::int64_t s = 0; s < b && distinct_; ++s) insert(static_cast<std::int32_t>(s));
  }

  bool distinct() const { return distinct_; }

  // 1 if the row may have a place, 0 if it has none.
  std::int64_t candidate(std::int64_t row) const {
    const std::uint64_t bit = hash(row);
    return static_cast<std::int64_t>(bits_[bit / 64] >> bit % 64 & 1);
  }

  // The place of a row, -1 where it has none.
  std::int32_t find(std::int64_t row) const {
    std::uint64_t slot = hash(row) >> kBitsOfSlot;
    while (slots_[slot] >= 0 && rows_[slots_[slot]] != row) slot = (slot + 1) & mask_;
    return slots_[slot];
  }

 private:
  static constexpr int kBitsOfSlot = 4;  // log2 of the bits of the map that stand for one slot

  std::uint64_t hash(std::int64_t row) const {
    return static_cast<std::uint64_t>(row) * 0x9E3779B97F4A7C15u >> shift_;  // 2^64 / golden ratio
  }

  void insert(std::int32_t place) {
    const std::uint64_t bit = hash(rows_[place]);
    bits_[bit / 64] |= std::uint64_t{1} << bit % 64;
    std::uint64_t slot = bit >> kBitsOfSlot;
    for (; slots_[slot] >= 0; slot = (slot + 1) & mask_) {
      if (rows_[slots_[slot]] == rows_[place]) distinct_ = false;
    }
    slots_[slot] = place;
  }

  const std::int64_t* rows_;         // [b]
  std::vector<std::int32_t> slots_;  // [mask + 1], places or -1
  std::vector<std::uint64_t> bits_;  // [(mask + 1) / 4], a bit for every hash
  std::uint64_t mask_;
  int shift_;
  bool distinct_ = true;
};

template <typename Index, typename T>
struct Matrix {
  const Index* indptr;   // [n + 1]
  const Index* indices;  // [nnz]
  const T* values;       // [nnz]
  std::int64_t n;
};

template <typename Index, typename T>
void ask_for(const Matrix<Index, T>& matrix, std::int64_t row) {
  const std::int64_t begin = matrix.indptr[row], end = matrix.indptr[row + 1];
  for (std::int64_t i = begin; i < end; i += kLineBytes / static_cast<std::int64_t>(sizeof(Index)))
    __builtin_prefetch(matrix.indices + i);
}

// Moves the last entry of a short ascending row to where it belongs; equal columns keep their order.
template <typename T>
void sift_down(std::int64_t* columns, T* values, std::int64_t last) {
  const std::int64_t column = columns[last];
  const T value = values[last];
  for (; last > 0 && columns[last - 1] > column; --last) {
    columns[last] = columns[last - 1];
    values[last] = values[last - 1];
  }
  columns[last] = column;
  values[last] = value;
}

// Writes the found entries of one row and returns their number, or a negative number for a stray column. The numbers
// of the candidates stand in `columns` before they are looked up.
template <typename Index, typename T>
std::int64_t gather_row(const Matrix<Index, T>& matrix, const Places& places, std::int64_t row, std::int64_t* columns,
                        T* values) {
  std::int64_t candidates = 0, found = 0;
  bool inside = true;
  for (std::int64_t i = matrix.indptr[row]; i < matrix.indptr[row + 1]; ++i) {
    const std::int64_t column = matrix.indices[i];
    inside &= static_cast<std::uint64_t>(column) < static_cast<std::uint64_t>(matrix.n);
    columns[candidates] = i;
    candidates += places.candidate(column);
  }
  for (std::int64_t candidate = 0; candidate < candidates; ++candidate) {
    const std::int64_t i = columns[candidate];
    const std::int32_t place = places.find(matrix.indices[i]);
    if (place < 0) continue;
    columns[found] = place;
    values[found] = matrix.values[i];
    sift_down(columns, values, found++);
  }
  return inside ? found : kSubgraphStrayColumn;
}

// Chunks of rows write where all rows before them would end if every entry were found; then they move together.
template <typename Index, typename T>
std::int64_t gather(const Matrix<Index, T>& matrix, const std::int64_t* rows, std::int64_t b, std::int64_t* indptr_out,
                    std::int64_t* indices_out, T* values_out) {
  const Places places(rows, b);
  if (!places.distinct()) return kSubgraphRepeatedRow;
  const std::int64_t chunks = (b + kChunkRows - 1) / kChunkRows;
  std::vector<std::int64_t> begins(chunks + 1, 0);  // [chunks + 1], where a chunk begins to write
  for (std::int64_t s = 0; s < b; ++s)
    begins[s / kChunkRows + 1] += matrix.indptr[rows[s] + 1] - matrix.indptr[rows[s]];
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) begins[chunk + 1] += begins[chunk];
  std::vector<std::int64_t> counts(chunks, 0);  // [chunks], entries found

#pragma omp parallel for schedule(dynamic, 1) if (b > kParallelRows)
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    const std::int64_t end = std::min((chunk + 1) * kChunkRows, b);
    std::int64_t count = 0;
    for (std::int64_t s = chunk * kChunkRows; s < end && count >= 0; ++s) {
      if (s + kAhead < end) ask_for(matrix, rows[s + kAhead]);
      const std::int64_t at = begins[chunk] + count;
      const std::int64_t found = gather_row(matrix, places, rows[s], indices_out + at, values_out + at);
      indptr_out[s + 1] = found;
      count = found < 0 ? found : count + found;
    }
    counts[chunk] = count;
  }

  indptr_out[0] = 0;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    if (counts[chunk] < 0) return counts[chunk];
    const std::int64_t first = chunk * kChunkRows, at = indptr_out[first];
    std::memmove(indices_out + at, indices_out + begins[chunk], counts[chunk] * sizeof *indices_out);
    std::memmove(values_out + at, values_out + begins[chunk], counts[chunk] * sizeof *values_out);
    for (std::int64_t s = first; s < std::min(first + kChunkRows, b); ++s) indptr_out[s + 1] += indptr_out[s];
  }
  return indptr_out[b];
}

}  // namespace

template <typename Index, typename T>
std::int64_t subgraph(const Index* indptr, const Index* indices, const T* values, const std::int64_t* rows,
                      std::int64_t n, std::int64_t b, std::int64_t* indptr_out, std::int64_t* indices_out,
                      T* values_out) {
  return gather<Index, T>({indptr, indices, values, n}, rows, b, indptr_out, indices_out, values_out);
}

#define FASTPDR_SUBGRAPH(Index, T)                                                                                    \
  template FASTPDR_API std::int64_t subgraph(const Index*, const Index*, const T*, const std::int64_t*, std::int64_t, \
                                             std::int64_t, std::int64_t*, std::int64_t*, T*)
FASTPDR_SUBGRAPH(std::int32_t, float);
FASTPDR_SUBGRAPH(std::int32_t, double);
FASTPDR_SUBGRAPH(std::int64_t, float);
FASTPDR_SUBGRAPH(std::int64_t, double);

}  // namespace fastpdr
