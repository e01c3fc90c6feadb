// The emulator's scheduler. Compiled without sanitizers, but with CUDA_EMULATOR_ASAN or CUDA_EMULATOR_TSAN where the
// kernels have them: it tells the sanitizer of every switch.
//
// A barrier releases when all threads that have not returned wait at the same file and line. Warp operations meet over
// their mask; lanes that have returned are not waited for (sm_70 and later), and a shuffle from a lane that is not
// there gives all bits set. For the thread sanitizer only barriers and __syncwarp order memory; shuffles and votes do
// not, nor do switches. Blocks alternate between two disjoint sets of fibers, so that races between them can be seen.
#include "cuda_emulator.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <new>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#ifndef __x86_64__
#error "the switch between fibers is written for x86-64"
#endif

#ifdef CUDA_EMULATOR_ASAN
extern "C" {
void __sanitizer_start_switch_fiber(void** save, const void* bottom, std::size_t size);
void __sanitizer_finish_switch_fiber(void* save, const void** bottom_old, std::size_t* size_old);
void __asan_poison_memory_region(const volatile void*, std::size_t);
void __asan_unpoison_memory_region(const volatile void*, std::size_t);
}
#endif

#ifdef CUDA_EMULATOR_TSAN
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned);
void __tsan_destroy_fiber(void*);
void __tsan_switch_to_fiber(void*, unsigned);
void __tsan_acquire(void*);
void __tsan_release(void*);
}
#define ACQUIRE(tag) __tsan_acquire(tag)
#define RELEASE(tag) __tsan_release(tag)
#else
#define ACQUIRE(tag) static_cast<void>(tag)
#define RELEASE(tag) static_cast<void>(tag)
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

// Saves the registers that a called function keeps, changes stacks, and returns into the other fiber.
extern "C" void cuda_emulator_switch(void** save_sp, void* load_sp);
asm(R"(
.text
.globl cuda_emulator_switch
.type cuda_emulator_switch,@function
cuda_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_emulator_switch,.-cuda_emulator_switch
.section .note.GNU-stack,"",@progbits
.text
)");

