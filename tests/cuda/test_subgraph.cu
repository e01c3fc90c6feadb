// subgraph: the very entries of the CPU kernel, in float and double, from indices of 32 and 64 bits; what is wrong with
// the contents is reported.
#include <algorithm>
#include <numeric>

#include "check.h"
#include "fastpdr/cuda.h"
#include "fastpdr/subgraph.h"

namespace {

using fastpdr::check::Device;
using Indices = std::vector<std::int64_t>;

template <typename T>
struct Csr {
  Indices indptr, indices;
  std::vector<T> values;
};

// About k entries a row with columns in any order, some twice; row 0 is empty, row n / 2 has every column.
template <typename T>
Csr<T> random_matrix(std::int64_t n, std::int64_t k) {
  std::mt19937_64 generator(static_cast<unsigned>(n));
  Csr<T> result{{0}, {}, {}};
  for (std::int64_t row = 0; row < n; ++row) {
    const std::int64_t size = row == n / 2 ? n : row == 0 ? 0 : static_cast<std::int64_t>(generator() % (2 * k));
    for (std::int64_t i = 0; i < size; ++i) {
      result.indices.push_back(row == n / 2 ? n - 1 - i : static_cast<std::int64_t>(generator() % n));
      result.values.push_back(static_cast<T>(generator() % 1000003) / 7);
    }
    result.indptr.push_back(static_cast<std::int64_t>(result.indices.size()));
  }
  return result;
}

Indices some_rows(std::int64_t n, std::int64_t b) {
  Indices rows(n);
  std::iota(rows.begin(), rows.end(), 0);
  std::shuffle(rows.begin(), rows.end(), std::mt19937_64(5));
  rows.resize(b);
  return rows;
}

// [entries, indptr_out, indices_out, the values' bits]; capacity < 0: what is needed. m >= 0: rows that are no padding.
template <typename Index = std::int64_t, typename T>
Indices on_device(const Csr<T>& matrix, const Indices& rows, std::int64_t capacity, std::int64_t m = -1) {
  const auto n = static_cast<std::int64_t>(matrix.indptr.size()) - 1, b = static_cast<std::int64_t>(rows.size());
  const auto nnz = static_cast<std::int64_t>(matrix.indices.size());
  using fastpdr::check::converted;
  const Device<Index> indptr(converted<Index>(matrix.indptr)), indices(converted<Index>(matrix.indices));
  const Device<std::int64_t> device_rows(rows);
  const Device<T> values(matrix.values);
  Device<char> workspace(fastpdr::cuda::subgraph_workspace(n));
  const Device<std::int64_t> points(Indices{m});
  Device<std::int64_t> indptr_out(b + 1), entries(1);
  fastpdr::check::require_done(fastpdr::cuda::subgraph_count(
      indptr.data(), indices.data(), device_rows.data(), m < 0 ? nullptr : points.data(), n, nnz, b,
      capacity < 0 ? INT64_MAX : capacity, workspace.data(), indptr_out.data(), entries.data(), nullptr));
  Indices result = entries.host(), ends = indptr_out.host();
  result.insert(result.end(), ends.begin(), ends.end());
  const std::int64_t room = capacity < 0 ? std::max<std::int64_t>(result[0], 0) : capacity;
  Device<std::int64_t> indices_out(room);
  Device<T> values_out(room);
  fastpdr::check::require_done(fastpdr::cuda::subgraph_fill(
      indptr.data(), indices.data(), values.data(), device_rows.data(), n, nnz, b, workspace.data(), indptr_out.data(),
      indices_out.data(), values_out.data(), nullptr));
  const Indices columns = indices_out.host();
  const std::vector<T> found = values_out.host();
  for (std::int64_t i = 0; i < ends[b]; ++i) {
    std::int64_t bits = 0;
    std::memcpy(&bits, &found[i], sizeof(T));
    result.push_back(columns[i]);
    result.push_back(bits);
  }
  return result;
}

template <typename Index = std::int64_t, typename T>
Indices on_host(const Csr<T>& matrix, const Indices& rows) {
  const auto n = static_cast<std::int64_t>(matrix.indptr.size()) - 1, b = static_cast<std::int64_t>(rows.size());
  Indices indptr_out(b + 1), indices_out(matrix.indices.size());
  std::vector<T> values_out(matrix.indices.size());
  const auto indptr = fastpdr::check::converted<Index>(matrix.indptr);
  const auto indices = fastpdr::check::converted<Index>(matrix.indices);
  Indices result{fastpdr::subgraph(indptr.data(), indices.data(), matrix.values.data(), rows.data(), n, b,
                                   indptr_out.data(), indices_out.data(), values_out.data())};
  result.insert(result.end(), indptr_out.begin(), indptr_out.end());
  for (std::int64_t i = 0; i < indptr_out[b]; ++i) {
    std::int64_t bits = 0;
    std::memcpy(&bits, &values_out[i], sizeof(T));
    result.push_back(indices_out[i]);
    result.push_back(bits);
  }
  return result;
}

template <typename T>
void test_matrix(std::int64_t n, std::int64_t b, std::int64_t k) {
  const Csr<T> matrix = random_matrix<T>(n, k);
  const Indices rows = some_rows(n, b);
  const std::string what = "n = " + std::to_string(n) + ", b = " + std::to_string(b) + ", k = " + std::to_string(k) +
                           ", " + std::to_string(sizeof(T)) + " bytes";
  const Indices expected = on_host(matrix, rows);
  fastpdr::check::equal(what, fastpdr::check::repeated(what, [&] { return on_device(matrix, rows, -1); }), expected);
  fastpdr::check::equal(what + ", room to spare", on_device(matrix, rows, expected[0] + 100), expected);
  fastpdr::check::equal(what + ", 32 bits", on_device<std::int32_t>(matrix, rows, -1), expected);
  fastpdr::check::equal(what + ", 32 bits, on the host", on_host<std::int32_t>(matrix, rows), expected);
  if (expected[0] > 0) {
    const Indices result = on_device(matrix, rows, expected[0] - 1);
    fastpdr::check::expect(result[0] == fastpdr::cuda::kSubgraphNoRoom && result.back() == 0,
                           what + ", too little room");
  }
}

// The rows behind the first m may be anything: they are not read.
void test_padding(std::int64_t n, std::int64_t b, std::int64_t m) {
  const Csr<float> matrix = random_matrix<float>(n, 20);
  Indices rows = some_rows(n, b);
  const Indices points(rows.begin(), rows.begin() + m);
  Indices expected = on_host(matrix, points);
  expected.insert(expected.begin() + m + 1, b - m, expected[m + 1]);
  for (std::int64_t s = m; s < b; ++s) rows[s] = s % 2 == 0 ? -5 : rows[0];
  const std::string what = "b = " + std::to_string(b) + ", of which points " + std::to_string(m);
  fastpdr::check::equal(what, fastpdr::check::repeated(what, [&] { return on_device(matrix, rows, -1, m); }), expected);
  fastpdr::check::equal(what + ", room to spare", on_device(matrix, rows, expected[0] + 100, m), expected);
}

void test_fault(const std::string& what, const Csr<float>& matrix, const Indices& rows, std::int64_t code) {
  Indices expected(rows.size() + 2, 0);
  expected[0] = code;
  fastpdr::check::equal(what, on_device(matrix, rows, -1), expected);
}

}  // namespace

