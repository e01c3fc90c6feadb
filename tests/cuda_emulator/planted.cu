// The emulator's own test: right kernels that must pass, with one mistake planted by -DPLANTED=1..15 that must not.
// planted.sh builds and runs them all.
#include "check.h"

#ifndef PLANTED
#define PLANTED 0
#endif

namespace {

using fastpdr::check::Device;

__device__ float warp_sum(float value) {
#if PLANTED == 4
  constexpr unsigned mask = 0x0000ffffu;  // not the lanes that call
#else
  constexpr unsigned mask = 0xffffffffu;
#endif
  // PLANTED 14 forgets half of the warp
  for (int offset = PLANTED == 14 ? 8 : 16; offset > 0; offset /= 2) value += __shfl_xor_sync(mask, value, offset);
  return value;
}

// rep[i] = sum_j p_ij w_ij^2 (y_i - y_j), z[block] = sum of the block's w_ij: tiles in shared memory, a sum over the
// block.
template <int D, int B>
__global__ void __launch_bounds__(B) forces(const float* y, const float* p, int n, float* rep, float* z) {
  FASTPDR_SHARED(float, tile, [B][D]);
  FASTPDR_SHARED(float, part, [B / 32]);
  const int i = blockIdx.x * B + threadIdx.x;
  float yi[D], r[D], zi = 0.f;
  for (int k = 0; k < D; ++k) {
    yi[k] = i < n ? y[i * D + k] : 0.f;
    r[k] = 0.f;
  }
  for (int base = 0; base < n; base += B) {
    for (int k = 0; k < D; ++k) tile[threadIdx.x][k] = base + threadIdx.x < n ? y[(base + threadIdx.x) * D + k] : 0.f;
#if PLANTED == 8  // two barriers
    if (i < n)
      __syncthreads();
    else
      __syncthreads();
#elif PLANTED != 1  // no barrier after the tile is written
    __syncthreads();
#endif
    const int size = PLANTED == 3 ? B + 1 : min(B, n - base);  // one row past the tile
    for (int t = 0; i < n && t < size; ++t) {
      const int j = base + t;
      float d[D], s = 0.f;
      for (int k = 0; k < D; ++k) {
        d[k] = yi[k] - tile[t][k];
        s += d[k] * d[k];
      }
      const float w = 1.f / (1.f + s);
      const float pij = PLANTED == 3 && j >= n ? 1.f : p[i * n + j + (PLANTED == 9)];  // 9: past the end
      if (j != i) zi += w;
      for (int k = 0; k < D; ++k) r[k] += pij * w * w * d[k];
    }
#if PLANTED != 2  // no barrier before the tile is written again
    __syncthreads();
#endif
  }
  for (int k = 0; i < n && k < D; ++k) rep[i * D + k] = r[k];
#if PLANTED == 5
  if (threadIdx.x % 32 < 16) zi = warp_sum(zi);  // the other half never comes
#else
  zi = warp_sum(zi);
#endif
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = zi;
  __syncthreads();
  if (threadIdx.x < 32) {
    const float sum = warp_sum(threadIdx.x < B / 32 ? part[threadIdx.x] : 0.f);
#if PLANTED == 6
    if (threadIdx.x == 0) z[0] += sum;  // all blocks
#else
    if (threadIdx.x == 0) z[blockIdx.x] = sum;
#endif
  }
}

// Turns every warp round in dynamic shared memory; shuffles and order of running make up for no missing __syncwarp.
__global__ void warp_reverse(const float* in, float* out, int n) {
  FASTPDR_SHARED_DYNAMIC(float, buffer);
  const int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32;
  buffer[threadIdx.x] = i < n ? in[i] : 0.f;
#if PLANTED != 7
  __syncwarp();
#endif
  const float value = buffer[threadIdx.x - lane + 31 - lane];
  if (i < n) out[i] = value;
}

__global__ void neighbour(float* out) {
  FASTPDR_SHARED(float, values, [64]);
  if (PLANTED != 10 || threadIdx.x < 32) values[threadIdx.x] = threadIdx.x;  // 10: half is never written
#if PLANTED == 15                                                            // running in order hides it
  out[threadIdx.x] = values[threadIdx.x ? threadIdx.x - 1 : 0];
#else
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x ? threadIdx.x - 1 : 0];
#endif
}

template <int D, int B>
void test_forces(int n) {
  const std::vector<float> y = fastpdr::check::normal(n * D, 2.f), p = fastpdr::check::uniform(n * n);
  const int blocks = (n + B - 1) / B;
  const Device<float> device_y(y), device_p(p);
  Device<float> rep(n * D), z(std::vector<float>(blocks, 0.f));
  FASTPDR_LAUNCH((forces<D, B>), dim3(blocks), dim3(PLANTED == 11 ? 2048 : B), 0, cudaStream_t(), device_y.data(),
                 device_p.data(), n, rep.data(), z.data());
  fastpdr::check::require_done(cudaGetLastError());
  std::vector<double> expected(n * D, 0.0);
  double expected_z = 0.0, actual_z = 0.0;
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) {
      double s = 0.0;
      for (int k = 0; k < D; ++k) s += std::pow(double(y[i * D + k]) - y[j * D + k], 2);
      if (j != i) expected_z += 1.0 / (1.0 + s);
      for (int k = 0; k < D; ++k)
        expected[i * D + k] += p[i * n + j] / std::pow(1.0 + s, 2) * (double(y[i * D + k]) - y[j * D + k]);
    }
  }
  for (const float part : z.host()) actual_z += part;
  const std::string what = "forces, n = " + std::to_string(n);
  fastpdr::check::near(what, rep.host(), expected);
  fastpdr::check::near(what + ", z", std::vector<double>{actual_z}, std::vector<double>{expected_z});
}

void test_reverse(std::size_t shared_bytes) {
  constexpr int kSize = 300;
  std::vector<float> in(kSize), expected(kSize);
  for (int i = 0; i < kSize; ++i) in[i] = static_cast<float>(i + 1);
  for (int i = 0; i < kSize; ++i) {
    const int other = i / 32 * 32 + 31 - i % 32;
    expected[i] = other < kSize ? in[other] : 0.f;
  }
  const Device<float> device_in(in);
  Device<float> out(kSize);
  FASTPDR_LAUNCH(warp_reverse, dim3(3), dim3(128), shared_bytes, cudaStream_t(), device_in.data(), out.data(), kSize);
  fastpdr::check::require_done(cudaGetLastError());
  fastpdr::check::equal("warp_reverse", out.host(), expected);
#if PLANTED == 13
  std::printf("the host reads %g\n", out.data()[0]);
#endif
}

}  // namespace

int main() {
  return fastpdr::check::run([] {
    constexpr int kMore = 60 * 1024;
    test_forces<2, 128>(500);
    test_forces<3, 64>(77);
    if (PLANTED == 12) test_reverse(kMore);  // before it is asked for
    test_reverse(128 * sizeof(float));
    fastpdr::check::require(cudaFuncSetAttribute(warp_reverse, cudaFuncAttributeMaxDynamicSharedMemorySize, kMore));
    test_reverse(kMore);

    std::vector<float> expected(64);
    for (int i = 1; i < 64; ++i) expected[i] = static_cast<float>(i - 1);
    Device<float> out(64);
    FASTPDR_LAUNCH(neighbour, dim3(1), dim3(64), 0, cudaStream_t(), out.data());
    fastpdr::check::require_done(cudaGetLastError());
    fastpdr::check::equal("neighbour", out.host(), expected);
  });
}