namespace cuda_emulator {
namespace {

constexpr std::size_t kStack = 256 * 1024, kGuard = 4096;
constexpr std::size_t kStaticShared = 48 * 1024;  // more only as dynamic shared memory, and asked for
constexpr int kWarp = 32;

enum State { kReady, kAtBarrier, kAtWarp, kDone };

struct Fiber {
  void* sp = nullptr;
  char* stack = nullptr;
  char* stacks[2] = {};  // of even and odd blocks
  State state = kDone;
  uint3 thread{};
  Site site{};
  Operation operation{};
  unsigned mask = 0;
  int source = 0;
  std::uint64_t value = 0;
  char* tag = nullptr;  // what to acquire when it goes on
  void* asan = nullptr;
  void* tsan = nullptr;
  void* tsans[2] = {};
};

struct SharedArray {
  const void* key;
  void* data;
  std::size_t bytes;
};

Options from_environment() {
  Options result;
  const char* order = std::getenv("CUDA_EMULATOR_ORDER");
  const std::string word = order ? order : "forward";
  if (word == "reverse") result.order = Options::kReverse;
  if (word.rfind("random", 0) == 0) result.order = Options::kRandom;
  if (word.rfind("random:", 0) == 0) result.seed = std::stoull(word.substr(7));
  result.blocks_unordered = std::getenv("CUDA_EMULATOR_UNORDERED") != nullptr;
  return result;
}

std::vector<Fiber> fibers;        // kept between launches, with their stacks
std::vector<std::size_t> turns;   // the order of threads
std::vector<SharedArray> arrays;  // of the running block
std::vector<void*> garbage;       // shared memory of blocks that have run; to free it is a write to the sanitizer
void* dynamic_array = nullptr;
std::size_t dynamic_bytes = 0, threads = 0;
Fiber host, *current = nullptr;
[[maybe_unused]] const void* host_bottom = nullptr;
[[maybe_unused]] std::size_t host_size = 0;
const std::function<void()>* kernel_body = nullptr;
std::string failure;
// A barrier's tags alternate: a fast thread's next release would hide races of a slow one.
char launch_tag, end_tag, barrier_tags[2][2], warp_tags[2][kWarp][kWarp][2];
int parity = 0;  // of the block
unsigned barriers = 0, warp_meetings[kWarp][kWarp];
std::map<const void*, int> shared_limits;
std::map<char*, std::size_t> allocations;
cudaError_t last_error = cudaSuccess;

cudaError_t note(cudaError_t error) {
  return last_error = error;
}

std::string triple(uint3 index) {
  return "(" + std::to_string(index.x) + "," + std::to_string(index.y) + "," + std::to_string(index.z) + ")";
}

std::string describe(const Fiber& fiber) {
  static const char* const states[] = {"running", "at __syncthreads", "at a warp operation", "returned"};
  std::string result = "thread " + triple(fiber.thread) + " " + states[fiber.state];
  if (fiber.state == kAtBarrier || fiber.state == kAtWarp)
    result += std::string(" ") + fiber.site.file + ":" + std::to_string(fiber.site.line);
  if (fiber.state == kAtWarp) {
    char mask[16];
    std::snprintf(mask, sizeof mask, " mask %08x", fiber.mask);
    result += mask;
  }
  return result;
}

void jump(Fiber& from, Fiber& to, [[maybe_unused]] bool from_ends) {
#ifdef CUDA_EMULATOR_ASAN
  const bool to_host = &to == &host;
  __sanitizer_start_switch_fiber(from_ends ? nullptr : &from.asan, to_host ? host_bottom : to.stack,
                                 to_host ? host_size : kStack);
#endif
#ifdef CUDA_EMULATOR_TSAN
  __tsan_switch_to_fiber(to.tsan, 1);  // 1: the switch orders nothing
#endif
  cuda_emulator_switch(&from.sp, to.sp);
#ifdef CUDA_EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(from.asan, nullptr, nullptr);
#endif
}

void yield() {
  jump(*current, host, false);
  if (current->tag) ACQUIRE(current->tag);
}

[[noreturn]] void leave() {
  RELEASE(&end_tag);
  current->state = kDone;
  jump(*current, host, true);
  std::abort();
}

// On a fiber: gives up the launch.
[[noreturn]] void fail(const std::string& what) {
  failure = what + " [" + describe(*current) + ", block " + triple(blockIdx) + "]";
  leave();
}

extern "C" void cuda_emulator_entry() {
#ifdef CUDA_EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &host_bottom, &host_size);
#endif
  ACQUIRE(&launch_tag);
  (*kernel_body)();
  leave();
}

void start(Fiber& fiber, std::size_t index) {
  char*& stack = fiber.stacks[parity];
  if (!stack) {
    void* memory =
        mmap(nullptr, kStack + kGuard, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory, kGuard, PROT_NONE);
    stack = static_cast<char*>(memory) + kGuard;
  }
  fiber.stack = stack;
#ifdef CUDA_EMULATOR_ASAN
  __asan_unpoison_memory_region(stack, kStack);
#endif
#ifdef CUDA_EMULATOR_TSAN
  if (!fiber.tsans[parity]) fiber.tsans[parity] = __tsan_create_fiber(0);
  fiber.tsan = fiber.tsans[parity];
#endif
  void** sp = reinterpret_cast<void**>(stack + kStack) - 1;  // rsp % 16 == 8 on entry, as after a call
  *--sp = reinterpret_cast<void*>(&cuda_emulator_entry);
  fiber.sp = sp - 6;
  std::memset(fiber.sp, 0, 6 * sizeof(void*));
  fiber.state = kReady;
  fiber.tag = nullptr;
  fiber.thread = {static_cast<unsigned>(index % blockDim.x), static_cast<unsigned>(index / blockDim.x % blockDim.y),
                  static_cast<unsigned>(index / (static_cast<std::size_t>(blockDim.x) * blockDim.y))};
}

// All bits set: NaN, -1.
void* fresh(std::size_t bytes, std::size_t alignment) {
  void* memory = nullptr;
  if (posix_memalign(&memory, std::max<std::size_t>(alignment, 16), std::max<std::size_t>(bytes, 1)))
    throw std::bad_alloc();
  std::memset(memory, 0xff, bytes);
  return memory;
}

std::size_t static_bytes() {
  std::size_t result = 0;
  for (const SharedArray& array : arrays) result += array.bytes;
  return result;
}

void end_block() {
  for (const SharedArray& array : arrays) garbage.push_back(array.data);
  garbage.push_back(dynamic_array);
  arrays.clear();
  dynamic_array = nullptr;
}

void free_garbage() {
  for (void* memory : garbage) std::free(memory);
  garbage.clear();
}

// The host may not touch device memory.
void show_device([[maybe_unused]] bool visible) {
#ifdef CUDA_EMULATOR_ASAN
  for (const auto& [data, bytes] : allocations)
    (visible ? __asan_unpoison_memory_region : __asan_poison_memory_region)(data, bytes);
#endif
}

// All lanes of the mask have come: they exchange and go on.
void release_warp(std::size_t warp, unsigned mask) {
  Fiber* lanes = &fibers[warp * kWarp];
  unsigned here = 0, votes = 0;
  std::uint64_t values[kWarp] = {};
  for (int l = 0; l < kWarp; ++l) {
    if (!(mask >> l & 1) || warp * kWarp + l >= threads || lanes[l].state != kAtWarp) continue;
    here |= 1u << l;
    values[l] = lanes[l].value;
    votes |= static_cast<unsigned>(lanes[l].value & 1) << l;
  }
  for (int l = 0; l < kWarp; ++l) {
    if (!(here >> l & 1)) continue;
    Fiber& lane = lanes[l];
    if (lane.operation == kShuffle)
      lane.value = here >> lane.source & 1 ? values[lane.source] : ~std::uint64_t{0};  // undefined on a device
    if (lane.operation == kBallot) lane.value = votes;
    lane.state = kReady;
  }
  ++warp_meetings[warp][__builtin_ctz(mask)];
}

// Whether the lanes went on; says why they never will where they disagree.
bool try_release_warp(std::size_t warp, unsigned mask, std::string* why) {
  const Fiber *lanes = &fibers[warp * kWarp], *first = nullptr;
  for (int l = 0; l < kWarp; ++l) {
    if (!(mask >> l & 1) || warp * kWarp + l >= threads || lanes[l].state == kDone) continue;
    if (lanes[l].state != kAtWarp) return false;
    if (!first) first = &lanes[l];
    if (lanes[l].mask != mask || lanes[l].operation != first->operation || lanes[l].site.line != first->site.line) {
      *why = "lanes of a warp disagree on operation, line or mask: " + describe(*first) + " / " + describe(lanes[l]);
      return false;
    }
  }
  if (!first) return false;
  release_warp(warp, mask);
  return true;
}

// Nobody can run: all wait at one barrier, or for ever. False when the block has ended.
bool resolve_waiting() {
  const Fiber *waiting = nullptr, *odd = nullptr;
  for (std::size_t i = 0; i < threads; ++i) {
    const Fiber& fiber = fibers[i];
    if (fiber.state == kDone) continue;
    if (!waiting) waiting = &fiber;
    const bool same = fiber.state == kAtBarrier && fiber.site.line == waiting->site.line &&
                      std::strcmp(fiber.site.file, waiting->site.file) == 0;
    if (!same && !odd) odd = &fiber;
  }
  if (!waiting) return false;
  if (!odd) {
    ++barriers;
    for (std::size_t i = 0; i < threads; ++i)
      if (fibers[i].state == kAtBarrier) fibers[i].state = kReady;
    return true;
  }
  std::string why;
  bool released = false;  // a lane that returned may have completed a warp operation
  for (std::size_t i = 0; i < threads; ++i)
    if (fibers[i].state == kAtWarp && try_release_warp(i / kWarp, fibers[i].mask, &why)) released = true;
  if (released) return true;
  failure = "deadlock or divergent barrier: " + describe(*waiting) + " / " + describe(*odd);
  if (!why.empty()) failure += "; " + why;
  throw std::runtime_error("cuda_emulator: " + failure);
}

void run_block(std::mt19937_64& generator) {
  dynamic_array = fresh(dynamic_bytes, 128);
#ifdef CUDA_EMULATOR_TSAN
  parity ^= 1;
#endif
  for (std::size_t i = 0; i < threads; ++i) start(fibers[i], i);
  RELEASE(&launch_tag);
  std::memset(warp_meetings, 0, sizeof warp_meetings);
  for (;;) {
    bool ran = false;
    if (options.order == Options::kRandom) std::shuffle(turns.begin(), turns.end(), generator);
    for (const std::size_t i : turns) {
      if (fibers[i].state != kReady) continue;
      ran = true;
      current = &fibers[i];
      threadIdx = current->thread;
      jump(host, *current, false);
      if (!failure.empty()) throw std::runtime_error("cuda_emulator: " + failure);
    }
    if (!ran && !resolve_waiting()) return;
  }
}

// After an error: fibers stopped halfway let go of what they touched, so that the host may free it.
void abandon() {
  for (Fiber& fiber : fibers) {
#ifdef CUDA_EMULATOR_TSAN
    if (fiber.tsan && fiber.state != kDone) {
      __tsan_switch_to_fiber(fiber.tsan, 1);
      RELEASE(&end_tag);
      __tsan_switch_to_fiber(host.tsan, 1);
    }
    for (void*& tsan : fiber.tsans) {
      if (tsan) __tsan_destroy_fiber(tsan);
      tsan = nullptr;
    }
    fiber.tsan = nullptr;
#endif
    fiber.state = kDone;
  }
}

template <typename T>
std::vector<T> in_order(std::size_t size, std::mt19937_64* generator) {
  std::vector<T> result(size);
  std::iota(result.begin(), result.end(), T{0});
  if (options.order == Options::kReverse) std::reverse(result.begin(), result.end());
  if (options.order == Options::kRandom) std::shuffle(result.begin(), result.end(), *generator);
  return result;
}

// Whether all bytes lie inside one allocation.
bool on_device(const void* at, std::size_t bytes) {
  char* data = const_cast<char*>(static_cast<const char*>(at));
  auto next = allocations.upper_bound(data);
  if (next == allocations.begin()) return false;
  --next;
  return data + bytes <= next->first + next->second;
}

}  // namespace

Options options = from_environment();

int lane() {
  return static_cast<int>(current - fibers.data()) % kWarp;
}

void* shared_dynamic() {
  return dynamic_array;
}

void syncthreads(Site site) {
  current->site = site;
  current->state = kAtBarrier;
  current->tag = &barrier_tags[parity][barriers & 1];
  RELEASE(current->tag);
  yield();
}

std::uint64_t warp(Operation operation, unsigned mask, std::uint64_t value, int source, Site site) {
  Fiber& fiber = *current;
  const std::size_t index = static_cast<std::size_t>(&fiber - fibers.data()), warp = index / kWarp;
  fiber.site = site;
  if (!(mask >> (index % kWarp) & 1)) fail("the calling lane is not in its own mask");
  fiber.operation = operation;
  fiber.mask = mask;
  fiber.value = value;
  fiber.source = source;
  fiber.state = kAtWarp;
  const int first = __builtin_ctz(mask);
  fiber.tag = operation == kSyncwarp ? &warp_tags[parity][warp][first][warp_meetings[warp][first] & 1] : nullptr;
  if (fiber.tag) RELEASE(fiber.tag);
  std::string why;
  if (try_release_warp(warp, mask, &why)) {
    if (fiber.tag) ACQUIRE(fiber.tag);
    return fiber.value;
  }
  if (!why.empty()) fail(why);
  yield();
  return fiber.value;
}

void* shared_array(const void* key, std::size_t bytes, std::size_t alignment) {
  for (const SharedArray& array : arrays) {
    if (array.key != key) continue;
    ACQUIRE(array.data);
    return array.data;
  }
  arrays.push_back({key, fresh(bytes, alignment), bytes});
  RELEASE(arrays.back().data);
  if (static_bytes() > kStaticShared) fail("more than 48 KB of static shared memory");
  if (static_bytes() + dynamic_bytes > options.shared_optin) fail("more shared memory than the device has");
  return arrays.back().data;
}

int run(const void* kernel, dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& body) {
  const std::size_t size = static_cast<std::size_t>(block.x) * block.y * block.z;
  if (size == 0 || size > 1024 || block.z > 64 || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu ||
      grid.y > 65535 || grid.z > 65535)
    return note(cudaErrorInvalidConfiguration);
  const auto asked = shared_limits.find(kernel);
  const std::size_t limit = asked == shared_limits.end() ? 0 : static_cast<std::size_t>(asked->second);
  if (shared_bytes > std::max(limit, kStaticShared)) return note(cudaErrorInvalidValue);
  if (fibers.size() < size) fibers.resize(size);
  threads = size;
  blockDim = block;
  gridDim = grid;
  dynamic_bytes = shared_bytes;
  kernel_body = &body;
  failure.clear();
#ifdef CUDA_EMULATOR_TSAN
  host.tsan = __tsan_get_current_fiber();
#endif
  std::mt19937_64 generator(options.seed);
  turns = in_order<std::size_t>(threads, &generator);
  const std::size_t blocks = static_cast<std::size_t>(grid.x) * grid.y * grid.z;
  show_device(true);
  try {
    for (const std::size_t i : in_order<std::size_t>(blocks, &generator)) {
      blockIdx = {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                  static_cast<unsigned>(i / (static_cast<std::size_t>(grid.x) * grid.y))};
      run_block(generator);
      if (!options.blocks_unordered) ACQUIRE(&end_tag);
      end_block();
      if (!options.blocks_unordered) free_garbage();
    }
  } catch (...) {
    abandon();
    ACQUIRE(&end_tag);
    end_block();
    free_garbage();
    show_device(false);
    throw;
  }
  ACQUIRE(&end_tag);
  free_garbage();
  show_device(false);
  return cudaSuccess;
}

cudaError_t allocate(void** at, std::size_t bytes) {
  *at = fresh(bytes, 256);
  allocations[static_cast<char*>(*at)] = bytes;
  show_device(false);
  return cudaSuccess;
}

cudaError_t set_shared_limit(const void* kernel, int bytes) {
  if (bytes < 0 || static_cast<std::size_t>(bytes) > options.shared_optin) return note(cudaErrorInvalidValue);
  shared_limits[kernel] = bytes;
  return cudaSuccess;
}

}  // namespace cuda_emulator

using namespace cuda_emulator;

cudaError_t cudaFree(void* at) {
  if (!at) return cudaSuccess;
  if (!allocations.count(static_cast<char*>(at))) return note(cudaErrorInvalidValue);
  show_device(true);
  allocations.erase(static_cast<char*>(at));
  std::free(at);
  show_device(false);
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  if (bytes == 0) return cudaSuccess;
  if (on_device(to, bytes) != (kind != cudaMemcpyDeviceToHost) ||
      on_device(from, bytes) != (kind != cudaMemcpyHostToDevice))
    return note(cudaErrorInvalidValue);
  show_device(true);
  std::memcpy(to, from, bytes);
  show_device(false);
  return cudaSuccess;
}

cudaError_t cudaMemset(void* at, int value, std::size_t bytes) {
  if (bytes == 0) return cudaSuccess;
  if (!on_device(at, bytes)) return note(cudaErrorInvalidValue);
  show_device(true);
  std::memset(at, value, bytes);
  show_device(false);
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
  }
  return "unknown error";
}
