// The entries of a sparse matrix among some of its rows: P[rows][:, rows], renumbered.
//
// Method: an open-addressing hash from row to its place in `rows`, of four slots or more a row, behind a bitmap; the
// columns of these rows are looked up there. Time and memory are those of the rows read, whatever the size of the
// matrix. Precision policy: values are copied.
#pragma once

#include <cstdint>

#include "fastpdr/export.h"

namespace fastpdr {

constexpr std::int64_t kSubgraphMaxRows = (std::int64_t{1} << 29) - 1;  // places are 32-bit
constexpr std::int64_t kSubgraphRepeatedRow = -1;                       // `rows` are not distinct
constexpr std::int64_t kSubgraphStrayColumn = -2;                       // a column of these rows is not in [0, n)

// Entry (s, t) of the result is entry (rows[s], rows[t]) of the matrix; columns ascend within a row. Returns the number
// of entries, or one of the two above. The outputs hold as many entries as the rows have in all. Index is int32_t or
// int64_t, T float or double.
template <typename Index, typename T>
FASTPDR_API std::int64_t subgraph(const Index* indptr,       // [n + 1]
                                  const Index* indices,      // [nnz]
                                  const T* values,           // [nnz]
                                  const std::int64_t* rows,  // [b], each in [0, n)
                                  std::int64_t n, std::int64_t b,
                                  std::int64_t* indptr_out,   // [b + 1]
                                  std::int64_t* indices_out,  // [sum of the rows' entries]
                                  T* values_out);             // [sum of the rows' entries]

}  // namespace fastpdr
