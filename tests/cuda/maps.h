// Maps and matrices over their points, for the tests of the losses of maps.
#pragma once

#include <algorithm>

#include "check.h"

namespace fastpdr::check {

// A cloud of points, some of them twice, one far away.
inline std::vector<float> cloud(std::int64_t b, std::int64_t c, float scale = 2.0f) {
  std::vector<float> y = normal(b * c, scale, static_cast<unsigned>(b + c));
  for (std::int64_t a = 0; a < c && b > 6; ++a) {
    y[3 * c + a] = y[4 * c + a] = y[a];
    y[6 * c + a] = scale * 300.0f;
  }
  return y;
}

// A matrix [b, b] with a filled diagonal, to show that it is ignored; about `density` of its entries are not 0.
inline std::vector<float> matrix(std::int64_t b, double density, bool symmetric) {
  std::mt19937 generator(static_cast<unsigned>(b) + 17);
  std::uniform_real_distribution<float> number;
  std::vector<float> p(b * b);
  for (std::int64_t i = 0; i < b; ++i) {
    for (std::int64_t j = 0; j < b; ++j) {
      const bool stored = number(generator) < density;
      p[i * b + j] = stored || i == j ? number(generator) / static_cast<float>(b) : 0.0f;
      if (symmetric && j < i) p[i * b + j] = p[j * b + i];
    }
  }
  if (b > 1) p[1] = p[b] = 0.7f;
  return p;
}

struct Csr {
  std::vector<std::int64_t> indptr{0}, indices;
  std::vector<float> values;

  Csr() = default;
  Csr(const std::vector<float>& dense, std::int64_t b) {
    for (std::int64_t i = 0; i < b; ++i) {
      for (std::int64_t j = b - 1; j >= 0; --j) {  // in no order that is needed
        if (dense[i * b + j] == 0.0f) continue;
        indices.push_back(j);
        values.push_back(dense[i * b + j]);
      }
      indptr.push_back(static_cast<std::int64_t>(indices.size()));
    }
  }
};

// A map whose first m of b rows are points; padding is far away, or not a number.
inline std::vector<float> padded_map(const std::vector<float>& y, std::int64_t b) {
  std::vector<float> result = y;
  while (static_cast<std::int64_t>(result.size()) < b) result.push_back(result.size() % 3 == 0 ? NAN : 1e6f);
  return result;
}

// Rows without entries behind those of a matrix; room for entries that nobody reads.
inline Csr padded_matrix(Csr matrix, std::int64_t b) {
  matrix.indptr.resize(b + 1, matrix.indptr.back());
  matrix.indices.resize(matrix.indices.size() + 40, -7);
  matrix.values.resize(matrix.values.size() + 40, NAN);
  return matrix;
}

// Every point and the next ones, of a large map.
inline Csr ring(std::int64_t b, std::int64_t neighbours) {
  Csr result;
  for (std::int64_t i = 0; i < b; ++i) {
    for (std::int64_t j = 1; j <= neighbours; ++j) {
      result.indices.push_back((i + j * j) % b);
      result.values.push_back(1.0f / static_cast<float>(j));
    }
    result.indptr.push_back(static_cast<std::int64_t>(result.indices.size()));
  }
  return result;
}

#ifdef FASTPDR_CUDA_EMULATOR
constexpr std::int64_t kLarge = 1500;
#else
constexpr std::int64_t kLarge = 20000;  // several tiles in a block's span, whose size then has a remainder
#endif

// The loss, then the gradient. A loss near 0 is what is left of sums that cancel: judged by these, of the size of 1.
inline void near_loss(const std::string& what, const std::vector<float>& actual, const std::vector<float>& expected) {
  const double error = std::abs(static_cast<double>(actual[0]) - expected[0]);
  expect(error <= kRelativeRms * std::max(std::abs(expected[0]), 0.1f),
         what + ": loss " + std::to_string(actual[0]) + ", not " + std::to_string(expected[0]));
  near(what + ", gradient", std::vector<float>(actual.begin() + 1, actual.end()),
       std::vector<float>(expected.begin() + 1, expected.end()));
}

inline void not_a_number(const std::string& what, const std::vector<float>& actual) {
  expect(std::isnan(actual[0]), what + ": loss is not NaN");
}

}  // namespace fastpdr::check
