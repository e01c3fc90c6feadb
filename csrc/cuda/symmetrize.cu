// CUDA symmetrisation: every row collects its own entries and those that name it, sorts them, and merges equal columns.
//
// Method: a thread per entry counts it for both of its rows and, after a prefix sum, puts a key for it into both, in
// any order: the column, whether it is the row's own, and where its value is are one number. A warp sorts the keys of a
// row in shared memory, a block those of a row that many others name; so the order in which they came leaves no trace.
// Precision policy: arithmetic in float64 without fused operations, as on the CPU; one rounding.
#include "fastpdr/cuda.h"
#include "fastpdr/symmetrize.h"
#include "indexing.cuh"
#include "sort.cuh"

namespace fastpdr::cuda {
namespace {

using Key = unsigned long long;    // the column in 31 bits, 1 if it is another's in 1, the place in its row in 32
using Count = unsigned long long;  // what atomics take

constexpr int kThreads = 256;
constexpr int kRows = kThreads / kWarp;
constexpr int kColumnBits = 33;            // the column's offset in a key
constexpr std::int64_t kBlockKeys = 4096;  // in shared memory
constexpr std::int64_t kWarpKeys = kBlockKeys / kRows;
constexpr std::int64_t kMaxNeighbors = std::int64_t{1} << 32;
constexpr Count kNoFault = ~Count{0};

template <typename T>
struct Graph {
  const std::int64_t* indices;  // [n, k]
  const T* values;              // [n, k]
  std::int64_t n, k;
};

struct Factors {
  double sum, product;
};

// Parts of the workspace.
struct Work {
  Count* fault;        // [], the smallest row that is wrong, times 4, and what is wrong: -1 - code
  std::int64_t* ends;  // [n + 1], where the keys of each row end, behind those of the row before
  Count* taken;        // [n], how many keys of a row are in place
  Key* keys;           // [2 n k] at most
};

Work work_in(void* workspace, std::int64_t n) {
  std::int64_t* const numbers = static_cast<std::int64_t*>(workspace);
  Count* const counts = reinterpret_cast<Count*>(numbers);
  return {counts, numbers + 1, counts + n + 2, counts + 2 * n + 2};
}

__device__ void report(const Work& work, std::int64_t row, std::int64_t code) {
  atomicMin(work.fault, static_cast<Count>(row) * 4 + static_cast<Count>(-1 - code));
}

// The row of a neighbour's place, and the neighbour; -1 where there is none.
struct Edge {
  std::int64_t row, column;
};

template <typename T>
__device__ __forceinline__ Edge edge_at(const Graph<T>& graph, std::int64_t place) {
  const std::int64_t row = place / graph.k, column = graph.indices[place];
  const bool neighbor = column >= 0 && column < graph.n && column != row && graph.values[place] != T(0);
  return {row, neighbor ? column : -1};
}

template <typename T>
__global__ void __launch_bounds__(kThreads) tally(const Graph<T> graph, const Work work) {
  const std::int64_t place = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (place >= graph.n * graph.k) return;
  const Edge edge = edge_at(graph, place);
  if (edge.column < 0) {
    const std::int64_t column = graph.indices[place];
    if (column < -1 || column >= graph.n) report(work, edge.row, kSymmetrizeStrayIndex);
    if (column == edge.row && graph.values[place] != T(0)) report(work, edge.row, kSymmetrizeOwnIndex);
    return;
  }
  Count* const counts = reinterpret_cast<Count*>(work.ends) + 1;
  atomicAdd(counts + edge.row, Count{1});
  atomicAdd(counts + edge.column, Count{1});
}

// One block: counts become ends. At a fault all of them become 0, and the fault the result.
__global__ void __launch_bounds__(kThreads)
    scan(std::int64_t n, const Count* __restrict__ fault, std::int64_t* ends, std::int64_t* __restrict__ result) {
  const bool wrong = fault != nullptr && *fault != kNoFault;
  const std::int64_t entries = ends_of_counts<kThreads>(n, ends);
  if (wrong) clear_ends<kThreads>(n, ends);
  if (threadIdx.x == 0 && result != nullptr) {
    *result = wrong ? -1 - static_cast<std::int64_t>(*fault % 4) : entries;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) scatter(const Graph<T> graph, const Work work) {
  const std::int64_t place = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (place >= graph.n * graph.k) return;
  const Edge edge = edge_at(graph, place);
  if (edge.column < 0) return;
  const Key rank = static_cast<Key>(place - edge.row * graph.k), another = Key{1} << (kColumnBits - 1);
  const auto put = [&work](std::int64_t row, Key key) {
    work.keys[work.ends[row] + static_cast<std::int64_t>(atomicAdd(work.taken + row, Count{1}))] = key;
  };
  put(edge.row, static_cast<Key>(edge.column) << kColumnBits | rank);
  put(edge.column, static_cast<Key>(edge.row) << kColumnBits | another | rank);
}

// The keys of the rows from first_row that are short enough for a warp are in `shared`; the block goes through the
// others together.
__global__ void __launch_bounds__(kThreads) sort_keys(std::int64_t n, const Work work) {
  FASTPDR_SHARED(Key, shared, [kBlockKeys]);
  const std::int64_t first_row = static_cast<std::int64_t>(blockIdx.x) * kRows;
  const int rank = static_cast<int>(threadIdx.x), lane = rank % kWarp, warp = rank / kWarp;
  const auto sort = [&](std::int64_t row, bool alone) {
    const std::int64_t begin = work.ends[row], size = work.ends[row + 1] - begin;
    Key* const keys = work.keys + begin;
    if (alone && size <= kWarpKeys) {
      Key* const part = shared + warp * kWarpKeys;
      for (std::int64_t t = lane; t < size; t += kWarp) part[t] = keys[t];
      bitonic_sort<kWarp>(part, size, lane);
      for (std::int64_t t = lane; t < size; t += kWarp) keys[t] = part[t];
    } else if (!alone && size > kWarpKeys) {
      const bool fits = size <= kBlockKeys;
      __syncthreads();
      for (std::int64_t t = rank; fits && t < size; t += kThreads) shared[t] = keys[t];
      bitonic_sort<kThreads>(fits ? shared : keys, size, rank);
      for (std::int64_t t = rank; fits && t < size; t += kThreads) keys[t] = shared[t];
    }
  };
  if (first_row + warp < n) sort(first_row + warp, true);
  for (std::int64_t row = first_row; row < min(first_row + kRows, n); ++row) sort(row, false);
}

// What a warp makes of the sorted keys of a row: the number of entries of the result, and they themselves where
// `indices_out` is given.
template <typename Index, typename T>
__device__ __forceinline__ std::int64_t merge_row(const T* __restrict__ values, std::int64_t k, const Factors& factors,
                                                  const Work& work, std::int64_t row, Index* __restrict__ indices_out,
                                                  T* __restrict__ values_out) {
  const std::int64_t begin = work.ends[row], size = work.ends[row + 1] - begin;
  const Key* const keys = work.keys + begin;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const auto value_of = [&](Key key) {
    const bool another = key >> (kColumnBits - 1) & 1;
    const auto owner = another ? static_cast<std::int64_t>(key >> kColumnBits) : row;
    return static_cast<double>(values[owner * k + static_cast<std::int64_t>(key & 0xffffffffu)]);
  };
  std::int64_t count = 0;
  for (std::int64_t first = 0; first < size; first += kWarp) {
    const std::int64_t t = first + lane;
    T value = T(0);
    Key column = 0;
    if (t < size) {
      const Key key = keys[t];
      column = key >> kColumnBits;
      if (t == 0 || keys[t - 1] >> kColumnBits != column) {  // else it is the second of two
        const bool both = t + 1 < size && keys[t + 1] >> kColumnBits == column;
        const double a = value_of(key), b = both ? value_of(keys[t + 1]) : 0.0;
        value = static_cast<T>(
            __dadd_rn(__dmul_rn(factors.sum, __dadd_rn(a, b)), __dmul_rn(factors.product, __dmul_rn(a, b))));
      }
    }
    const bool kept = value != T(0);
    const unsigned lanes = __ballot_sync(kAllLanes, kept);
    if (kept && indices_out != nullptr) {
      const std::int64_t at = count + __popc(lanes & ((1u << lane) - 1));
      indices_out[at] = static_cast<Index>(column);
      values_out[at] = value;
    }
    count += __popc(lanes);
  }
  return count;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    count_merged(const Graph<T> graph, const Factors factors, const Work work, std::int64_t* __restrict__ counts) {
  const std::int64_t row = row_of_warp<kThreads>();
  if (row >= graph.n) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t begin = work.ends[row], end = work.ends[row + 1];
  for (std::int64_t t = begin + 1 + lane; t < end; t += kWarp) {
    // The same column and side as that before.
    if (work.keys[t] >> (kColumnBits - 1) == work.keys[t - 1] >> (kColumnBits - 1)) {
      const Key key = work.keys[t];
      const bool another = key >> (kColumnBits - 1) & 1;
      report(work, another ? static_cast<std::int64_t>(key >> kColumnBits) : row, kSymmetrizeRepeatedIndex);
    }
  }
  const std::int64_t count = merge_row<std::int64_t, T>(graph.values, graph.k, factors, work, row, nullptr, nullptr);
  if (lane == 0) counts[row + 1] = count;
}

template <typename Index, typename T>
__global__ void __launch_bounds__(kThreads)
    fill(const T* __restrict__ values, std::int64_t n, std::int64_t k, const Factors factors, const Work work,
         const std::int64_t* __restrict__ ends, Index* __restrict__ indptr_out, Index* __restrict__ indices_out,
         T* __restrict__ values_out) {
  const std::int64_t row = row_of_warp<kThreads>();
  if (row > n) return;
  if (threadIdx.x % kWarp == 0) indptr_out[row] = static_cast<Index>(ends[row]);
  if (row == n || ends[row] == ends[row + 1]) return;
  merge_row(values, k, factors, work, row, indices_out + ends[row], values_out + ends[row]);
}

}  // namespace

std::size_t symmetrize_workspace(std::int64_t n, std::int64_t k) {
  return static_cast<std::size_t>(2 * n + 2 + 2 * n * k) * sizeof(std::int64_t);
}

template <typename T>
cudaError_t symmetrize_count(const std::int64_t* indices, const T* values, std::int64_t n, std::int64_t k,
                             double sum_factor, double product_factor, void* workspace, std::int64_t* ends,
                             std::int64_t* entries, cudaStream_t stream) {
  const Graph<T> graph{indices, values, n, k};
  const Factors factors{sum_factor, product_factor};
  const std::int64_t places = n * k;
  if (n > kSymmetrizeMaxRows || k > kMaxNeighbors || places / kThreads >= kSymmetrizeMaxRows) {
    return cudaErrorInvalidValue;
  }
  const Work work = work_in(workspace, n);
  cudaError_t error = cudaMemsetAsync(work.fault, 0xff, sizeof(Count), stream);
  if (error != cudaSuccess) return error;
  error = cudaMemsetAsync(work.ends, 0, static_cast<std::size_t>(2 * n + 1) * sizeof(Count), stream);
  if (error != cudaSuccess) return error;
  if (places > 0) FASTPDR_LAUNCH(tally<T>, grid(divide_up(places, kThreads)), dim3(kThreads), 0, stream, graph, work);
  FASTPDR_LAUNCH(scan, dim3(1), dim3(kThreads), 0, stream, n, static_cast<const Count*>(nullptr), work.ends,
                 static_cast<std::int64_t*>(nullptr));
  if (places > 0) FASTPDR_LAUNCH(scatter<T>, grid(divide_up(places, kThreads)), dim3(kThreads), 0, stream, graph, work);
  if (n > 0) {
    FASTPDR_LAUNCH(sort_keys, grid(divide_up(n, kRows)), dim3(kThreads), 0, stream, n, work);
    FASTPDR_LAUNCH(count_merged<T>, grid(divide_up(n, kRows)), dim3(kThreads), 0, stream, graph, factors, work, ends);
  }
  FASTPDR_LAUNCH(scan, dim3(1), dim3(kThreads), 0, stream, n, work.fault, ends, entries);
  return cudaGetLastError();
}

template <typename Index, typename T>
cudaError_t symmetrize_fill(const T* values, std::int64_t n, std::int64_t k, double sum_factor, double product_factor,
                            const void* workspace, const std::int64_t* ends, Index* indptr_out, Index* indices_out,
                            T* values_out, cudaStream_t stream) {
  const Work work = work_in(const_cast<void*>(workspace), n);
  const Factors factors{sum_factor, product_factor};
  FASTPDR_LAUNCH((fill<Index, T>), grid(divide_up(n + 1, kRows)), dim3(kThreads), 0, stream, values, n, k, factors,
                 work, ends, indptr_out, indices_out, values_out);
  return cudaGetLastError();
}

#define FASTPDR_SYMMETRIZE_COUNT(T)                                                                                    \
  template FASTPDR_API cudaError_t symmetrize_count(const std::int64_t*, const T*, std::int64_t, std::int64_t, double, \
                                                    double, void*, std::int64_t*, std::int64_t*, cudaStream_t)
#define FASTPDR_SYMMETRIZE_FILL(Index, T)                                                                             \
  template FASTPDR_API cudaError_t symmetrize_fill(const T*, std::int64_t, std::int64_t, double, double, const void*, \
                                                   const std::int64_t*, Index*, Index*, T*, cudaStream_t)
FASTPDR_SYMMETRIZE_COUNT(float);
FASTPDR_SYMMETRIZE_COUNT(double);
FASTPDR_SYMMETRIZE_FILL(std::int32_t, float);
FASTPDR_SYMMETRIZE_FILL(std::int32_t, double);
FASTPDR_SYMMETRIZE_FILL(std::int64_t, float);
FASTPDR_SYMMETRIZE_FILL(std::int64_t, double);

}  // namespace fastpdr::cuda
