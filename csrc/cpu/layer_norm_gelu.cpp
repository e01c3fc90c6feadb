// CPU layer normalisation and GELU: a row is widened to float32 in a buffer that stays in the first cache, so that its
// passes cost arithmetic alone. Distribution and density of the normal distribution share one exponential, from which
// the forward pass takes value and slope; the backward pass has none.
#include "fastpdr/layer_norm_gelu.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "simd.h"

namespace fastpdr {
namespace {

using simd::Floats;
using simd::Ints;

constexpr std::int64_t kMostChunks = 32, kChunkRows = 16;
constexpr std::int64_t kSerial = 16384;  // entries that one thread is faster with

template <int W>
FASTPDR_INLINE Floats<W> widen(const float* source) {
  return simd::load<W>(source);
}

template <int W>
FASTPDR_INLINE void narrow(float* target, Floats<W> value) {
  simd::store<W>(target, value);
}

template <int W>
struct Halves {
  typedef std::uint16_t Type __attribute__((vector_size(W * sizeof(std::uint16_t))));
};

template <int W>
FASTPDR_INLINE Floats<W> widen(const BFloat16* source) {
  typename Halves<W>::Type bits;
  std::memcpy(&bits, source, sizeof bits);
  return (Floats<W>)(__builtin_convertvector(bits, Ints<W>) << 16);
}

template <int W>
FASTPDR_INLINE void narrow(BFloat16* target, Floats<W> value) {
  const Ints<W> bits = (Ints<W>)value;
  const Ints<W> rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const auto kept = __builtin_convertvector(value == value ? rounded : Ints<W>{} + 0x7fc0, typename Halves<W>::Type);
  std::memcpy(target, &kept, sizeof kept);
}

// A row of d numbers as floats, filled up with zeros to whole vectors.
template <int W, typename T>
FASTPDR_INLINE void read_row(const T* source, std::int64_t d, float* line) {
  const std::int64_t whole = d / W * W;
  for (std::int64_t j = 0; j < whole; j += W) simd::store<W>(line + j, widen<W>(source + j));
  if (whole < d) {
    T rest[W] = {};
    std::copy(source + whole, source + d, rest);
    simd::store<W>(line + whole, widen<W>(rest));
  }
}

template <int W, typename T>
FASTPDR_INLINE void write_row(const float* line, std::int64_t d, T* target) {
  const std::int64_t whole = d / W * W;
  for (std::int64_t j = 0; j < whole; j += W) narrow<W>(target + j, simd::load<W>(line + j));
  if (whole < d) {
    T rest[W];
    narrow<W>(rest, simd::load<W>(line + whole));
    std::copy(rest, rest + (d - whole), target + whole);
  }
}

// The normal distribution at z.
template <int W>
struct Normal {
  Floats<W> below, density;

  FASTPDR_INLINE explicit Normal(Floats<W> z) {
    const Floats<W> power = simd::maximum<W>(z * z * -0.72134752044448f, simd::splat<W>(-126.0f));  // log2 e / 2
    density = simd::exp2_bounded<W>(power) * 0.398942280401433f;
    const Floats<W> t = 1.0f / (1.0f + 0.2316419f * (Floats<W>)((Ints<W>)z & 0x7fffffff));
    const Floats<W> series = (((t * 1.330274429f - 1.821255978f) * t + 1.781477937f) * t - 0.356563782f) * t;
    const Floats<W> tail = (series + 0.319381530f) * t * density;
    below = z < 0.0f ? tail : 1.0f - tail;
  }
};

// Weight and bias filled up with zeros to whole vectors.
struct Padded {
  std::int64_t d, padded;
  std::vector<float> weight, bias;

