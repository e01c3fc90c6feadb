// symmetrize: the very entries of the CPU kernel, in float and double, with indices of 32 and 64 bits; what is wrong
// with the contents is reported.
#include <algorithm>
#include <numeric>

#include "check.h"
#include "fastpdr/cuda.h"
#include "fastpdr/symmetrize.h"

namespace {

using fastpdr::check::Device;
using fastpdr::check::expect;
using Indices = std::vector<std::int64_t>;

template <typename T>
struct Graph {
  std::int64_t n, k;
  Indices indices;
  std::vector<T> values;
};

struct Factors {
  double sum, product;
};

// Distinct other rows; row 0 is everybody's neighbour, some have none.
template <typename T>
Graph<T> random_graph(std::int64_t n, std::int64_t k) {
  std::mt19937_64 generator(static_cast<unsigned>(n + k));
  Graph<T> graph{n, k, Indices(n * k), std::vector<T>(n * k)};
  Indices others(n);
  std::iota(others.begin(), others.end(), 0);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < k; ++j) {
      // The first k of a random order without i, or -1 behind its end.
      std::int64_t& picked = graph.indices[i * k + j];
      picked = -1;
      if (j < n - 1) {
        std::swap(others[j], others[j + generator() % (n - j)]);
        if (others[j] == i) std::swap(others[j], others[j + 1 + generator() % (n - j - 1)]);
        picked = others[j];
      }
      graph.values[i * k + j] = static_cast<T>(generator() % 1000003 + 1) / 1000003;
    }
    const auto row = graph.indices.begin() + i * k;
    if (k > 0 && i > 0 && std::find(row, row + k, 0) == row + k) row[generator() % k] = 0;
  }
  for (std::size_t place = 0; place < graph.indices.size(); ++place) {
    if (generator() % 20 == 0) graph.indices[place] = -1;
    if (generator() % 20 == 0) graph.values[place] = T(0);
  }
  return graph;
}

// The entries' number, indptr, and columns and the values' bits by turns.
template <typename Index, typename T>
Indices together(std::int64_t entries, const std::vector<Index>& indptr, const std::vector<Index>& columns,
                 const std::vector<T>& values) {
  Indices result{entries};
  result.insert(result.end(), indptr.begin(), indptr.end());
  for (std::int64_t i = 0; i < entries; ++i) {
    std::int64_t bits = 0;
    std::memcpy(&bits, &values[i], sizeof(T));
    result.push_back(columns[i]);
    result.push_back(bits);
  }
  return result;
}

template <typename Index = std::int64_t, typename T>
Indices on_device(const Graph<T>& graph, const Factors& factors, bool room_to_spare) {
  const std::int64_t n = graph.n, k = graph.k;
  const Device<std::int64_t> indices(graph.indices);
  const Device<T> values(graph.values);
  Device<char> workspace(fastpdr::cuda::symmetrize_workspace(n, k));
  Device<std::int64_t> ends(n + 1), entries(1);
  Device<Index> indptr_out(n + 1);
  fastpdr::check::require_done(fastpdr::cuda::symmetrize_count(indices.data(), values.data(), n, k, factors.sum,
                                                               factors.product, workspace.data(), ends.data(),
                                                               entries.data(), nullptr));
  const std::int64_t count = entries.host()[0], room = room_to_spare ? 2 * n * k : std::max<std::int64_t>(count, 0);
  Device<Index> indices_out(room);
  Device<T> values_out(room);
  fastpdr::check::require_done(fastpdr::cuda::symmetrize_fill(values.data(), n, k, factors.sum, factors.product,
                                                              workspace.data(), ends.data(), indptr_out.data(),
                                                              indices_out.data(), values_out.data(), nullptr));
  return together(count, indptr_out.host(), indices_out.host(), values_out.host());
}

template <typename Index = std::int64_t, typename T>
Indices on_host(const Graph<T>& graph, const Factors& factors) {
  const fastpdr::Symmetrization<T> result(graph.indices.data(), graph.values.data(), graph.n, graph.k, factors.sum,
                                          factors.product);
  const std::int64_t entries = result.entries();
  std::vector<Index> indptr(graph.n + 1), columns(std::max<std::int64_t>(entries, 0));
  std::vector<T> values(columns.size());
  if (entries >= 0) result.write(indptr.data(), columns.data(), values.data());
  return together(entries, indptr, columns, values);
}

