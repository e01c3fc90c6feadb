// The kernels on a CUDA device: the same functions as the headers of each stem, which say what they compute.
//
// All pointers are device memory, but for those marked `host`. A launcher puts its work on `stream` and returns: it
// allocates nothing, waits for nothing, and can be captured in a CUDA graph. Where it needs memory to work in, a
// function ..._workspace returns how many bytes; the memory need not be cleared, is aligned as cudaMalloc's, and is
// free again when the work on the stream is done. What is returned is the error of the launch; errors of the contents,
// which the CPU kernels report by their return value, are said with each launcher. Precision policy: that of the CPU
// kernels; no atomic sums of floating-point numbers, so the same input gives the same bits.
//
// Where a batch shall have the same b whatever it holds, as in a graph, `points` says on the device how many of its
// rows are points, the first ones; null says all. The rest is padding: it has no entries in a matrix, takes no part,
// and its gradient is 0.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fastpdr/export.h"
#include "fastpdr/pairs.h"

#ifdef FASTPDR_CUDA_EMULATOR  // the tests' emulation of the device
#include "cuda_emulator.h"
#else
#include <driver_types.h>
#endif

namespace fastpdr::cuda {

// fuzzy.h.
FASTPDR_API std::size_t fuzzy_weights_workspace();
FASTPDR_API cudaError_t fuzzy_weights(const float* dist,  // [n, k]
                                      std::int64_t n, std::int64_t k, double local_connectivity, void* workspace,
                                      float* weights,  // [n, k]
                                      float* rho,      // [n]
                                      float* sigma,    // [n]
                                      cudaStream_t stream);

// layer_norm_gelu.h. T is float or BFloat16.
template <typename T>
FASTPDR_API cudaError_t layer_norm_gelu(const T* x,           // [n, d]
                                        const float* weight,  // [d]
                                        const float* bias,    // [d]
                                        std::int64_t n, std::int64_t d, double eps,
                                        T* y,          // [n, d]
                                        T* slope,      // [n, d]
                                        float* mean,   // [n]
                                        float* scale,  // [n]
                                        cudaStream_t stream);
FASTPDR_API std::size_t layer_norm_gelu_backward_workspace(std::int64_t n, std::int64_t d);
template <typename T>
FASTPDR_API cudaError_t layer_norm_gelu_backward(const T* grad,        // [n, d]
                                                 const T* x,           // [n, d]
                                                 const T* slope,       // [n, d]
                                                 const float* weight,  // [d]
                                                 const float* mean,    // [n]
                                                 const float* scale,   // [n]
                                                 std::int64_t n, std::int64_t d, void* workspace,
                                                 T* grad_x,           // [n, d]
                                                 float* grad_weight,  // [d]
                                                 float* grad_bias,    // [d]
                                                 cudaStream_t stream);

// pairs.h. A matrix whose indptr or indices lead astray makes the loss NaN.
FASTPDR_API std::size_t pair_loss_workspace(std::int64_t b, std::int64_t c);
FASTPDR_API cudaError_t pair_loss(const float* y,               // [b, c]
                                  const std::int64_t* indptr,   // [b + 1]
                                  const std::int64_t* indices,  // [nnz]
                                  const float* values,          // [nnz]
                                  const std::int64_t* points,   // [] or null
                                  std::int64_t nnz, std::int64_t b, std::int64_t c, const PairCurve& curve,
                                  void* workspace,
                                  float* loss,  // []
                                  float* grad,  // [b, c]
                                  cudaStream_t stream);

// perplexity.h, in one launch for every 32 perplexities. These are read before the function returns, and go with the
// launch by value. n < 2^31.
FASTPDR_API cudaError_t perplexity_search(const float* sqdist,         // [n, k]
                                          const double* perplexities,  // [h], host
                                          std::int64_t n, std::int64_t k, std::int64_t h,
                                          double tolerance,  // nats
                                          float* p,          // [n, k]
                                          float* beta,       // [n, h]
                                          cudaStream_t stream);

// sampling.h. The table is built on the host, once, by alias_table, and copied.
FASTPDR_API cudaError_t sample_edges(const std::int64_t* table,  // [e]
                                     std::int64_t e, std::int64_t n_edges, std::int64_t seed, std::int64_t step,
                                     std::int64_t* edges,  // [n_edges]
                                     cudaStream_t stream);

// student_t.h. A matrix whose indptr or indices lead astray makes the loss NaN.
FASTPDR_API std::size_t student_t_kl_workspace(std::int64_t b, std::int64_t c, bool by_row);
FASTPDR_API cudaError_t student_t_kl(const float* y,  // [b, c]
                                     const float* p,  // [b, b]
                                     std::int64_t b, std::int64_t c, double dof, double exaggeration, bool by_row,
                                     void* workspace,
                                     float* loss,  // []
                                     float* grad,  // [b, c]
                                     cudaStream_t stream);
FASTPDR_API std::size_t student_t_kl_csr_workspace(std::int64_t b, std::int64_t c, bool by_row);
FASTPDR_API cudaError_t student_t_kl_csr(const float* y,               // [b, c]
                                         const std::int64_t* indptr,   // [b + 1]
                                         const std::int64_t* indices,  // [nnz]
                                         const float* values,          // [nnz]
                                         const std::int64_t* points,   // [] or null
                                         std::int64_t nnz, std::int64_t b, std::int64_t c, double dof,
                                         double exaggeration, bool by_row, void* workspace,
                                         float* loss,  // []
                                         float* grad,  // [b, c]
                                         cudaStream_t stream);

// subgraph.h, in two steps. The first finds `indptr_out` and the number of entries. A caller who reads that number can
// allocate what the second writes; one who does not want to wait gives room for `capacity` entries, such as the sum of
// the b largest rows of the matrix, which is never too small: `indptr_out` then says where the rows end, and what lies
// behind the last is left as it was.
// `entries` is the number, or kSubgraphRepeatedRow, kSubgraphStrayColumn, or one of the three here; `indptr_out` is
// then that of an empty matrix.
constexpr std::int64_t kSubgraphFallingIndptr = -3;  // it does not rise from 0 to nnz
constexpr std::int64_t kSubgraphStrayRow = -4;       // `rows` are not in [0, n)
constexpr std::int64_t kSubgraphNoRoom = -5;         // more entries than `capacity`

FASTPDR_API std::size_t subgraph_workspace(std::int64_t n);
template <typename Index>
FASTPDR_API cudaError_t subgraph_count(const Index* indptr,         // [n + 1]
                                       const Index* indices,        // [nnz]
                                       const std::int64_t* rows,    // [b]
                                       const std::int64_t* points,  // [] or null
                                       std::int64_t n, std::int64_t nnz, std::int64_t b, std::int64_t capacity,
                                       void* workspace,           // kept for subgraph_fill
                                       std::int64_t* indptr_out,  // [b + 1]
                                       std::int64_t* entries,     // []
                                       cudaStream_t stream);
template <typename Index, typename T>
FASTPDR_API cudaError_t subgraph_fill(const Index* indptr,       // [n + 1]
                                      const Index* indices,      // [nnz]
                                      const T* values,           // [nnz]
                                      const std::int64_t* rows,  // [b]
                                      std::int64_t n, std::int64_t nnz, std::int64_t b, const void* workspace,
                                      const std::int64_t* indptr_out,  // [b + 1]
                                      std::int64_t* indices_out,       // [indptr_out[b]] or more
                                      T* values_out,                   // [indptr_out[b]] or more
                                      cudaStream_t stream);

// symmetrize.h, in two steps like subgraph: the first finds `ends`, where the rows of the result end, and the number of
// entries, or, as `entries`, what is wrong with the smallest row that is; `ends` is then that of an empty matrix. A
// caller who does not read the number gives room for 2 n k entries. The second writes indptr and indices of 32 bits
// where these are wanted and enough. The workspace holds 16 bytes for each of the n k neighbours and 16 for each row;
// k <= 2^32.
FASTPDR_API std::size_t symmetrize_workspace(std::int64_t n, std::int64_t k);
template <typename T>
FASTPDR_API cudaError_t symmetrize_count(const std::int64_t* indices,  // [n, k]
                                         const T* values,              // [n, k]
                                         std::int64_t n, std::int64_t k, double sum_factor, double product_factor,
                                         void* workspace,        // kept for symmetrize_fill
                                         std::int64_t* ends,     // [n + 1]
                                         std::int64_t* entries,  // []
                                         cudaStream_t stream);
template <typename Index, typename T>
FASTPDR_API cudaError_t symmetrize_fill(const T* values,  // [n, k]
                                        std::int64_t n, std::int64_t k, double sum_factor, double product_factor,
                                        const void* workspace,
                                        const std::int64_t* ends,  // [n + 1]
                                        Index* indptr_out,         // [n + 1]
                                        Index* indices_out,        // [ends[n]] or more
                                        T* values_out,             // [ends[n]] or more
                                        cudaStream_t stream);

}  // namespace fastpdr::cuda