  Padded(const float* weight_, const float* bias_, std::int64_t d_) : d(d_) {
    const std::int64_t width = simd::width(simd::level());
    padded = (d + width - 1) / width * width;
    weight.resize(padded, 0.0f);
    bias.resize(padded, 0.0f);
    std::copy(weight_, weight_ + d, weight.begin());
    if (bias_ != nullptr) std::copy(bias_, bias_ + d, bias.begin());
  }
};

template <typename T>
struct Forward {
  const Padded& layer;
  float eps;
  const T* x;
  T *y, *slope;
  float *mean, *scale;
};

// `line` is [2, padded].
template <int W, typename T>
FASTPDR_INLINE void forward_body(const Forward<T>& of, std::int64_t begin, std::int64_t end, float* line) {
  const std::int64_t d = of.layer.d, padded = of.layer.padded;
  float* const slope = line + padded;
  for (std::int64_t i = begin; i < end; ++i) {
    read_row<W>(of.x + i * d, d, line);
    Floats<W> sums = {}, squares = {};
    // From the first number on: where all are the same, their mean is exactly that, whatever its size.
    const float first = line[0];
    std::fill(line + d, line + padded, first);
    for (std::int64_t j = 0; j < padded; j += W) sums += simd::load<W>(line + j) - first;
    const float mean = first + simd::sum<W>(sums) / static_cast<float>(d);
    std::fill(line + d, line + padded, mean);
    for (std::int64_t j = 0; j < padded; j += W) {
      const Floats<W> centred = simd::load<W>(line + j) - mean;
      squares += centred * centred;
    }
    const float scale = 1.0f / std::sqrt(simd::sum<W>(squares) / static_cast<float>(d) + of.eps);
    for (std::int64_t j = 0; j < padded; j += W) {
      const Floats<W> weight = simd::load<W>(of.layer.weight.data() + j);
      const Floats<W> bias = simd::load<W>(of.layer.bias.data() + j);
      const Floats<W> z = (simd::load<W>(line + j) - mean) * scale * weight + bias;
      const Normal<W> at(z);
      simd::store<W>(line + j, z * at.below);
      simd::store<W>(slope + j, at.below + z * at.density);
    }
    write_row<W>(line, d, of.y + i * d);
    write_row<W>(slope, d, of.slope + i * d);
    of.mean[i] = mean;
    of.scale[i] = scale;
  }
}

template <typename T>
struct Backward {
  const Padded& layer;
  const T *grad, *x, *slope;
  const float *mean, *scale;
  T* grad_x;
};

// Adds the rows' gradients of weight and bias to `sums` [2, padded]; `line` is [3, padded].
template <int W, typename T>
FASTPDR_INLINE void backward_body(const Backward<T>& of, std::int64_t begin, std::int64_t end, float* line,
                                  float* sums) {
  const std::int64_t d = of.layer.d, padded = of.layer.padded;
  float *const normal = line, *const pull = line + padded, *const slope = line + 2 * padded;
  float *const of_weight = sums, *const of_bias = sums + padded;
  for (std::int64_t i = begin; i < end; ++i) {
    read_row<W>(of.x + i * d, d, normal);
    read_row<W>(of.grad + i * d, d, pull);
    read_row<W>(of.slope + i * d, d, slope);
    const float mean = of.mean[i], scale = of.scale[i];
    Floats<W> pulls = {}, stretch = {};
    for (std::int64_t j = 0; j < padded; j += W) {
      const Floats<W> h = (simd::load<W>(normal + j) - mean) * scale;
      const Floats<W> of_z = simd::load<W>(pull + j) * simd::load<W>(slope + j);
      const Floats<W> of_h = of_z * simd::load<W>(of.layer.weight.data() + j);
      simd::store<W>(of_weight + j, simd::load<W>(of_weight + j) + of_z * h);
      simd::store<W>(of_bias + j, simd::load<W>(of_bias + j) + of_z);
      simd::store<W>(normal + j, h);
      simd::store<W>(pull + j, of_h);
      pulls += of_h;
      stretch += of_h * h;
    }
    const float shift = simd::sum<W>(pulls) / static_cast<float>(d);
    const float tilt = simd::sum<W>(stretch) / static_cast<float>(d);
    for (std::int64_t j = 0; j < padded; j += W) {
      simd::store<W>(pull + j, scale * (simd::load<W>(pull + j) - shift - simd::load<W>(normal + j) * tilt));
    }
    write_row<W>(pull, d, of.grad_x + i * d);
  }
}

#define FASTPDR_FOR_ROWS_OF(T)                                                                                  \
  FASTPDR_MULTIVERSION(forward, (const Forward<T>& of, std::int64_t begin, std::int64_t end, float* line),      \
                       (of, begin, end, line))                                                                  \
  FASTPDR_MULTIVERSION(backward,                                                                                \
                       (const Backward<T>& of, std::int64_t begin, std::int64_t end, float* line, float* sums), \
                       (of, begin, end, line, sums))
FASTPDR_FOR_ROWS_OF(float)
FASTPDR_FOR_ROWS_OF(BFloat16)
#undef FASTPDR_FOR_ROWS_OF

// Calls `function(chunk, begin, end)` for chunks of rows that do not depend on the threads.
template <typename F>
void for_chunks(std::int64_t n, std::int64_t d, F function) {
  const std::int64_t rows = std::max(kChunkRows, (n + kMostChunks - 1) / kMostChunks);
  const std::int64_t chunks = (n + rows - 1) / rows;
#pragma omp parallel for schedule(static) if (n * d > kSerial)
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    function(chunk, chunk * rows, std::min(n, (chunk + 1) * rows));
  }
}

}  // namespace

