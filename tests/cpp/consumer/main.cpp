// Calls both kernels on a case worked out by hand; the exit status says whether they are right.
#include <fastpdr/info.h>
#include <fastpdr/perplexity.h>
#include <fastpdr/student_t.h>

#include <cmath>
#include <cstdio>

int main() {
  // Equal distances: uniform rows, whatever the perplexity.
  const float sqdist[3] = {2.0f, 2.0f, INFINITY};
  const double perplexity = 2.0;
  float p[3], beta[1];
  fastpdr::perplexity_search(sqdist, &perplexity, 1, 3, 1, 1e-5, p, beta);

  // Two points: P and Q are one half each, so the divergence and its gradient vanish.
  const float y[4] = {0.0f, 0.0f, 3.0f, 4.0f};
  const float similarities[4] = {0.0f, 1.0f, 1.0f, 0.0f};
  float loss, gradient[4];
  fastpdr::student_t_kl(y, similarities, 2, 2, 1.0, 1.0, &loss, gradient);

  std::printf("fastpdr %s (%s): p = %g %g %g, loss = %g\n", fastpdr::build_info().version,
              fastpdr::build_info().simd_used, p[0], p[1], p[2], loss);
  const bool right = std::fabs(p[0] - 0.5f) < 1e-6f && p[2] == 0.0f && std::fabs(loss) < 1e-6f;
  return right ? 0 : 1;
}
