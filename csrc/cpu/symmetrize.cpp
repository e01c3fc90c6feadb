// CPU symmetrisation: sort each row, transpose by counting, merge twice, once to count and once to write.
//
// What costs time is branches that no one can predict and memory touched for the first time. So short rows are sorted
// by rank, in vectors, again whenever they are needed: that is cheaper than to keep them; a row of A and one of A^T
// merge without a branch on which comes next, up to an entry behind the last; and entries are 8 bytes on the way.
// Chunks of rows, no more than threads, count and place their entries apart, so that the transposition runs in
// parallel; within a column entries stand in the order of rows, whatever the chunks.
#include "fastpdr/symmetrize.h"

#ifdef _OPENMP
#include <omp.h>
#endif

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

namespace fastpdr {
namespace {

constexpr std::int64_t kMaxChunks = 8;        // each has a count for every column
constexpr std::int64_t kMinChunkRows = 4096;  // below, the counts cost more than they save
constexpr std::int64_t kShortRow = 64;        // sorted by insertion
constexpr std::int64_t kParallelEntries = 32768;

// The place of each column among all of a short row; two that are equal have the same, and the sum is too small.
bool rank(const std::int32_t* columns, std::int32_t count, std::int32_t* places) {
  std::int32_t total = 0;
  for (std::int32_t j = 0; j < count; ++j) places[j] = 0;
  for (std::int32_t i = 0; i < count; ++i) {
    const std::int32_t column = columns[i];
    for (std::int32_t j = 0; j < count; ++j) places[j] += column < columns[j];
  }
  for (std::int32_t j = 0; j < count; ++j) total += places[j];
  return total == count * (count - 1) / 2;
}

// 1 for true. What the compiler does not see through it does not turn into a branch.
inline std::int64_t opaque(bool condition) {
  std::int64_t number = condition;
  __asm__("" : "+r"(number));
  return number;
}

// The value where `keep` is 1, 0 where it is 0.
template <typename T>
T masked(T value, std::int64_t keep) {
  std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t> bits;
  static_assert(sizeof bits == sizeof value);
  std::memcpy(&bits, &value, sizeof bits);
  bits &= -static_cast<decltype(bits)>(keep);
  std::memcpy(&value, &bits, sizeof bits);
  return value;
}

template <typename T>
std::unique_ptr<T[]> uninitialised(std::int64_t size) {
  return std::unique_ptr<T[]>(new T[size]);
}

std::int64_t threads() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

}  // namespace

// Room for one row of A at a time, sorted.
template <typename T>
class Symmetrization<T>::Row {
 public:
  explicit Row(const Symmetrization& of) : of_(of), kept_(uninitialised<Entry>(of.k_ + 1)) {}

  // Keeps the neighbours of a row; returns their number or what is wrong with them.
  std::int64_t sort(std::int64_t row);

  // Merges the row of A that was sorted and that of A^T; writes unless `indices` is null, and returns the number of
  // entries. Not inlined: both passes must round alike, or an entry that is 0 in one may not be in the other.
  template <typename Index>
  std::int64_t merge(std::int64_t row, Index* indices, T* values) const;

  const Entry* entries() const { return kept_.get(); }

