// Layer normalisation and GELU of the rows of a hidden layer in one pass, and its gradient.
//
// Formulas: Ba, Kiros & Hinton (2016), "Layer Normalization"; Hendrycks & Gimpel (2016), "Gaussian Error Linear Units",
// the exact one, z Phi(z). The normal distribution is Abramowitz & Stegun 26.2.17, within 7.5e-8.
// Precision policy: float32 whatever the type of the rows; the gradients of weight and bias are sums of at most 32
// chunks of rows, in a fixed order that does not depend on the threads.
#pragma once

#include <cstdint>

#include "fastpdr/export.h"

namespace fastpdr {

// The upper half of a float32, rounded to nearest, ties to even.
struct BFloat16 {
  std::uint16_t bits;
};

// y = gelu(z), slope = gelu'(z), z = (x - mean) scale weight + bias, scale = 1 / sqrt(variance + eps), mean and
// variance of the row. T is float or BFloat16; d >= 1.
template <typename T>
FASTPDR_API void layer_norm_gelu(const T* x,           // [n, d]
                                 const float* weight,  // [d]
                                 const float* bias,    // [d]
                                 std::int64_t n, std::int64_t d, double eps,
                                 T* y,           // [n, d]
                                 T* slope,       // [n, d]
                                 float* mean,    // [n]
                                 float* scale);  // [n]

template <typename T>
FASTPDR_API void layer_norm_gelu_backward(const T* grad,        // [n, d], of y
                                          const T* x,           // [n, d]
                                          const T* slope,       // [n, d]
                                          const float* weight,  // [d]
                                          const float* mean,    // [n]
                                          const float* scale,   // [n]
                                          std::int64_t n, std::int64_t d,
                                          T* grad_x,           // [n, d]
                                          float* grad_weight,  // [d]
                                          float* grad_bias);   // [d]

}  // namespace fastpdr
