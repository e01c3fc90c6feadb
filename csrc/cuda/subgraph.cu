// CUDA gather of a batch's own entries from a sparse matrix: a thread marks each row, a warp reads it.
//
// Method: the place of every row of the batch is marked in an array of all n rows; the columns of the batch's rows are
// looked up there, counted, and after a prefix sum looked up again and written: the second time they come from the
// cache. A found entry is one number, its column above its place in the row, so that a bitonic sort of the numbers
// puts columns in order and keeps that of repeated ones. Precision policy: values are copied.
#include "fastpdr/cuda.h"
#include "fastpdr/subgraph.h"
#include "indexing.cuh"
#include "sort.cuh"

namespace fastpdr::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRows = kThreads / kWarp;  // of a block where a warp has a row
constexpr int kOffsetBits = 34;          // a row's length; 29 more for the column

template <typename Index>
struct Matrix {
  const Index* indptr;   // [n + 1]
  const Index* indices;  // [nnz]
  std::int64_t n, nnz;
};

struct Marks {
  int* places;  // [n], -1 for rows that are not in the batch
  int* fault;   // [], -1, or the largest of the negated codes
};

struct Range {
  std::int64_t begin, end;
};

__device__ __forceinline__ bool inside(std::int64_t index, std::int64_t size) {
  return static_cast<std::uint64_t>(index) < static_cast<std::uint64_t>(size);
}

__device__ void report(const Marks& marks, std::int64_t code) {
  atomicMax(marks.fault, static_cast<int>(-code));
}

// Where the entries of a row are; nothing to read where `row` or indptr is wrong.
template <typename Index>
__device__ Range entries_of(const Matrix<Index>& matrix, std::int64_t row) {
  if (!inside(row, matrix.n)) return {0, 0};
  const Range range{matrix.indptr[row], matrix.indptr[row + 1]};
  return 0 <= range.begin && range.begin <= range.end && range.end <= matrix.nnz ? range : Range{0, 0};
}

template <typename Index>
__global__ void __launch_bounds__(kThreads) mark(Matrix<Index> matrix, const std::int64_t* __restrict__ rows,
                                                 const std::int64_t* __restrict__ points, std::int64_t b, Marks marks) {
  const std::int64_t s = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (s >= points_of(points, b)) return;
  const std::int64_t row = rows[s];
  if (!inside(row, matrix.n)) return report(marks, kSubgraphStrayRow);
  const std::int64_t begin = matrix.indptr[row], end = matrix.indptr[row + 1];
  if (begin < 0 || begin > end || end > matrix.nnz) report(marks, kSubgraphFallingIndptr);
  if (atomicExch(marks.places + row, static_cast<int>(s)) >= 0) report(marks, kSubgraphRepeatedRow);
}

template <typename Index>
__global__ void __launch_bounds__(kThreads)
    count(Matrix<Index> matrix, const std::int64_t* __restrict__ rows, const std::int64_t* __restrict__ points,
          std::int64_t b, Marks marks, std::int64_t* __restrict__ indptr_out) {
  const std::int64_t s = row_of_warp<kThreads>();
  if (s >= b) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const Range range = s < points_of(points, b) ? entries_of(matrix, rows[s]) : Range{0, 0};
  std::int64_t found = 0;
  bool stray = false;
  for (std::int64_t i = range.begin + lane; i < range.end; i += kWarp) {
    const std::int64_t column = matrix.indices[i];
    if (inside(column, matrix.n)) {
      found += marks.places[column] >= 0;
    } else {
      stray = true;
    }
  }
  if (stray) report(marks, kSubgraphStrayColumn);
  found = warp_sum(found);
  if (lane == 0) indptr_out[s + 1] = found;
}

// One block: counts become indptr. What cannot be had leaves an empty matrix.
__global__ void __launch_bounds__(kThreads) scan(std::int64_t b, const int* fault, std::int64_t capacity,
                                                 std::int64_t* indptr_out, std::int64_t* __restrict__ entries) {
  const std::int64_t total = ends_of_counts<kThreads>(b, indptr_out);
  const std::int64_t result = *fault > 0         ? -static_cast<std::int64_t>(*fault)
                              : total > capacity ? kSubgraphNoRoom
                                                 : total;
  if (threadIdx.x == 0) *entries = result;
  if (result < 0) clear_ends<kThreads>(b, indptr_out);
}

