// The CUDA stream that PyTorch works on.
//
// What torch 2.11 and all later ones share is a function of libtorch_cuda, which a PyTorch without CUDA has not; it is
// looked up when it is first needed, so that the module loads beside either. (torch 2.13 brought Stream::nativeHandle,
// but a module built to use it would not load in 2.11.)
#pragma once

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>

namespace fastpdr::binding {

inline cudaStream_t current_stream(int32_t device_index) {
  using Function = int32_t (*)(int32_t device_index, void** stream);  // 0 where it went well
  static const auto function = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    return reinterpret_cast<Function>(library ? dlsym(library, "aoti_torch_get_current_cuda_stream") : nullptr);
  }();
  void* stream = nullptr;
  STD_TORCH_CHECK(function && function(device_index, &stream) == 0,
                  "fastpdr: PyTorch gave no CUDA stream for cuda:", device_index);
  return static_cast<cudaStream_t>(stream);
}

}  // namespace fastpdr::binding
