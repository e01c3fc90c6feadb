// layer_norm_gelu and its gradient against the CPU kernels, in both types, for every way that a row is read.
#include "check.h"
#include "fastpdr/cuda.h"
#include "fastpdr/layer_norm_gelu.h"

namespace {

using fastpdr::BFloat16;
using fastpdr::check::Device;
using Floats = std::vector<float>;

constexpr double kEps = 0.1;  // two nearby entries of a row have hardly a gradient, of which rounding would be all
constexpr double kBFloat16Rms = 2e-3;  // where a number lies between two of these, the other one may be taken

std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Rows as T, and back.
template <typename T>
std::vector<T> rows_of(const Floats& values) {
  if constexpr (std::is_same_v<T, float>) {
    return values;
  } else {
    std::vector<T> result(values.size());
    for (std::size_t e = 0; e < values.size(); ++e)
      result[e].bits = static_cast<std::uint16_t>(bits_of(values[e]) >> 16);
    return result;
  }
}

Floats floats_of(const Floats& values) {
  return values;
}

Floats floats_of(const std::vector<BFloat16>& values) {
  Floats result(values.size());
  for (std::size_t e = 0; e < values.size(); ++e) {
    const std::uint32_t bits = std::uint32_t{values[e].bits} << 16;
    std::memcpy(&result[e], &bits, sizeof bits);
  }
  return result;
}

// What a layer is given, and what comes of it on the CPU.
template <typename T>
struct Layer {
  std::int64_t n, d;
  std::vector<T> x, grad;
  Floats weight, bias;
  std::vector<T> y, slope, grad_x;
  Floats mean, scale, grad_weight, grad_bias;

  Layer(std::int64_t n_, std::int64_t d_, const Floats& x_)
      : n(n_),
        d(d_),
        x(rows_of<T>(x_)),
        grad(rows_of<T>(fastpdr::check::normal(n * d, 1.0f, 2))),
        weight(fastpdr::check::normal(d, 1.0f, 3)),
        bias(fastpdr::check::normal(d, 1.0f, 4)),
        y(n * d),
        slope(n * d),
        grad_x(n * d),
        mean(n),
        scale(n),
        grad_weight(d),
        grad_bias(d) {
    fastpdr::layer_norm_gelu(x.data(), weight.data(), bias.data(), n, d, kEps, y.data(), slope.data(), mean.data(),
                             scale.data());
    fastpdr::layer_norm_gelu_backward(grad.data(), x.data(), slope.data(), weight.data(), mean.data(), scale.data(), n,
                                      d, grad_x.data(), grad_weight.data(), grad_bias.data());
  }
};

template <typename T>
Floats joined(const std::vector<T>& rows, std::initializer_list<Floats> others) {
  Floats result = floats_of(rows);
  for (const Floats& other : others) result.insert(result.end(), other.begin(), other.end());
  return result;
}

// The rows lie `offset` entries behind a boundary. y and slope, then mean and scale.
template <typename T>
Floats forward_on_device(const Layer<T>& of, std::int64_t offset) {
  std::vector<T> moved(offset);
  moved.insert(moved.end(), of.x.begin(), of.x.end());
  const Device<T> x(moved);
  const Device<float> weight(of.weight), bias(of.bias);
  Device<T> y(of.x.size()), slope(of.x.size());
  Device<float> mean(of.n), scale(of.n);
  fastpdr::check::require_done(fastpdr::cuda::layer_norm_gelu(x.data() + offset, weight.data(), bias.data(), of.n, of.d,
                                                              kEps, y.data(), slope.data(), mean.data(), scale.data(),
                                                              nullptr));
  return joined(y.host(), {floats_of(slope.host()), mean.host(), scale.host()});
}

// The gradient of x, then of weight and bias.
template <typename T>
Floats backward_on_device(const Layer<T>& of, std::int64_t offset) {
  std::vector<T> moved(offset);
  moved.insert(moved.end(), of.grad.begin(), of.grad.end());
  const Device<T> grad(moved), x(of.x), slope(of.slope);
  const Device<float> weight(of.weight), mean(of.mean), scale(of.scale);
  Device<T> grad_x(of.x.size());
  Device<float> grad_weight(of.d), grad_bias(of.d);
  Device<char> workspace(fastpdr::cuda::layer_norm_gelu_backward_workspace(of.n, of.d));
  fastpdr::check::require_done(fastpdr::cuda::layer_norm_gelu_backward(
      grad.data() + offset, x.data(), slope.data(), weight.data(), mean.data(), scale.data(), of.n, of.d,
      workspace.data(), grad_x.data(), grad_weight.data(), grad_bias.data(), nullptr));
  return joined(grad_x.host(), {grad_weight.host(), grad_bias.host()});
}

template <typename T>
void compare(const std::string& what, const Layer<T>& of, std::int64_t offset = 0) {
  constexpr bool kExact = std::is_same_v<T, float>;
  const double allowed = kExact ? fastpdr::check::kRelativeRms : kBFloat16Rms;
  const std::string name =
      what + ", n = " + std::to_string(of.n) + ", d = " + std::to_string(of.d) + (kExact ? ", float32" : ", bfloat16");
  const Floats forward = fastpdr::check::repeated(name, [&] { return forward_on_device(of, offset); });
  fastpdr::check::near(name + ", forward", forward, joined(of.y, {floats_of(of.slope), of.mean, of.scale}), allowed);
  const Floats backward = fastpdr::check::repeated(name, [&] { return backward_on_device(of, offset); });
  fastpdr::check::near(name + ", backward", backward, joined(of.grad_x, {of.grad_weight, of.grad_bias}), allowed);
}

template <typename T>
void test(const std::string& what, std::int64_t n, std::int64_t d, std::int64_t offset = 0) {
  compare(what, Layer<T>(n, d, fastpdr::check::normal(n * d, 2.0f)), offset);
}

// A row with a number that is not finite is NaN, and the others are what they were.
template <typename T>
void test_faults(std::int64_t d) {
  const std::int64_t n = 10;
  Floats x = fastpdr::check::normal(n * d, 1.0f);
  const Floats clean = forward_on_device(Layer<T>(n, d, x), 0);
  x[3 * d + d - 1] = INFINITY;
  const Floats result = forward_on_device(Layer<T>(n, d, x), 0);
  bool gone = true, kept = true;
  for (std::int64_t e = 0; e < n * d; ++e)
    (e / d == 3 ? gone : kept) &= e / d == 3 ? std::isnan(result[e]) : result[e] == clean[e];
  fastpdr::check::expect(gone && kept, "a number that is not finite, d = " + std::to_string(d));
}

template <typename T>
void test_all() {
  using fastpdr::check::kThorough;
  for (const std::int64_t n : fastpdr::check::kSizes) test<T>("sizes", n, 20);
  for (const std::int64_t d :
       kThorough ? std::vector<std::int64_t>{1, 2, 3, 7, 33, 128, 255, 256, 257, 1000, 1024, 1025, 1500, 2048}
                 : std::vector<std::int64_t>{7, 260, 1100}) {
    test<T>("widths", 9, d);
  }
  for (const std::int64_t d : {20, 300, 1100}) test<T>("off the boundary", 9, d, 1);
  if (!kThorough) return;
  test<T>("several chunks", 1500, 36);
  compare("one number", Layer<T>(5, 40, Floats(200, 1000.5f)));
  test_faults<T>(24);
  test_faults<T>(1030);
}

}  // namespace

int main() {
  return fastpdr::check::run([] {
    test_all<float>();
    test_all<BFloat16>();
  });
}
