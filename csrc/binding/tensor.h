// What the bindings need of a tensor: typed pointers, checks that name op and argument, allocation.
//
// The Python layer explains errors to people; these checks keep a direct torch.ops call from reading astray.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace fastpdr::binding {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// A contiguous version of `tensor`; expanded and strided inputs are copied.
inline Tensor require(const Tensor& tensor, ScalarType type, int64_t dim, const char* what) {
  STD_TORCH_CHECK(tensor.scalar_type() == type && tensor.dim() == dim, what, ": wrong dtype or number of dimensions");
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

inline std::string device_of(const Tensor& tensor) {
  if (tensor.is_cpu()) return "cpu";
  return (tensor.is_cuda() ? "cuda:" : "device ") + std::to_string(tensor.get_device_index());
}

// As above, on the device of another argument: the dispatcher looks at the kinds of devices alone.
inline Tensor require(const Tensor& tensor, ScalarType type, int64_t dim, const char* what, const Tensor& like,
                      const char* like_what) {
  STD_TORCH_CHECK(tensor.is_cuda() == like.is_cuda() && tensor.get_device_index() == like.get_device_index(), what,
                  " must be on ", device_of(like), " like ", like_what, ", got ", device_of(tensor));
  return require(tensor, type, dim, what);
}

// A new tensor on the device of `like`; where there is no room, the error says for what.
inline Tensor allocate(const char* op, const Tensor& like, const std::vector<int64_t>& shape, ScalarType type) {
  try {
    return torch::stable::new_empty(like, shape, type);
  } catch (const std::exception&) {
    const bool four = type == ScalarType::Float || type == ScalarType::Int;
    double bytes = type == ScalarType::Byte ? 1.0 : four ? 4.0 : 8.0;
    std::string sizes;
    for (const int64_t size : shape) {
      bytes *= static_cast<double>(size);
      sizes += (sizes.empty() ? "" : ", ") + std::to_string(size);
    }
    throw std::runtime_error(std::string("fastpdr::") + op + " could not allocate " +
                             std::to_string(static_cast<int64_t>(bytes / (1 << 20))) + " MiB for [" + sizes + "] on " +
                             device_of(like) + ": pass fewer rows at a time, or free memory there");
  }
}

template <typename T>
const T* read(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <typename T>
T* write(Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

}  // namespace fastpdr::binding
