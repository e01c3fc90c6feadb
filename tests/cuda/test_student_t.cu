// student_t_kl, dense and sparse p, against the CPU kernels.
#include "fastpdr/cuda.h"
#include "fastpdr/student_t.h"
#include "maps.h"

namespace {

using fastpdr::check::cloud;
using fastpdr::check::Csr;
using fastpdr::check::Device;
using fastpdr::check::kLarge;
using fastpdr::check::matrix;
using fastpdr::check::near_loss;
using fastpdr::check::repeated;
using fastpdr::check::ring;
using Floats = std::vector<float>;

struct Settings {
  double dof, exaggeration;
  bool by_row;
};

// The loss, then the gradient.
Floats joined(const Device<float>& loss, const Device<float>& grad) {
  Floats result = loss.host();
  const Floats gradient = grad.host();
  result.insert(result.end(), gradient.begin(), gradient.end());
  return result;
}

Floats dense_on_device(const Floats& y, const Floats& p, std::int64_t b, std::int64_t c, Settings s) {
  const Device<float> device_y(y), device_p(p);
  Device<char> workspace(fastpdr::cuda::student_t_kl_workspace(b, c, s.by_row));
  Device<float> loss(1), grad(b * c);
  fastpdr::check::require_done(fastpdr::cuda::student_t_kl(device_y.data(), device_p.data(), b, c, s.dof,
                                                           s.exaggeration, s.by_row, workspace.data(), loss.data(),
                                                           grad.data(), nullptr));
  return joined(loss, grad);
}

// m >= 0: rows that are no padding.
Floats sparse_on_device(const Floats& y, const Csr& p, std::int64_t b, std::int64_t c, Settings s,
                        std::int64_t m = -1) {
  const Device<float> device_y(y), values(p.values);
  const Device<std::int64_t> indptr(p.indptr), indices(p.indices), points(std::vector<std::int64_t>{m});
  Device<char> workspace(fastpdr::cuda::student_t_kl_csr_workspace(b, c, s.by_row));
  Device<float> loss(1), grad(b * c);
  fastpdr::check::require_done(fastpdr::cuda::student_t_kl_csr(
      device_y.data(), indptr.data(), indices.data(), values.data(), m < 0 ? nullptr : points.data(),
      static_cast<std::int64_t>(p.values.size()), b, c, s.dof, s.exaggeration, s.by_row, workspace.data(), loss.data(),
      grad.data(), nullptr));
  return joined(loss, grad);
}

Floats dense_on_host(const Floats& y, const Floats& p, std::int64_t b, std::int64_t c, Settings s) {
  Floats result(1 + b * c);
  fastpdr::student_t_kl(y.data(), p.data(), b, c, s.dof, s.exaggeration, s.by_row, result.data(), result.data() + 1);
  return result;
}

Floats sparse_on_host(const Floats& y, const Csr& p, std::int64_t b, std::int64_t c, Settings s) {
  Floats result(1 + b * c);
  fastpdr::student_t_kl_csr(y.data(), p.indptr.data(), p.indices.data(), p.values.data(), b, c, s.dof, s.exaggeration,
                            s.by_row, result.data(), result.data() + 1);
  return result;
}

std::string described(const std::string& name, std::int64_t b, std::int64_t c, Settings s) {
  return name + ", b = " + std::to_string(b) + ", c = " + std::to_string(c) + ", dof = " + std::to_string(s.dof) +
         ", exaggeration = " + std::to_string(s.exaggeration) + (s.by_row ? ", by row" : "");
}

void test_sparse(const std::string& name, const Floats& y, const Csr& p, std::int64_t b, std::int64_t c, Settings s) {
  const std::string what = described(name, b, c, s) + ", sparse";
  near_loss(what, repeated(what, [&] { return sparse_on_device(y, p, b, c, s); }), sparse_on_host(y, p, b, c, s));
}

void test_padding(std::int64_t b, std::int64_t m, std::int64_t c, Settings s) {
  const std::string what = described("of which points " + std::to_string(m), b, c, s);
  const Floats y = cloud(m, c);
  const Csr p(matrix(m, 0.2, true), m);
  Floats expected = sparse_on_host(y, p, m, c, s);
  expected.resize(1 + b * c);
  const Floats padded = fastpdr::check::padded_map(y, b * c);
  const Csr with_room = fastpdr::check::padded_matrix(p, b);
  near_loss(what, repeated(what, [&] { return sparse_on_device(padded, with_room, b, c, s, m); }), expected);
}

void test_map(const std::string& name, const Floats& y, const Floats& p, std::int64_t b, std::int64_t c, Settings s) {
  const std::string what = described(name, b, c, s) + ", dense";
  near_loss(what, repeated(what, [&] { return dense_on_device(y, p, b, c, s); }), dense_on_host(y, p, b, c, s));
  test_sparse(name, y, Csr(p, b), b, c, s);
}

void test_faults(std::int64_t b) {
  const Floats y = cloud(b, 2), p = matrix(b, 0.3, false);
  for (const bool by_row : {false, true}) {
    const Settings s{1.0, 1.0, by_row};
    for (const float bad : {NAN, INFINITY}) {
      Floats bad_y = y, bad_p = p;
      bad_y[b] = bad_p[2 * b + 1] = bad;
      const std::string what = std::to_string(bad) + (by_row ? ", by row" : "");
      fastpdr::check::not_a_number("dense, y " + what, dense_on_device(bad_y, p, b, 2, s));
      fastpdr::check::not_a_number("dense, p " + what, dense_on_device(y, bad_p, b, 2, s));
      fastpdr::check::not_a_number("sparse, y " + what, sparse_on_device(bad_y, Csr(p, b), b, 2, s));
      fastpdr::check::not_a_number("sparse, p " + what, sparse_on_device(y, Csr(bad_p, b), b, 2, s));
    }
    Csr stray(p, b), falling(p, b), beyond(p, b);
    stray.indices[3] = b;
    falling.indptr[2] = -1;
    beyond.indptr[b] += 1;
    fastpdr::check::not_a_number("stray column", sparse_on_device(y, stray, b, 2, s));
    fastpdr::check::not_a_number("negative indptr", sparse_on_device(y, falling, b, 2, s));
    fastpdr::check::not_a_number("indptr beyond the entries", sparse_on_device(y, beyond, b, 2, s));
  }
}

}  // namespace

