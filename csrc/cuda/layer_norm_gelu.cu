// CUDA layer normalisation and GELU: a warp takes a row.
//
// Method: mean, variance, value and slope follow as on the CPU. A lane reads four columns at a time; rows of up to 1024
// columns stay in registers, longer ones are read again for every pass. Backward, one launch takes the rows and one the
// columns, in at most kMostChunks chunks of rows, which a third adds up: to read everything twice costs less than the
// few warps that sums of whole columns in registers would leave. Precision policy: float32 whatever the type of the
// rows; the order of all sums depends on n and d alone.
#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <type_traits>

#include "fastpdr/cuda.h"
#include "fastpdr/layer_norm_gelu.h"
#include "indexing.cuh"

namespace fastpdr::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr int kQuad = 4;  // columns that are read together
constexpr std::int64_t kMostChunks = 64, kChunkRows = 16;
constexpr int kFewQuads = 2, kManyQuads = 8;  // of a lane, for up to 256 and 1024 columns

__device__ __forceinline__ float widen(float value) {
  return value;
}

__device__ __forceinline__ float widen(BFloat16 value) {
  return __int_as_float(static_cast<int>(static_cast<unsigned>(value.bits) << 16));
}

__device__ __forceinline__ void narrow(float value, float& target) {
  target = value;
}

// To nearest, ties to even.
__device__ __forceinline__ void narrow(float value, BFloat16& target) {
  const auto bits = static_cast<unsigned>(__float_as_int(value));
  const unsigned rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  target.bits = static_cast<std::uint16_t>(value == value ? rounded : 0x7fc0u);
}

template <typename T>
struct alignas(kQuad * sizeof(T)) Quad {
  T entry[kQuad];
};

// What the rows have in common; T is float or BFloat16.
struct Shape {
  std::int64_t n, d;
  bool aligned;  // whether quads of all rows lie on their boundaries
};

// Columns j to j + 3 of a row, 0 beyond its end.
template <typename T>
__device__ __forceinline__ void load(const Shape& shape, const T* row, std::int64_t j, float (&values)[kQuad]) {
  if (shape.aligned) {
    const Quad<T> quad = *reinterpret_cast<const Quad<T>*>(row + j);
#pragma unroll
    for (int e = 0; e < kQuad; ++e) values[e] = widen(quad.entry[e]);
  } else {
#pragma unroll
    for (int e = 0; e < kQuad; ++e) values[e] = j + e < shape.d ? widen(row[j + e]) : 0.0f;
  }
}

template <typename T>
__device__ __forceinline__ void store(const Shape& shape, const float (&values)[kQuad], T* row, std::int64_t j) {
  if (shape.aligned) {
    Quad<T> quad;
#pragma unroll
    for (int e = 0; e < kQuad; ++e) narrow(values[e], quad.entry[e]);
    *reinterpret_cast<Quad<T>*>(row + j) = quad;
  } else {
#pragma unroll
    for (int e = 0; e < kQuad; ++e) {
      if (j + e < shape.d) narrow(values[e], row[j + e]);
    }
  }
}

// Calls use(q, j) for the lane's q-th quad, at column j: for the kQuads that a row has at most, or for as many as it
// has where kQuads is 0 and nothing is kept.
template <int kQuads, typename F>
__device__ __forceinline__ void each_quad(std::int64_t d, F use) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if constexpr (kQuads > 0) {
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      const std::int64_t j = (q * kWarp + lane) * kQuad;
      if (j < d) use(q, j);
    }
  } else {
    for (std::int64_t j = lane * kQuad; j < d; j += kWarp * kQuad) use(0, j);
  }
}

template <int kQuads>
constexpr int kKept = kQuads > 0 ? kQuads : 1;

// The normal distribution and its density at z, as the CPU kernel takes them.
struct Normal {
  float below, density;

  __device__ __forceinline__ explicit Normal(float z) {
    density = exp2f(fmaxf(z * z * -0.72134752044448f, -126.0f)) * 0.398942280401433f;
    const float t = __fdividef(1.0f, 1.0f + 0.2316419f * fabsf(z));
    const float series = (((t * 1.330274429f - 1.821255978f) * t + 1.781477937f) * t - 0.356563782f) * t;
    const float tail = (series + 0.319381530f) * t * density;
    below = z < 0.0f ? tail : 1.0f - tail;
  }
};

