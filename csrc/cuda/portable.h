// What a .cu file needs of a CUDA runtime: nvcc's, or an emulation on the CPU that the tests run the same files in.
//
// Kernels are launched by FASTPDR_LAUNCH((kernel<...>), grid, block, shared_bytes, stream, arguments...), and shared
// memory is declared by FASTPDR_SHARED(type, name, [extents]) and FASTPDR_SHARED_DYNAMIC(type, name): the emulation
// fills it with NaN, watches its bounds and counts its bytes, which it cannot do for a plain __shared__.
#pragma once

#include <cstddef>
#include <cstdint>

#ifndef FASTPDR_CUDA_EMULATOR

#include <cuda_runtime.h>

// clang-format off
#define FASTPDR_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
// clang-format on
#define FASTPDR_SHARED(type, name, ...) __shared__ type name __VA_ARGS__
#define FASTPDR_SHARED_DYNAMIC(type, name)                                \
  extern __shared__ __align__(16) unsigned char fastpdr_shared_dynamic[]; \
  type* name = reinterpret_cast<type*>(fastpdr_shared_dynamic)

#else

#include "cuda_emulator.h"

#define FASTPDR_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::cuda_emulator::launch(kernel, grid, block, shared_bytes, stream, __VA_ARGS__)
#define FASTPDR_SHARED(type, name, ...)                        \
  static char fastpdr_key_##name;                              \
  type(&name) __VA_ARGS__ = *static_cast<type(*) __VA_ARGS__>( \
      ::cuda_emulator::shared_array(&fastpdr_key_##name, sizeof(type __VA_ARGS__), alignof(type)))
#define FASTPDR_SHARED_DYNAMIC(type, name) type* name = static_cast<type*>(::cuda_emulator::shared_dynamic())

#endif
