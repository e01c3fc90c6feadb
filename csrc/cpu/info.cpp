// Answers what the build is from what the compiler and CMake defined.
#include "fastpdr/info.h"

#include "simd.h"

#ifndef FASTPDR_CUDA_ARCHITECTURES
#define FASTPDR_CUDA_ARCHITECTURES ""
#endif
#ifdef _OPENMP
#define FASTPDR_OPENMP _OPENMP
#else
#define FASTPDR_OPENMP 0
#endif

namespace fastpdr {

BuildInfo build_info() {
  return {FASTPDR_VERSION, FASTPDR_COMPILER,          simd::compiled_levels(), simd::level_name(simd::level()),
          FASTPDR_OPENMP,  FASTPDR_CUDA_ARCHITECTURES};
}

}  // namespace fastpdr