template <typename T>
void test(std::int64_t n, std::int64_t k, const Factors& factors) {
  const Graph<T> graph = random_graph<T>(n, k);
  const std::string what = "n = " + std::to_string(n) + ", k = " + std::to_string(k) + ", " +
                           std::to_string(sizeof(T)) + " bytes, " + std::to_string(factors.product);
  const Indices expected = on_host(graph, factors);
  fastpdr::check::equal(what, fastpdr::check::repeated(what, [&] { return on_device(graph, factors, false); }),
                        expected);
  fastpdr::check::equal(what + ", room to spare", on_device(graph, factors, true), expected);
  fastpdr::check::equal(what + ", 32 bits", on_device<std::int32_t>(graph, factors, false), expected);
  fastpdr::check::equal(what + ", 32 bits, on the host", on_host<std::int32_t>(graph, factors), expected);
}

// Row 0 has as many entries as there are rows: of a warp, of a block in shared memory, of a block in global memory.
void test_hub(std::int64_t n) {
  Graph<float> graph{n, 1, Indices(n, 0), std::vector<float>(n)};
  graph.indices[0] = n / 2;
  for (std::int64_t i = 0; i < n; ++i) graph.values[i] = 1.0f / static_cast<float>(1 + i * 7919 % n);
  const std::string what = "a row with " + std::to_string(n - 1) + " neighbours";
  fastpdr::check::equal(what, fastpdr::check::repeated(what, [&] { return on_device(graph, {1.0, -1.0}, false); }),
                        on_host(graph, {1.0, -1.0}));
}

void test_faults() {
  const auto fault = [](const std::string& what, const Indices& indices, const std::vector<float>& values,
                        std::int64_t code) {
    const Graph<float> graph{3, 2, indices, values};
    const Indices result = on_device(graph, {1.0, 0.0}, true);
    fastpdr::check::equal(what, result, Indices{code, 0, 0, 0, 0});
    fastpdr::check::equal(what + ", on the host", result, on_host(graph, {1.0, 0.0}));
  };
  const std::vector<float> ones(6, 1.0f);
  fault("index beyond the rows", {1, 2, 0, 3, 0, 1}, ones, fastpdr::kSymmetrizeStrayIndex);
  fault("negative index", {1, 2, 0, -2, 0, 1}, ones, fastpdr::kSymmetrizeStrayIndex);
  fault("stray index of no value", {1, 2, 0, 5, 0, 1}, {1, 1, 1, 0, 1, 1}, fastpdr::kSymmetrizeStrayIndex);
  fault("own index", {1, 2, 0, 1, 0, 1}, ones, fastpdr::kSymmetrizeOwnIndex);
  fault("repeated index", {1, 2, 0, 2, 1, 1}, ones, fastpdr::kSymmetrizeRepeatedIndex);
  fault("the smallest row counts", {1, 1, 0, 7, 2, 2}, ones, fastpdr::kSymmetrizeRepeatedIndex);
  fault("a stray index before its own", {1, 2, 1, 3, 0, 1}, ones, fastpdr::kSymmetrizeStrayIndex);
}

// Entries that cancel are left out; what has no value may be anything but stray.
void test_small() {
  fastpdr::check::equal("entries that cancel",
                        on_device<std::int64_t, float>({3, 1, {1, 0, 0}, {2.0f, 2.0f, 3.0f}}, {1.0, -1.0}, false),
                        on_host<std::int64_t, float>({3, 1, {1, 0, 0}, {2.0f, 2.0f, 3.0f}}, {1.0, -1.0}));
  const Graph<double> filled{3, 3, {0, 1, 1, -1, -1, 2, 2, 2, -1}, {0.0, 0.5, 0.0, 9.0, 9.0, 0.25, 0.0, 0.0, 9.0}};
  fastpdr::check::equal("rows filled up with themselves", on_device(filled, {1.0, 0.0}, false),
                        on_host(filled, {1.0, 0.0}));
}

}  // namespace

int main() {
  return fastpdr::check::run([] {
    for (const std::int64_t n : fastpdr::check::kSizes) {
      for (const std::int64_t k : {0, 1, 7, 40}) {
        test<float>(n, k, {1.0, -1.0});
        if (k == 7) test<double>(n, k, {0.5, 0.0});
      }
    }
    // More rows than a turn of the scan takes.
    if (fastpdr::check::kThorough) test<float>(4200, 2, {1.0, -1.0});
    test<double>(129, 128, {0.0, 1.0});
    for (const std::int64_t n : {512, 514, 1000}) test_hub(n);
    if (fastpdr::check::kThorough) {
      for (const std::int64_t n : {4097, 4300}) test_hub(n);
    }
    test_faults();
    test_small();
  });
}
