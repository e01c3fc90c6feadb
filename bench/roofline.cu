// What a GPU can do at most, measured: the rates that the floors in bench/gpu.py are counted with. JSON on one line.
//
//   nvcc -O3 -arch=native bench/roofline.cu -o roofline && ./roofline
//
// Each rate is the best of several launches that fill the GPU; a thread keeps eight chains of dependent operations
// going, so that nothing waits for a result.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>

namespace {

constexpr int kThreads = 256, kBlocksPerMultiprocessor = 8, kChains = 8, kRounds = 4096, kLaunches = 5;

void require(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "roofline: %s\n", cudaGetErrorString(error));
  std::exit(1);
}

struct MultiplyAdd {
  static __device__ float apply(float x) { return fmaf(x, 0.999f, 0.001f); }
};
struct Exp2 {
  static __device__ float apply(float x) {
    float y;
    asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
};
struct Log2 {
  static __device__ float apply(float x) {
    float y;
    asm volatile("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
};
template <class Operation>
__global__ void __launch_bounds__(kThreads) chains(float* out) {
  float x[kChains];
#pragma unroll
  for (int c = 0; c < kChains; ++c) x[c] = 1.0f + static_cast<float>(threadIdx.x + c);
  for (int round = 0; round < kRounds; ++round) {
#pragma unroll
    for (int c = 0; c < kChains; ++c) x[c] = Operation::apply(x[c]);
  }
  float sum = 0.0f;
#pragma unroll
  for (int c = 0; c < kChains; ++c) sum += x[c];
  out[static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads)
    copy(const float4* __restrict__ from, float4* __restrict__ to, std::size_t count) {
  const std::size_t stride = static_cast<std::size_t>(gridDim.x) * kThreads;
  for (std::size_t e = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x; e < count; e += stride) {
    to[e] = from[e];
  }
}

__global__ void nothing() {}

// Seconds of the fastest of several runs.
template <typename F>
double fastest(F run) {
  cudaEvent_t begin, end;
  require(cudaEventCreate(&begin));
  require(cudaEventCreate(&end));
  float best = 0.0f;
  for (int launch = 0; launch <= kLaunches; ++launch) {  // the first does not count
    float took;
    require(cudaEventRecord(begin));
    run();
    require(cudaGetLastError());
    require(cudaEventRecord(end));
    require(cudaEventSynchronize(end));
    require(cudaEventElapsedTime(&took, begin, end));
    if (launch == 1 || (launch > 1 && took < best)) best = took;
  }
  return 1e-3 * static_cast<double>(best);
}

template <class Operation>
double rate(int blocks, float* out) {
  const double seconds = fastest([&] { chains<Operation><<<blocks, kThreads>>>(out); });
  return static_cast<double>(blocks) * kThreads * kChains * kRounds / seconds;
}

}  // namespace

int main() {
  cudaDeviceProp properties;
  require(cudaGetDeviceProperties(&properties, 0));
  const int blocks = properties.multiProcessorCount * kBlocksPerMultiprocessor;
  constexpr std::size_t kCopied = std::size_t{1} << 26;  // float4s: 1 GiB each way
  float* out;
  float4 *from, *to;
  require(cudaMalloc(&out, sizeof(float) * kThreads * static_cast<std::size_t>(blocks)));
  require(cudaMalloc(&from, sizeof(float4) * kCopied));
  require(cudaMalloc(&to, sizeof(float4) * kCopied));
  require(cudaMemset(from, 1, sizeof(float4) * kCopied));
  const double copied = fastest([&] { copy<<<blocks, kThreads>>>(from, to, kCopied); });
  const double launched = fastest([] {
    for (int launch = 0; launch < 1000; ++launch) nothing<<<1, 32>>>();
  });
  std::printf(
      "{\"name\": \"%s\", \"multiprocessors\": %d, \"copy_bytes_per_second\": %.4g, "
      "\"float32_multiply_adds_per_second\": %.4g, \"exp2_per_second\": %.4g, \"log2_per_second\": %.4g, "
      "\"seconds_between_launches\": %.3g}\n",
      properties.name, properties.multiProcessorCount, 2.0 * sizeof(float4) * kCopied / copied,
      rate<MultiplyAdd>(blocks, out), rate<Exp2>(blocks, out), rate<Log2>(blocks, out), 1e-3 * launched);
  return 0;
}
