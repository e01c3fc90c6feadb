// What the tests of the CUDA kernels share: device memory, comparison, and a count of what failed.
//
//   int main() { return fastpdr::check::run([] { ...; check::near("loss", device, host); }); }
//
// The same program runs in the emulator and, compiled by nvcc, on a GPU.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "portable.h"

namespace fastpdr::check {

// Of float32 results against another implementation, relative root mean square: that of tests/conftest.py.
constexpr double kRelativeRms = 1e-5;

// To sanitizers, some hundred times slower than what they watch, sizes matter less than barriers: the thread sanitizer
// takes few of them, and so does a GPU under FASTPDR_CHECK_QUICK=1, for compute-sanitizer.
#ifdef __SANITIZE_THREAD__
constexpr bool kThorough = false;
#else
inline const bool kThorough = std::getenv("FASTPDR_CHECK_QUICK") == nullptr;
#endif

// The sanitizers have their own ways of finding what a second run or another order shows.
#ifdef FASTPDR_CUDA_EMULATOR
constexpr bool kOnce = cuda_emulator::kSanitized;
#else
constexpr bool kOnce = false;
#endif

// Around warps and blocks.
inline const std::vector<std::int64_t> kSizes =
    kThorough ? std::vector<std::int64_t>{0, 1, 2, 7, 31, 32, 33, 129, 500} : std::vector<std::int64_t>{0, 1, 33, 129};

struct Counts {
  int right = 0, wrong = 0;
};
inline Counts counts;

// The largest relative RMS that was seen, and where: the emulator's and a GPU's stand side by side in bench/gpu.sh.
inline double largest_error = 0.0;
inline std::string largest_where = "nothing";

inline void require(cudaError_t error, const char* what = "CUDA") {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

inline void require_done(cudaError_t error, const char* what = "launch") {
  require(error, what);
  require(cudaDeviceSynchronize(), what);
}

// Prints only what is wrong.
inline void expect(bool right, const std::string& what) {
  ++(right ? counts.right : counts.wrong);
  if (!right) std::printf("WRONG: %s\n", what.c_str());
}

template <typename T>
class Device {
 public:
  explicit Device(std::size_t size) : size_(size) {
    if (size > 0) require(cudaMalloc(&data_, size * sizeof(T)), "cudaMalloc");
  }
  explicit Device(const std::vector<T>& host) : Device(host.size()) {
    if (size_ > 0) require(cudaMemcpy(data_, host.data(), size_ * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device() { cudaFree(data_); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }

  std::vector<T> host() const {
    std::vector<T> result(size_);
    if (size_ > 0) require(cudaMemcpy(result.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return result;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_;
};

// The same numbers as another type.
template <typename To, typename From>
std::vector<To> converted(const std::vector<From>& values) {
  return std::vector<To>(values.begin(), values.end());
}

// Root mean square of the difference, relative to that of the expected values (absolute where these are 0).
template <typename A, typename B>
double relative_rms(const std::vector<A>& actual, const std::vector<B>& expected) {
  if (actual.size() != expected.size()) return INFINITY;
  double difference = 0.0, scale = 0.0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double a = static_cast<double>(actual[i]), e = static_cast<double>(expected[i]);
    difference += (a - e) * (a - e);
    scale += e * e;
  }
  if (actual.empty()) return 0.0;
  return std::sqrt(scale > 0.0 ? difference / scale : difference / static_cast<double>(actual.size()));
}

template <typename A, typename B>
void near(const std::string& what, const std::vector<A>& actual, const std::vector<B>& expected,
          double tolerance = kRelativeRms) {
  const double error = relative_rms(actual, expected);
  if (error > largest_error) {
    largest_error = error;
    largest_where = what;
  }
  expect(error <= tolerance, what + ": relative RMS " + std::to_string(error));  // NaN is wrong
}

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// For results that are whole numbers or copies.
template <typename T>
void equal(const std::string& what, const std::vector<T>& actual, const std::vector<T>& expected) {
  expect(same_bits(actual, expected), what + ": not equal");
}

// What `repeated` saw in the first order of threads and blocks, and how far the present order has come.
inline std::vector<std::uint64_t> digests;
inline std::size_t next_digest = 0;

template <typename T>
std::uint64_t digest(const std::vector<T>& values) {
  std::uint64_t result = 14695981039346656037u;  // FNV-1a
  const unsigned char* bytes = reinterpret_cast<const unsigned char*>(values.data());
  for (std::size_t i = 0; i < values.size() * sizeof(T); ++i) result = (result ^ bytes[i]) * 1099511628211u;
  return result;
}

// Returns what `compute` -> vector gives, and wants the same bits from it twice and in every order.
template <typename F>
auto repeated(const std::string& what, F compute) {
  auto first = compute();
  if (next_digest == digests.size()) {
    if (kOnce) return first;
    expect(same_bits(compute(), first), what + ": other bits the second time");
    digests.push_back(digest(first));
  } else {
    expect(digest(first) == digests[next_digest], what + ": other bits in another order of threads");
  }
  ++next_digest;
  return first;
}

inline std::vector<float> normal(std::size_t size, float scale = 1.0f, unsigned seed = 0) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> distribution(0.0f, scale);
  std::vector<float> result(size);
  for (float& value : result) value = distribution(generator);
  return result;
}

inline std::vector<float> uniform(std::size_t size, float low = 0.0f, float high = 1.0f, unsigned seed = 0) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> distribution(low, high);
  std::vector<float> result(size);
  for (float& value : result) value = distribution(generator);
  return result;
}

// Runs the tests, in the plain emulator in three orders of threads and blocks; returns main's status.
template <typename F>
int run(F tests) {
  try {
    tests();
#ifdef FASTPDR_CUDA_EMULATOR
    using cuda_emulator::Options;
    for (const auto order : {Options::kReverse, Options::kRandom}) {
      if (kOnce) break;
      cuda_emulator::options.order = order;
      next_digest = 0;
      tests();
    }
#endif
  } catch (const std::exception& error) {
    std::printf("STOPPED: %s\n", error.what());
    return 2;
  }
  std::printf("%d right, %d wrong; largest relative RMS %.1e (%s)\n", counts.right, counts.wrong, largest_error,
              largest_where.c_str());
  return counts.wrong == 0 ? 0 : 1;
}

}  // namespace fastpdr::check