int main() {
  return fastpdr::check::run([] {
    for (const std::int64_t b : fastpdr::check::kSizes) {
      test_matrix<float>(std::max<std::int64_t>(b, 2), b, 12);
      test_matrix<double>(700, b, 20);
    }
    test_matrix<float>(520, 520, 3);  // more rows than two turns of the scan
    for (const std::int64_t m : {0, 1, 31, 90, 97}) test_padding(700, 97, m);
    const Csr<float> small{{0, 2, 3}, {0, 1, 0}, {1.0f, 2.0f, 3.0f}};
    test_fault("repeated row", small, {1, 0, 1}, fastpdr::kSubgraphRepeatedRow);
    test_fault("row beyond the matrix", small, {0, 2}, fastpdr::cuda::kSubgraphStrayRow);
    test_fault("negative row", small, {-1, 0}, fastpdr::cuda::kSubgraphStrayRow);
    test_fault("stray column", {{0, 2, 3}, {0, 2, 0}, {1.0f, 2.0f, 3.0f}}, {1, 0}, fastpdr::kSubgraphStrayColumn);
    test_fault("negative column", {{0, 2, 3}, {0, -1, 0}, {1.0f, 2.0f, 3.0f}}, {1, 0}, fastpdr::kSubgraphStrayColumn);
    for (const Indices& indptr : {Indices{0, 2, 4}, Indices{-1, 2, 3}, Indices{0, 2, 1}}) {
      test_fault("bad indptr", {indptr, small.indices, small.values}, {1, 0}, fastpdr::cuda::kSubgraphFallingIndptr);
    }
  });
}