template <typename T, int kQuads>
__global__ void __launch_bounds__(kThreads)
    forward(Shape shape, const T* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias,
            float eps, T* __restrict__ y, T* __restrict__ slope, float* __restrict__ means,
            float* __restrict__ scales) {
  const std::int64_t i = row_of_warp<kThreads>(), d = shape.d;
  if (i >= shape.n) return;
  const T* const row = x + i * d;
  const float first = widen(row[0]), share = 1.0f / static_cast<float>(d);
  float kept[kKept<kQuads>][kQuad], sum = 0.0f, squares = 0.0f;
  each_quad<kQuads>(d, [&](int q, std::int64_t j) {
    load(shape, row, j, kept[q]);
    // From the first number on: where all are the same, their mean is exactly that, whatever its size.
#pragma unroll
    for (int e = 0; e < kQuad; ++e) sum += j + e < d ? kept[q][e] - first : 0.0f;
  });
  const float mean = first + warp_sum(sum) * share;
  each_quad<kQuads>(d, [&](int q, std::int64_t j) {
    if constexpr (kQuads == 0) load(shape, row, j, kept[q]);
#pragma unroll
    for (int e = 0; e < kQuad; ++e) {
      const float centred = j + e < d ? kept[q][e] - mean : 0.0f;
      squares = fmaf(centred, centred, squares);
    }
  });
  const float scale = 1.0f / sqrtf(warp_sum(squares) * share + eps);
  each_quad<kQuads>(d, [&](int q, std::int64_t j) {
    if constexpr (kQuads == 0) load(shape, row, j, kept[q]);
    float factor[kQuad], offset[kQuad], value[kQuad], rise[kQuad];
    load(shape, weight, j, factor);
    load(shape, bias, j, offset);
#pragma unroll
    for (int e = 0; e < kQuad; ++e) {
      const float z = fmaf((kept[q][e] - mean) * scale, factor[e], offset[e]);
      const Normal at(z);
      value[e] = z * at.below;
      rise[e] = fmaf(z, at.density, at.below);
    }
    store(shape, value, y + i * d, j);
    store(shape, rise, slope + i * d, j);
  });
  if (threadIdx.x % kWarp == 0) {
    means[i] = mean;
    scales[i] = scale;
  }
}

// What a backward pass reads; T is the type of the rows.
template <typename T>
struct Saved {
  const T *grad, *x, *slope;           // [n, d]
  const float *weight, *mean, *scale;  // [d], [n], [n]
};

template <typename T, int kQuads>
__global__ void __launch_bounds__(kThreads) backward_rows(Shape shape, Saved<T> saved, T* __restrict__ grad_x) {
  const std::int64_t i = row_of_warp<kThreads>(), d = shape.d, begin = i * d;
  if (i >= shape.n) return;
  const float mean = saved.mean[i], scale = saved.scale[i], share = 1.0f / static_cast<float>(d);
  float normal[kKept<kQuads>][kQuad], pull[kKept<kQuads>][kQuad];  // the normalised row, and its gradient
  const auto read = [&](int q, std::int64_t j) {
    float slope[kQuad], weight[kQuad];
    load(shape, saved.x + begin, j, normal[q]);
    load(shape, saved.grad + begin, j, pull[q]);
    load(shape, saved.slope + begin, j, slope);
    load(shape, saved.weight, j, weight);  // 0 beyond the end, and so is the pull
#pragma unroll
    for (int e = 0; e < kQuad; ++e) {
      normal[q][e] = j + e < d ? (normal[q][e] - mean) * scale : 0.0f;
      pull[q][e] *= slope[e] * weight[e];
    }
  };
  float pulls = 0.0f, stretch = 0.0f;
  each_quad<kQuads>(d, [&](int q, std::int64_t j) {
    read(q, j);
#pragma unroll
    for (int e = 0; e < kQuad; ++e) {
      pulls += pull[q][e];
      stretch = fmaf(pull[q][e], normal[q][e], stretch);
    }
  });
  const float shift = warp_sum(pulls) * share, tilt = warp_sum(stretch) * share;
  each_quad<kQuads>(d, [&](int q, std::int64_t j) {
    if constexpr (kQuads == 0) read(q, j);
    float result[kQuad];
#pragma unroll
    for (int e = 0; e < kQuad; ++e) result[e] = scale * (pull[q][e] - shift - normal[q][e] * tilt);
    store(shape, result, grad_x + begin, j);
  });
}

// How the rows of a column are shared out.
struct Chunks {
  std::int64_t rows, count, tiles;  // rows of a chunk; chunks; blocks of columns

  Chunks(std::int64_t n, std::int64_t d)
      : rows(std::max(kChunkRows, divide_up(n, kMostChunks))), count(divide_up(n, rows)), tiles(divide_up(d, kWarp)) {}
};

// The gradients of weight and bias from a chunk of rows to parts [chunks, 2, d]; a lane has a column.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    backward_columns(Shape shape, Saved<T> saved, Chunks chunks, float* __restrict__ parts) {
  FASTPDR_SHARED(float, sums, [2][kWarps][kWarp]);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const std::int64_t chunk = blockIdx.x / chunks.tiles, j = blockIdx.x % chunks.tiles * kWarp + lane, d = shape.d;
  const std::int64_t end = min(shape.n, (chunk + 1) * chunks.rows);
  float of_weight = 0.0f, of_bias = 0.0f;
  if (j < d) {
#pragma unroll 4
    for (std::int64_t i = chunk * chunks.rows + warp; i < end; i += kWarps) {
      const float of_z = widen(saved.grad[i * d + j]) * widen(saved.slope[i * d + j]);
      of_weight = fmaf(of_z, (widen(saved.x[i * d + j]) - saved.mean[i]) * saved.scale[i], of_weight);
      of_bias += of_z;
    }
  }
  sums[0][warp][lane] = of_weight;
  sums[1][warp][lane] = of_bias;
  __syncthreads();
  if (warp >= 2 || j >= d) return;
  float sum = 0.0f;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += sums[warp][w][lane];
  parts[(chunk * 2 + warp) * d + j] = sum;
}

