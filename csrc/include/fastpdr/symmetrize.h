// A symmetric sparse matrix from directed nearest neighbours.
//
// Method: with A[i, indices[i, j]] = values[i, j], the result is sum_factor (A + A^T) + product_factor A o A^T: the
// fuzzy union of UMAP (McInnes, Healy & Melville 2018) with factors m and 1 - 2 m, the joint probabilities of t-SNE
// (van der Maaten & Hinton 2008) with 1 / 2n and 0. A counting sort transposes A, then the rows of A and A^T merge.
// Precision policy: arithmetic in float64, one rounding; entries (i, j) and (j, i) are the same bits.
#pragma once

#include <cstdint>
#include <memory>

#include "fastpdr/export.h"

namespace fastpdr {

constexpr std::int64_t kSymmetrizeMaxRows = (std::int64_t{1} << 31) - 1;  // columns are 32-bit on the way
constexpr std::int64_t kSymmetrizeStrayIndex = -1;                        // an index is not in [-1, n)
constexpr std::int64_t kSymmetrizeOwnIndex = -2;                          // a row names itself
constexpr std::int64_t kSymmetrizeRepeatedIndex = -3;                     // a row names another twice

// In two steps, because the size of the result is known only after the first. T is float or double. Between them it
// holds A^T, 4 bytes and a value for each neighbour, and reads the input again.
template <typename T>
class FASTPDR_API Symmetrization {
 public:
  // An index of -1 or a value of 0 is no neighbour. The input must outlive the last write().
  Symmetrization(const std::int64_t* indices,  // [n, k]
                 const T* values,              // [n, k]
                 std::int64_t n,               // <= kSymmetrizeMaxRows
                 std::int64_t k, double sum_factor, double product_factor);

  // Entries of the result, those equal to 0 left out; or one of the three above.
  std::int64_t entries() const { return entries_; }

  // Columns ascend within a row. Index is int32_t, where n and the entries are less than 2^31, or int64_t.
  template <typename Index>
  void write(Index* indptr,     // [n + 1]
             Index* indices,    // [entries]
             T* values) const;  // [entries]

 private:
  struct Entry {
    std::int32_t column;  // n behind the last entry of a row
    T value;
  };
  class Row;

  void transpose(std::uint32_t* counts, std::int64_t chunks, std::int64_t chunk_rows);

  const std::int64_t* indices_;  // [n, k]
  const T* values_;              // [n, k]
  std::int64_t n_, k_, entries_ = 0;
  double sum_factor_, product_factor_;
  std::unique_ptr<Entry[]> transposed_;             // [neighbours + n], rows of A^T, ascending
  std::unique_ptr<std::int64_t[]> begin_, indptr_;  // [n + 1] of transposed_, [n + 1] of the result
};

}  // namespace fastpdr