int main() {
  return fastpdr::check::run([] {
    using fastpdr::check::kThorough;
    const Settings plain{1.0, 1.0, false}, exaggerated{1.0, 4.0, false}, heavy{0.5, 1.0, true}, light{3.0, 2.0, false};
    const Settings by_row{1.0, 1.0, true};
    for (const std::int64_t b : fastpdr::check::kSizes) {
      const double exaggeration = b == 2 ? 2.0 : 1.0;  // the forces between two points cancel without
      test_map("sizes", cloud(b, 2), matrix(b, 0.2, true), b, 2, {1.0, exaggeration, false});
      test_map("sizes", cloud(b, 2), matrix(b, 0.2, false), b, 2, {1.0, exaggeration, true});
    }
    for (const std::int64_t c : kThorough ? std::vector<std::int64_t>{1, 2, 3, 4, 17} : std::vector<std::int64_t>{5}) {
      for (const Settings s : {plain, exaggerated, heavy, light}) {
        test_map("widths", cloud(83, c), matrix(83, 0.5, s.dof == 1.0), 83, c, s);
      }
    }
    for (const std::int64_t m :
         kThorough ? std::vector<std::int64_t>{0, 1, 2, 32, 61, 97} : std::vector<std::int64_t>{40}) {
      for (const std::int64_t c : {2, 3, 5}) {
        test_padding(97, m, c, exaggerated);
        if (m != 2) test_padding(97, m, c, heavy);  // else the forces cancel
      }
    }
    if (!kThorough) return;
    for (const Settings s : {plain, by_row, light, heavy}) test_padding(600, 290, 2, s);
    test_map("widths", cloud(83, 64), matrix(83, 0.5, false), 83, 64, plain);
    test_map("several blocks of rows", cloud(700, 2), matrix(700, 0.02, false), 700, 2, plain);
    test_map("several blocks of rows", cloud(600, 3), matrix(600, 0.02, false), 600, 3, by_row);
    for (const Settings s : {plain, by_row}) {
      test_sparse("large", cloud(kLarge, 2), ring(kLarge, 15), kLarge, 2, s);
      for (const float scale : {1e-4f, 1e2f, 1e4f, 1e6f}) {
        test_map("scale " + std::to_string(scale), fastpdr::check::normal(102, scale), matrix(51, 0.5, true), 51, 2, s);
      }
      Floats small = matrix(51, 0.5, false), large = small;
      for (float& value : small) value *= 1e-30f;
      for (float& value : large) value *= 1e30f;
      test_map("small p", cloud(51, 2), small, 51, 2, s);
      test_map("large p", cloud(51, 2), large, 51, 2, s);
      test_map("one place", Floats(80, 0.25f), matrix(40, 0.5, true), 40, 2, s);
      Floats diagonal(400);
      for (int i = 0; i < 20; ++i) diagonal[21 * i] = 1.0f;
      test_map("no mass", cloud(20, 2), diagonal, 20, 2, s);
      test_map("no entry", cloud(20, 2), Floats(400), 20, 2, s);
    }
    test_faults(40);
  });
}
