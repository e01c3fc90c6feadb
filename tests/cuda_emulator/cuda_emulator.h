// Runs CUDA C++ kernels on the CPU, for tests: what csrc/cuda/portable.h includes instead of CUDA's runtime.
//
// Every CUDA thread of a block is a fiber on one thread of the machine, and blocks run one after another. A fiber runs
// until a barrier or a warp operation; what CUDA leaves undefined is NaN, -1 or an error, and limits of a launch are
// checked. With the address sanitizer, device memory cannot be touched by the host; with the thread sanitizer, every
// CUDA thread is a thread to it, so a missing barrier is a data race. docs/kernels.md says what it cannot find.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>

using std::max;
using std::min;

// The language ------------------------------------------------------------------------------------------------------
#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static_assert(false, "declare shared memory by FASTPDR_SHARED");
#ifndef __restrict__
#define __restrict__ __restrict
#endif

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
inline float2 make_float2(float x, float y) {
  return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}
inline double2 make_double2(double x, double y) {
  return {x, y};
}

extern uint3 threadIdx, blockIdx;  // set at every switch
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// The scheduler -----------------------------------------------------------------------------------------------------
namespace cuda_emulator {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

struct Options {
  enum Order { kForward, kReverse, kRandom };
  Order order = kForward;  // in which threads and blocks take turns: CUDA_EMULATOR_ORDER=forward|reverse|random:SEED
  std::uint64_t seed = 1;
  bool blocks_unordered = false;          // races between blocks are reported too: CUDA_EMULATOR_UNORDERED=1
  std::size_t shared_optin = 163 * 1024;  // the most dynamic shared memory that a kernel may ask for (sm_80)
};
extern Options options;

struct Stream;

enum Operation { kShuffle, kBallot, kSyncwarp };

struct Site {
  const char* file;
  int line;
};

int run(const void* kernel, dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& body);
void syncthreads(Site site);
// What lane `source` gave, or the lanes that voted; all lanes of the mask meet here.
std::uint64_t warp(Operation operation, unsigned mask, std::uint64_t value, int source, Site site);
void* shared_array(const void* key, std::size_t bytes, std::size_t alignment);  // one for every block and key
void* shared_dynamic();
int lane();

template <typename... Parameters, typename... Arguments>
int launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes, Stream*,
           Arguments&&... arguments) {
  return run(reinterpret_cast<const void*>(kernel), grid, block, shared_bytes,
             [&] { kernel(static_cast<Parameters>(arguments)...); });
}