__global__ void __launch_bounds__(kThreads)
    add_chunks(const float* __restrict__ parts, std::int64_t chunks, std::int64_t d, float* __restrict__ grad_weight,
               float* __restrict__ grad_bias) {
  const std::int64_t j = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (j >= 2 * d) return;
  float sum = 0.0f;
#pragma unroll 8
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) sum += parts[chunk * 2 * d + j];
  (j < d ? grad_weight[j] : grad_bias[j - d]) = sum;
}

// Whether quads of rows of d columns at all these addresses lie on their boundaries.
bool aligned(std::int64_t d, std::size_t quad, std::initializer_list<const void*> rows,
             std::initializer_list<const void*> numbers) {
  const auto on = [](std::size_t size) {
    return [size](const void* address) { return reinterpret_cast<std::uintptr_t>(address) % size == 0; };
  };
  return d % kQuad == 0 && std::all_of(rows.begin(), rows.end(), on(quad)) &&
         std::all_of(numbers.begin(), numbers.end(), on(sizeof(Quad<float>)));
}

// Calls launch(quads) with how many a lane keeps, as a constant.
template <typename F>
void with_quads(std::int64_t d, F launch) {
  if (d <= kFewQuads * kWarp * kQuad) {
    launch(std::integral_constant<int, kFewQuads>());
  } else if (d <= kManyQuads * kWarp * kQuad) {
    launch(std::integral_constant<int, kManyQuads>());
  } else {
    launch(std::integral_constant<int, 0>());
  }
}

}  // namespace

template <typename T>
cudaError_t layer_norm_gelu(const T* x, const float* weight, const float* bias, std::int64_t n, std::int64_t d,
                            double eps, T* y, T* slope, float* mean, float* scale, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  const Shape shape{n, d, aligned(d, sizeof(Quad<T>), {x, y, slope}, {weight, bias})};
  with_quads(d, [&](auto quads) {
    FASTPDR_LAUNCH((forward<T, decltype(quads)::value>), grid(divide_up(n, kWarps)), dim3(kThreads), 0, stream, shape,
                   x, weight, bias, static_cast<float>(eps), y, slope, mean, scale);
  });
  return cudaGetLastError();
}

std::size_t layer_norm_gelu_backward_workspace(std::int64_t n, std::int64_t d) {
  return static_cast<std::size_t>(Chunks(n, d).count * 2 * d) * sizeof(float);
}

template <typename T>
cudaError_t layer_norm_gelu_backward(const T* grad, const T* x, const T* slope, const float* weight, const float* mean,
                                     const float* scale, std::int64_t n, std::int64_t d, void* workspace, T* grad_x,
                                     float* grad_weight, float* grad_bias, cudaStream_t stream) {
  const Shape shape{n, d, aligned(d, sizeof(Quad<T>), {grad, x, slope, grad_x}, {weight})};
  const Saved<T> saved{grad, x, slope, weight, mean, scale};
  const Chunks chunks(n, d);
  float* const parts = static_cast<float*>(workspace);
  if (n > 0) {
    with_quads(d, [&](auto quads) {
      FASTPDR_LAUNCH((backward_rows<T, decltype(quads)::value>), grid(divide_up(n, kWarps)), dim3(kThreads), 0, stream,
                     shape, saved, grad_x);
    });
    FASTPDR_LAUNCH((backward_columns<T>), grid(chunks.count * chunks.tiles), dim3(kThreads), 0, stream, shape, saved,
                   chunks, parts);
  }
  FASTPDR_LAUNCH(add_chunks, grid(divide_up(2 * d, kThreads)), dim3(kThreads), 0, stream,
                 static_cast<const float*>(parts), chunks.count, d, grad_weight, grad_bias);
  return cudaGetLastError();
}

#define FASTPDR_INSTANTIATE(T)                                                                                      \
  template cudaError_t layer_norm_gelu<T>(const T*, const float*, const float*, std::int64_t, std::int64_t, double, \
                                          T*, T*, float*, float*, cudaStream_t);                                    \
  template cudaError_t layer_norm_gelu_backward<T>(const T*, const T*, const T*, const float*, const float*,        \
                                                   const float*, std::int64_t, std::int64_t, void*, T*, float*,     \
                                                   float*, cudaStream_t);
FASTPDR_INSTANTIATE(float)
FASTPDR_INSTANTIATE(BFloat16)
#undef FASTPDR_INSTANTIATE

}  // namespace fastpdr::cuda
