// pair_loss against the CPU kernel.
#include "fastpdr/cuda.h"
#include "fastpdr/pairs.h"
#include "maps.h"

namespace {

using fastpdr::PairCurve;
using fastpdr::check::cloud;
using fastpdr::check::Csr;
using fastpdr::check::Device;
using fastpdr::check::kLarge;
using fastpdr::check::matrix;
using fastpdr::check::ring;
using Floats = std::vector<float>;

struct Named {
  const char* name;
  PairCurve curve;  // a, b, repulsion, eps, clip, keras
};
const std::vector<Named> kCurves{
    {"umap", {1.577, 0.8951, 5.0, 1e-3, 4.0, false}},
    {"largevis", {1.0, 1.0, 35.0, 0.1, 5.0, false}},
    {"keras", {1.577, 0.8951, 5.0, 0.0, 0.0, true}},
    {"keras of unit power", {1.577, 1.0, 5.0, 0.0, 0.0, true}},
    {"keras, clipped", {1.577, 0.8951, 5.0, 0.0, 0.3, true}},
    {"keras of unit power, clipped", {1.577, 1.0, 5.0, 0.0, 0.3, true}},
    {"unclipped", {1.577, 0.8951, 5.0, 1e-3, 0.0, false}},
    {"unit power without eps", {0.3, 1.0, 5.0, 0.0, 1.0, false}},
    {"steep", {0.05, 2.5, 5.0, 1e-3, 4.0, false}},
    {"flat", {3.0, 0.3, 5.0, 1e-3, 4.0, false}},
    {"no repulsion", {1.577, 0.8951, 0.0, 1e-3, 4.0, false}},
};

// The loss, then the gradient; m >= 0: rows that are no padding.
Floats on_device(const Floats& y, const Csr& targets, std::int64_t b, std::int64_t c, const PairCurve& curve,
                 std::int64_t m = -1) {
  const Device<float> device_y(y), values(targets.values);
  const Device<std::int64_t> indptr(targets.indptr), indices(targets.indices), points(std::vector<std::int64_t>{m});
  Device<char> workspace(fastpdr::cuda::pair_loss_workspace(b, c));
  Device<float> loss(1), grad(b * c);
  fastpdr::check::require_done(fastpdr::cuda::pair_loss(device_y.data(), indptr.data(), indices.data(), values.data(),
                                                        m < 0 ? nullptr : points.data(),
                                                        static_cast<std::int64_t>(targets.values.size()), b, c, curve,
                                                        workspace.data(), loss.data(), grad.data(), nullptr));
  Floats result = loss.host();
  const Floats gradient = grad.host();
  result.insert(result.end(), gradient.begin(), gradient.end());
  return result;
}

Floats on_host(const Floats& y, const Csr& targets, std::int64_t b, std::int64_t c, const PairCurve& curve) {
  Floats result(1 + b * c);
  fastpdr::pair_loss(y.data(), targets.indptr.data(), targets.indices.data(), targets.values.data(), b, c, curve,
                     result.data(), result.data() + 1);
  return result;
}

void test_map(const std::string& name, const Floats& y, const Csr& targets, std::int64_t b, std::int64_t c,
              const Named& curve) {
  const std::string what = name + ", b = " + std::to_string(b) + ", c = " + std::to_string(c) + ", " + curve.name;
  const Floats actual = fastpdr::check::repeated(what, [&] { return on_device(y, targets, b, c, curve.curve); });
  fastpdr::check::near_loss(what, actual, on_host(y, targets, b, c, curve.curve));
}

void test_padding(std::int64_t b, std::int64_t m, std::int64_t c, const Named& curve) {
  const Floats y = cloud(m, c);
  const Csr targets(matrix(m, 0.2, true), m);
  Floats expected = on_host(y, targets, m, c, curve.curve);
  expected.resize(1 + b * c);
  const std::string what = "b = " + std::to_string(b) + ", of which points " + std::to_string(m) +
                           ", c = " + std::to_string(c) + ", " + curve.name;
  const Floats padded = fastpdr::check::padded_map(y, b * c);
  const Csr with_room = fastpdr::check::padded_matrix(targets, b);
  const Floats actual =
      fastpdr::check::repeated(what, [&] { return on_device(padded, with_room, b, c, curve.curve, m); });
  fastpdr::check::near_loss(what, actual, expected);
}

// No direction, no force; the CPU kernel's padding leaves some 1e-20.
void test_one_place(const Named& curve) {
  const Csr targets(matrix(40, 0.5, true), 40);
  const Floats y(80, 0.25f), expected = on_host(y, targets, 40, 2, curve.curve);
  Floats with_zeros(81);
  with_zeros[0] = expected[0];
  fastpdr::check::near_loss(std::string("one place, ") + curve.name, on_device(y, targets, 40, 2, curve.curve),
                            with_zeros);
}

void test_faults(std::int64_t b) {
  const Floats y = cloud(b, 2), v = matrix(b, 0.3, false);
  for (const Named& curve : kCurves) {
    for (const float bad : {NAN, INFINITY}) {
      Floats bad_y = y, bad_v = v;
      bad_y[b] = bad_v[2 * b + 1] = bad;
      const std::string what = std::to_string(bad) + ", " + curve.name;
      fastpdr::check::not_a_number("y " + what, on_device(bad_y, Csr(v, b), b, 2, curve.curve));
      fastpdr::check::not_a_number("targets " + what, on_device(y, Csr(bad_v, b), b, 2, curve.curve));
    }
  }
  Csr stray(v, b), falling(v, b), beyond(v, b);
  stray.indices[3] = -1;
  falling.indptr[2] = falling.indptr[1] - 1;
  beyond.indptr[b] += 1;
  for (const Csr* targets : {&stray, &falling, &beyond}) {
    fastpdr::check::not_a_number("targets that lead astray", on_device(y, *targets, b, 2, kCurves[0].curve));
  }
}

}  // namespace