template <typename Index, typename T>
__global__ void __launch_bounds__(kThreads)
    fill(Matrix<Index> matrix, const T* __restrict__ values, const std::int64_t* __restrict__ rows, std::int64_t b,
         const int* __restrict__ places, const std::int64_t* __restrict__ indptr_out, std::int64_t* indices_out,
         T* __restrict__ values_out) {
  const std::int64_t s = row_of_warp<kThreads>();
  if (s >= b) return;
  const std::int64_t begin_out = indptr_out[s], size = indptr_out[s + 1] - begin_out;
  if (size == 0) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const Range range = entries_of(matrix, rows[s]);
  std::int64_t* keys = indices_out + begin_out;
  std::int64_t found = 0;
  for (std::int64_t begin = range.begin; begin < range.end; begin += kWarp) {
    const std::int64_t i = begin + lane;
    const int place = i < range.end ? places[matrix.indices[i]] : -1;
    const unsigned lanes = __ballot_sync(kAllLanes, place >= 0);
    const int before = __popc(lanes & ((1u << lane) - 1));
    if (place >= 0) keys[found + before] = static_cast<std::int64_t>(place) << kOffsetBits | (i - range.begin);
    found += __popc(lanes);
  }
  bitonic_sort<kWarp>(keys, size, lane);
  for (std::int64_t t = lane; t < size; t += kWarp) {
    const std::int64_t key = keys[t], offset = key & ((std::int64_t{1} << kOffsetBits) - 1);
    keys[t] = key >> kOffsetBits;
    values_out[begin_out + t] = values[range.begin + offset];
  }
}

Marks marks_in(void* workspace, std::int64_t n) {
  int* places = static_cast<int*>(workspace);
  return {places, places + n};
}

}  // namespace

std::size_t subgraph_workspace(std::int64_t n) {
  return static_cast<std::size_t>(n + 1) * sizeof(int);
}

template <typename Index>
cudaError_t subgraph_count(const Index* indptr, const Index* indices, const std::int64_t* rows,
                           const std::int64_t* points, std::int64_t n, std::int64_t nnz, std::int64_t b,
                           std::int64_t capacity, void* workspace, std::int64_t* indptr_out, std::int64_t* entries,
                           cudaStream_t stream) {
  const Matrix<Index> matrix{indptr, indices, n, nnz};
  const Marks marks = marks_in(workspace, n);
  const cudaError_t error = cudaMemsetAsync(workspace, 0xff, subgraph_workspace(n), stream);
  if (error != cudaSuccess) return error;
  if (b > 0) {
    FASTPDR_LAUNCH(mark<Index>, grid(divide_up(b, kThreads)), dim3(kThreads), 0, stream, matrix, rows, points, b,
                   marks);
    FASTPDR_LAUNCH(count<Index>, grid(divide_up(b, kRows)), dim3(kThreads), 0, stream, matrix, rows, points, b, marks,
                   indptr_out);
  }
  FASTPDR_LAUNCH(scan, dim3(1), dim3(kThreads), 0, stream, b, marks.fault, capacity, indptr_out, entries);
  return cudaGetLastError();
}

template <typename Index, typename T>
cudaError_t subgraph_fill(const Index* indptr, const Index* indices, const T* values, const std::int64_t* rows,
                          std::int64_t n, std::int64_t nnz, std::int64_t b, const void* workspace,
                          const std::int64_t* indptr_out, std::int64_t* indices_out, T* values_out,
                          cudaStream_t stream) {
  if (b == 0) return cudaSuccess;
  const Matrix<Index> matrix{indptr, indices, n, nnz};
  FASTPDR_LAUNCH((fill<Index, T>), grid(divide_up(b, kRows)), dim3(kThreads), 0, stream, matrix, values, rows, b,
                 static_cast<const int*>(workspace), indptr_out, indices_out, values_out);
  return cudaGetLastError();
}

#define FASTPDR_SUBGRAPH_COUNT(Index)                                                                            \
  template FASTPDR_API cudaError_t subgraph_count(const Index*, const Index*, const std::int64_t*,               \
                                                  const std::int64_t*, std::int64_t, std::int64_t, std::int64_t, \
                                                  std::int64_t, void*, std::int64_t*, std::int64_t*, cudaStream_t)
#define FASTPDR_SUBGRAPH_FILL(Index, T)                                                                     \
  template FASTPDR_API cudaError_t subgraph_fill(const Index*, const Index*, const T*, const std::int64_t*, \
                                                 std::int64_t, std::int64_t, std::int64_t, const void*,     \
                                                 const std::int64_t*, std::int64_t*, T*, cudaStream_t)
FASTPDR_SUBGRAPH_COUNT(std::int32_t);
FASTPDR_SUBGRAPH_COUNT(std::int64_t);
FASTPDR_SUBGRAPH_FILL(std::int32_t, float);
FASTPDR_SUBGRAPH_FILL(std::int32_t, double);
FASTPDR_SUBGRAPH_FILL(std::int64_t, float);
FASTPDR_SUBGRAPH_FILL(std::int64_t, double);

}  // namespace fastpdr::cuda
