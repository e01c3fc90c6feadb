// CPU symmetrisation: sort each row, transpose by counting, merge twice, once to count and once to write.
//
// Chunks of rows count and place their entries apart, so that the transposition runs in parallel; within a column
// entries stand in the order of rows whatever the chunks, so that the rows of A^T ascend without being sorted.
#include "fastpdr/symmetrize.h"

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

namespace fastpdr {
namespace {

constexpr std::int64_t kMaxChunks = 8;        // each has a count for every column
constexpr std::int64_t kMinChunkRows = 4096;  // below, the counts cost more than they save
constexpr std::int64_t kShortRow = 64;        // sorted by insertion
constexpr std::int64_t kParallelEntries = 32768;

// Sorts by column. Neighbours are few, and come by distance.
template <typename T>
void sort_by_column(std::int64_t* columns, T* values, std::int64_t count) {
  if (count > kShortRow) {
    std::vector<std::pair<std::int64_t, T>> entries(count);
    for (std::int64_t j = 0; j < count; ++j) entries[j] = {columns[j], values[j]};
    std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (std::int64_t j = 0; j < count; ++j) std::tie(columns[j], values[j]) = entries[j];
    return;
  }
  for (std::int64_t j = 1; j < count; ++j) {
    const std::int64_t column = columns[j];
    const T value = values[j];
    std::int64_t at = j;
    for (; at > 0 && columns[at - 1] > column; --at) {
      columns[at] = columns[at - 1];
      values[at] = values[at - 1];
    }
    columns[at] = column;
    values[at] = value;
  }
}

template <typename T>
std::unique_ptr<T[]> uninitialised(std::int64_t size) {
  return std::unique_ptr<T[]>(new T[size]);
}

}  // namespace

// Keeps the neighbours of a row, sorted; returns their number or what is wrong with them.
template <typename T>
std::int64_t Symmetrization<T>::sort_row(const std::int64_t* indices, const T* values, std::int64_t row) {
  std::int64_t* const columns = own_index_.get() + row * k_;  // [k]
  T* const kept = own_value_.get() + row * k_;                // [k]
  std::int64_t count = 0;
  for (std::int64_t j = 0; j < k_; ++j) {
    const std::int64_t column = indices[row * k_ + j];
    if (column < -1 || column >= n_) return kSymmetrizeStrayIndex;
    if (column == -1 || values[row * k_ + j] == T{0}) continue;
    if (column == row) return kSymmetrizeOwnIndex;
    columns[count] = column;
    kept[count++] = values[row * k_ + j];
  }
  sort_by_column(columns, kept, count);
  for (std::int64_t j = 1; j < count; ++j) {
    if (columns[j] == columns[j - 1]) return kSymmetrizeRepeatedIndex;
  }
  return count;
}

// `counts` [chunks, n] holds how often each chunk names a column; it becomes where the chunk's next entry goes.
template <typename T>
void Symmetrization<T>::transpose(std::int64_t* counts, std::int64_t chunks, std::int64_t chunk_rows) {
  std::int64_t total = 0;
  for (std::int64_t column = 0; column < n_; ++column) {
    transposed_begin_[column] = total;
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
      total += std::exchange(counts[chunk * n_ + column], total);
    }
  }
  transposed_begin_[n_] = total;
  transposed_index_ = uninitialised<std::int64_t>(total);
  transposed_value_ = uninitialised<T>(total);
#pragma omp parallel for schedule(dynamic, 1) if (n_ * k_ > kParallelEntries)
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    const std::int64_t end = std::min((chunk + 1) * chunk_rows, n_);
    for (std::int64_t row = chunk * chunk_rows; row < end; ++row) {
      for (std::int64_t j = row * k_; j < row * k_ + own_count_[row]; ++j) {
        const std::int64_t at = counts[chunk * n_ + own_index_[j]]++;
        transposed_index_[at] = row;
        transposed_value_[at] = own_value_[j];
      }
    }
  }
}

// Merges row `row` of A and of A^T; writes unless `indices` is null, and returns the number of entries. Not inlined:
// both passes must round alike, or an entry that is 0 in one may not be in the other.
template <typename T>
__attribute__((noinline)) std::int64_t Symmetrization<T>::merge_row(std::int64_t row, std::int64_t* indices,
                                                                    T* values) const {
  std::int64_t own = row * k_, other = transposed_begin_[row], count = 0;
  const std::int64_t own_end = own + own_count_[row], other_end = transposed_begin_[row + 1];
  while (own < own_end || other < other_end) {
    const std::int64_t own_column = own < own_end ? own_index_[own] : n_;
    const std::int64_t other_column = other < other_end ? transposed_index_[other] : n_;
    const std::int64_t column = std::min(own_column, other_column);
    const double a = own_column == column ? own_value_[own++] : T{0};
    const double b = other_column == column ? transposed_value_[other++] : T{0};
    const T value = static_cast<T>(sum_factor_ * (a + b) + product_factor_ * (a * b));
    if (value == T{0}) continue;
    if (indices != nullptr) {
      indices[count] = column;
      values[count] = value;
    }
    ++count;
  }
  return count;
}

template <typename T>
Symmetrization<T>::Symmetrization(const std::int64_t* indices, const T* values, std::int64_t n, std::int64_t k,
                                  double sum_factor, double product_factor)
    : n_(n),
      k_(k),
      sum_factor_(sum_factor),
      product_factor_(product_factor),
      own_count_(uninitialised<std::int64_t>(n)),
      own_index_(uninitialised<std::int64_t>(n * k)),
      own_value_(uninitialised<T>(n * k)),
      transposed_begin_(uninitialised<std::int64_t>(n + 1)),
      indptr_(uninitialised<std::int64_t>(n + 1)) {
  const std::int64_t chunks = std::clamp<std::int64_t>(n / kMinChunkRows, 1, kMaxChunks);
  const std::int64_t chunk_rows = (n + chunks - 1) / chunks;
  std::vector<std::int64_t> counts(chunks * n, 0), wrong(chunks, 0);
#pragma omp parallel for schedule(dynamic, 1) if (n * k > kParallelEntries)
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    const std::int64_t end = std::min((chunk + 1) * chunk_rows, n);
    for (std::int64_t row = chunk * chunk_rows; row < end && wrong[chunk] == 0; ++row) {
      own_count_[row] = sort_row(indices, values, row);
      wrong[chunk] = std::min<std::int64_t>(own_count_[row], 0);
      for (std::int64_t j = 0; j < own_count_[row]; ++j) ++counts[chunk * n + own_index_[row * k + j]];
    }
  }
  for (const std::int64_t error : wrong) {
    if (error < 0) {
      entries_ = error;
      return;
    }
  }
  transpose(counts.data(), chunks, chunk_rows);
  indptr_[0] = 0;
#pragma omp parallel for schedule(dynamic, 256) if (n * k > kParallelEntries)
  for (std::int64_t row = 0; row < n; ++row) indptr_[row + 1] = merge_row(row, nullptr, nullptr);
  for (std::int64_t row = 0; row < n; ++row) indptr_[row + 1] += indptr_[row];
  entries_ = indptr_[n];
}

template <typename T>
void Symmetrization<T>::write(std::int64_t* indptr, std::int64_t* indices, T* values) const {
  std::copy_n(indptr_.get(), n_ + 1, indptr);
#pragma omp parallel for schedule(dynamic, 256) if (n_ * k_ > kParallelEntries)
  for (std::int64_t row = 0; row < n_; ++row) merge_row(row, indices + indptr_[row], values + indptr_[row]);
}

template class Symmetrization<float>;
template class Symmetrization<double>;

}  // namespace fastpdr