 private:
  const Symmetrization& of_;
  std::unique_ptr<Entry[]> kept_;  // [k + 1]
};

template <typename T>
std::int64_t Symmetrization<T>::Row::sort(std::int64_t row) {
  Entry* const kept = kept_.get();
  const std::int64_t n = of_.n_, k = of_.k_;
  std::int64_t count = 0;
  bool inside = true, other = true;
  for (std::int64_t j = 0; j < k; ++j) {
    const std::int64_t column = of_.indices_[row * k + j];
    const T value = of_.values_[row * k + j];
    const bool neighbor = column >= 0 && value != T{0};
    inside &= column >= -1 && column < n;
    other &= !neighbor || column != row;
    kept[count] = {static_cast<std::int32_t>(column), value};
    count += neighbor;
  }
  if (!inside) return kSymmetrizeStrayIndex;
  if (!other) return kSymmetrizeOwnIndex;
  bool distinct = true;
  if (count <= kShortRow) {
    std::int32_t columns[kShortRow], places[kShortRow];
    T unsorted[kShortRow];
    for (std::int64_t j = 0; j < count; ++j) {
      columns[j] = kept[j].column;
      unsorted[j] = kept[j].value;
    }
    distinct = rank(columns, static_cast<std::int32_t>(count), places);
    for (std::int64_t j = 0; j < count; ++j) kept[places[j]] = {columns[j], unsorted[j]};
  } else {
    std::sort(kept, kept + count, [](const Entry& a, const Entry& b) { return a.column < b.column; });
    for (std::int64_t j = 1; j < count; ++j) distinct &= kept[j].column != kept[j - 1].column;
  }
  kept[count] = {static_cast<std::int32_t>(n), T{0}};
  return distinct ? count : kSymmetrizeRepeatedIndex;
}

template <typename T>
template <typename Index>
__attribute__((noinline)) std::int64_t Symmetrization<T>::Row::merge(std::int64_t row, Index* indices,
                                                                     T* values) const {
  const Entry* own = kept_.get();
  const Entry* other = of_.transposed_.get() + of_.begin_[row];
  const auto last = static_cast<std::int32_t>(of_.n_);
  std::int64_t count = 0;
  for (;;) {
    const std::int32_t column = std::min(own->column, other->column);
    if (column == last) return count;
    const std::int64_t in_own = opaque(own->column == column), in_other = opaque(other->column == column);
    const double a = masked(own->value, in_own), b = masked(other->value, in_other);
    own += in_own;
    other += in_other;
    const T value = static_cast<T>(of_.sum_factor_ * (a + b) + of_.product_factor_ * (a * b));
    if (value == T{0}) continue;
    if (indices != nullptr) {
      indices[count] = static_cast<Index>(column);
      values[count] = value;
    }
    ++count;
  }
}

// `counts` [chunks, n] holds how often each chunk names a column; it becomes where in the column its next entry goes.
template <typename T>
void Symmetrization<T>::transpose(std::uint32_t* counts, std::int64_t chunks, std::int64_t chunk_rows) {
  std::int64_t total = 0;
  for (std::int64_t column = 0; column < n_; ++column) {
    begin_[column] = total;
    std::uint32_t size = 0;
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) size += std::exchange(counts[chunk * n_ + column], size);
    total += size + std::int64_t{1};  // the entry behind the last
  }
  begin_[n_] = total;
  transposed_ = uninitialised<Entry>(total);
#pragma omp parallel for schedule(dynamic, 1) if (n_ * k_ > kParallelEntries)
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    const std::int64_t end = std::min((chunk + 1) * chunk_rows, n_);
    for (std::int64_t row = chunk * chunk_rows; row < end; ++row) {
      for (std::int64_t place = row * k_; place < (row + 1) * k_; ++place) {
        const std::int64_t column = indices_[place];
        if (column < 0 || values_[place] == T{0}) continue;
        const std::int64_t at = begin_[column] + counts[chunk * n_ + column]++;
        transposed_[at] = {static_cast<std::int32_t>(row), values_[place]};
      }
      transposed_[begin_[row + 1] - 1] = {static_cast<std::int32_t>(n_), T{0}};
    }
  }
}

template <typename T>
Symmetrization<T>::Symmetrization(const std::int64_t* indices, const T* values, std::int64_t n, std::int64_t k,
                                  double sum_factor, double product_factor)
    : indices_(indices),
      values_(values),
      n_(n),
      k_(k),
      sum_factor_(sum_factor),
      product_factor_(product_factor),
      begin_(uninitialised<std::int64_t>(n + 1)),
      indptr_(uninitialised<std::int64_t>(n + 1)) {
  const std::int64_t chunks = std::clamp<std::int64_t>(n / kMinChunkRows, 1, std::min(kMaxChunks, threads()));
  const std::int64_t chunk_rows = (n + chunks - 1) / chunks;
  std::vector<std::uint32_t> counts(chunks * n, 0);
  std::vector<std::int64_t> wrong(chunks, 0);
#pragma omp parallel for schedule(dynamic, 1) if (n * k > kParallelEntries)
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    const std::int64_t end = std::min((chunk + 1) * chunk_rows, n);
    Row sorted(*this);
    for (std::int64_t row = chunk * chunk_rows; row < end && wrong[chunk] == 0; ++row) {
      const std::int64_t count = sorted.sort(row);
      wrong[chunk] = std::min<std::int64_t>(count, 0);
      for (std::int64_t j = 0; j < count; ++j) ++counts[chunk * n + sorted.entries()[j].column];
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
#pragma omp parallel if (n * k > kParallelEntries)
  {
    Row own(*this);
#pragma omp for schedule(dynamic, 256)
    for (std::int64_t row = 0; row < n; ++row) {
      own.sort(row);
      indptr_[row + 1] = own.template merge<std::int64_t>(row, nullptr, nullptr);
    }
  }
  for (std::int64_t row = 0; row < n; ++row) indptr_[row + 1] += indptr_[row];
  entries_ = indptr_[n];
}

template <typename T>
template <typename Index>
void Symmetrization<T>::write(Index* indptr, Index* indices, T* values) const {
  std::copy_n(indptr_.get(), n_ + 1, indptr);
#pragma omp parallel if (n_ * k_ > kParallelEntries)
  {
    Row own(*this);
#pragma omp for schedule(dynamic, 256)
    for (std::int64_t row = 0; row < n_; ++row) {
      own.sort(row);
      own.merge(row, indices + indptr_[row], values + indptr_[row]);
    }
  }
}

template class Symmetrization<float>;
template class Symmetrization<double>;
template FASTPDR_API void Symmetrization<float>::write(std::int32_t*, std::int32_t*, float*) const;
template FASTPDR_API void Symmetrization<float>::write(std::int64_t*, std::int64_t*, float*) const;
template FASTPDR_API void Symmetrization<double>::write(std::int32_t*, std::int32_t*, double*) const;
template FASTPDR_API void Symmetrization<double>::write(std::int64_t*, std::int64_t*, double*) const;

}  // namespace fastpdr
