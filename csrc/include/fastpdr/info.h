// What this build of the kernels is.
#pragma once

#include "fastpdr/export.h"

namespace fastpdr {

struct BuildInfo {
  const char* version;             // of fastpdr
  const char* compiler;            // name and version
  const char* simd_compiled;       // instruction sets the kernels were compiled for, comma-separated
  const char* simd_used;           // the one this machine runs
  int openmp;                      // the OpenMP version date, 0 without OpenMP
  const char* cuda_architectures;  // sm_.. (code) and compute_.. (PTX), comma-separated, empty without CUDA kernels
};

FASTPDR_API BuildInfo build_info();

}  // namespace fastpdr