template <typename T>
T shuffle(unsigned mask, T value, int source, Site site) {
  static_assert(std::is_trivially_copyable<T>::value && sizeof(T) <= 8, "shuffles carry at most 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = warp(kShuffle, mask, bits, source, site);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace cuda_emulator

#define CUDA_EMULATOR_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(CUDA_EMULATOR_SITE) {
  cuda_emulator::syncthreads({file, line});
}
inline void __syncwarp(unsigned mask = 0xffffffffu, CUDA_EMULATOR_SITE) {
  cuda_emulator::warp(cuda_emulator::kSyncwarp, mask, 0, 0, {file, line});
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUDA_EMULATOR_SITE) {
  const int base = cuda_emulator::lane() & ~(width - 1);
  return cuda_emulator::shuffle(mask, value, base + (source & (width - 1)), {file, line});
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, CUDA_EMULATOR_SITE) {
  const int lane = cuda_emulator::lane(), source = lane ^ bits;
  const bool inside = source < (lane & ~(width - 1)) + width;
  return cuda_emulator::shuffle(mask, value, inside ? source : lane, {file, line});
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_EMULATOR_SITE) {
  const int lane = cuda_emulator::lane(), source = lane + static_cast<int>(delta);
  const bool inside = source < (lane & ~(width - 1)) + width;
  return cuda_emulator::shuffle(mask, value, inside ? source : lane, {file, line});
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_EMULATOR_SITE) {
  const int lane = cuda_emulator::lane(), source = lane - static_cast<int>(delta);
  const bool inside = source >= (lane & ~(width - 1));
  return cuda_emulator::shuffle(mask, value, inside ? source : lane, {file, line});
}
inline unsigned __ballot_sync(unsigned mask, int vote, CUDA_EMULATOR_SITE) {
  return static_cast<unsigned>(cuda_emulator::warp(cuda_emulator::kBallot, mask, vote != 0, 0, {file, line}));
}
inline int __any_sync(unsigned mask, int vote, CUDA_EMULATOR_SITE) {
  return cuda_emulator::warp(cuda_emulator::kBallot, mask, vote != 0, 0, {file, line}) != 0;
}
inline int __all_sync(unsigned mask, int vote, CUDA_EMULATOR_SITE) {
  return cuda_emulator::warp(cuda_emulator::kBallot, mask, vote == 0, 0, {file, line}) == 0;
}

// Atomics: real ones, so that the thread sanitizer knows them. Only of whole numbers: sums of floating-point numbers
// would depend on the order.
template <typename T>
T atomicAdd(T* at, T value) {
  static_assert(std::is_integral<T>::value, "an atomic sum of floating-point numbers is not the same bits twice");
  return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
template <typename T>
T atomicCAS(T* at, T expected, T value) {
  __atomic_compare_exchange_n(at, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
template <typename T>
T atomicExch(T* at, T value) {
  return __atomic_exchange_n(at, value, __ATOMIC_RELAXED);
}
template <typename T>
T atomicOr(T* at, T value) {
  return __atomic_fetch_or(at, value, __ATOMIC_RELAXED);
}
template <typename T>
T atomicMax(T* at, T value) {
  T old = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (old < value && !__atomic_compare_exchange_n(at, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}
template <typename T>
T atomicMin(T* at, T value) {
  T old = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (value < old && !__atomic_compare_exchange_n(at, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}

// What <cmath> lacks ------------------------------------------------------------------------------------------------
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __powf(x, y) powf(x, y)
inline float rsqrtf(float x) {
  return 1.0f / std::sqrt(x);
}
inline float __fdividef(float a, float b) {
  return a / b;
}
inline double __dadd_rn(double a, double b) {
  return a + b;
}
inline double __dmul_rn(double a, double b) {
  return a * b;
}
inline float __frcp_rn(float x) {
  return 1.0f / x;
}
template <typename T>
T __ldg(const T* at) {
  return *at;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<std::uint64_t>(a) * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  __extension__ typedef unsigned __int128 Wide;
  return static_cast<unsigned long long>(static_cast<Wide>(a) * b >> 64);
}
inline int __popc(unsigned x) {
  return __builtin_popcount(x);
}
inline int __clz(int x) {
  return x ? __builtin_clz(static_cast<unsigned>(x)) : 32;
}
inline int __ffs(int x) {
  return __builtin_ffs(x);
}
inline int __float_as_int(float x) {
  int bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float __int_as_float(int bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// The host's runtime ------------------------------------------------------------------------------------------------
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
using cudaStream_t = cuda_emulator::Stream*;

namespace cuda_emulator {
cudaError_t allocate(void** at, std::size_t bytes);
cudaError_t set_shared_limit(const void* kernel, int bytes);
}  // namespace cuda_emulator

template <typename T>
cudaError_t cudaMalloc(T** at, std::size_t bytes) {
  return cuda_emulator::allocate(reinterpret_cast<void**>(at), bytes);
}
cudaError_t cudaFree(void* at);
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemset(void* at, int value, std::size_t bytes);
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  return cudaMemcpy(to, from, bytes, kind);
}
inline cudaError_t cudaMemsetAsync(void* at, int value, std::size_t bytes, cudaStream_t) {
  return cudaMemset(at, value, bytes);
}
inline cudaError_t cudaDeviceSynchronize() {
  return cudaSuccess;
}
cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t error);
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  return cuda_emulator::set_shared_limit(reinterpret_cast<const void*>(kernel), bytes);
}