int main() {
  return fastpdr::check::run([] {
    using fastpdr::check::kThorough;
    for (const std::int64_t b : fastpdr::check::kSizes) {
      for (const int i : {0, 1}) {
        test_map("sizes", fastpdr::check::normal(2 * b, 2.0f), Csr(matrix(b, 0.2, true), b), b, 2, kCurves[i]);
      }
    }
    for (const std::int64_t c : kThorough ? std::vector<std::int64_t>{1, 2, 3, 4, 17} : std::vector<std::int64_t>{5}) {
      for (const Named& curve : kCurves) {
        test_map("widths", cloud(83, c), Csr(matrix(83, 0.2, false), 83), 83, c, curve);
      }
    }
    for (const std::int64_t m :
         kThorough ? std::vector<std::int64_t>{0, 1, 2, 32, 61, 97} : std::vector<std::int64_t>{40}) {
      for (const std::int64_t c : {2, 3, 5}) test_padding(97, m, c, kCurves[0]);
    }
    if (!kThorough) return;
    for (const Named& curve : kCurves) test_padding(600, 290, 2, curve);
    test_map("widths", cloud(83, 64), Csr(matrix(83, 0.2, false), 83), 83, 64, kCurves[0]);
    test_map("several blocks of rows", cloud(700, 2), Csr(matrix(700, 0.02, false), 700), 700, 2, kCurves[0]);
    test_map("several blocks of rows", cloud(600, 3), Csr(matrix(600, 0.02, false), 600), 600, 3, kCurves[1]);
    for (const int i : {0, 1}) test_map("large", cloud(kLarge, 2), ring(kLarge, 15), kLarge, 2, kCurves[i]);
    for (const Named& curve : kCurves) {
      for (const float scale : {1e-4f, 1e-2f, 1e2f, 1e4f, 1e6f}) {
        const Floats y = fastpdr::check::normal(102, scale);
        test_map("scale " + std::to_string(scale), y, Csr(matrix(51, 0.5, true), 51), 51, 2, curve);
      }
      Floats small = matrix(51, 0.5, false);
      for (float& value : small) value *= 1e-30f;
      test_map("small targets", cloud(51, 2), Csr(small, 51), 51, 2, curve);
      test_one_place(curve);
      test_map("no entry", cloud(20, 2), Csr(Floats(400), 20), 20, 2, curve);
    }
    test_faults(40);
  });
}