template <typename T>
void layer_norm_gelu(const T* x, const float* weight, const float* bias, std::int64_t n, std::int64_t d, double eps,
                     T* y, T* slope, float* mean, float* scale) {
  const Padded layer(weight, bias, d);
  const Forward<T> of{layer, static_cast<float>(eps), x, y, slope, mean, scale};
  for_chunks(n, d, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
    std::vector<float> line(2 * layer.padded);
    forward(of, begin, end, line.data());
  });
}

template <typename T>
void layer_norm_gelu_backward(const T* grad, const T* x, const T* slope, const float* weight, const float* mean,
                              const float* scale, std::int64_t n, std::int64_t d, T* grad_x, float* grad_weight,
                              float* grad_bias) {
  const Padded layer(weight, nullptr, d);
  const Backward<T> of{layer, grad, x, slope, mean, scale, grad_x};
  const std::int64_t size = 2 * layer.padded;
  std::vector<float> sums(kMostChunks * size, 0.0f);
  for_chunks(n, d, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end) {
    std::vector<float> line(3 * layer.padded);
    backward(of, begin, end, line.data(), sums.data() + chunk * size);
  });
  std::fill(grad_weight, grad_weight + d, 0.0f);
  std::fill(grad_bias, grad_bias + d, 0.0f);
  for (std::int64_t chunk = 0; chunk < kMostChunks; ++chunk) {
    const float* const part = sums.data() + chunk * size;
    for (std::int64_t j = 0; j < d; ++j) grad_weight[j] += part[j];
    for (std::int64_t j = 0; j < d; ++j) grad_bias[j] += part[layer.padded + j];
  }
}

#define FASTPDR_INSTANTIATE(T)                                                                                       \
  template void layer_norm_gelu<T>(const T*, const float*, const float*, std::int64_t, std::int64_t, double, T*, T*, \
                                   float*, float*);                                                                  \
  template void layer_norm_gelu_backward<T>(const T*, const T*, const T*, const float*, const float*, const float*,  \
                                            std::int64_t, std::int64_t, T*, float*, float*);
FASTPDR_INSTANTIATE(float)
FASTPDR_INSTANTIATE(BFloat16)
#undef FASTPDR_INSTANTIATE

}  // namespace fastpdr
