// What the bindings need of a tensor: typed pointers, and checks that name op and argument.
//
// The Python layer explains errors to people; these checks keep a direct torch.ops call from reading astray.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>

namespace fastpdr::binding {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// A contiguous version of `tensor`; expanded and strided inputs are copied.
inline Tensor require(const Tensor& tensor, ScalarType type, int64_t dim, const char* what) {
  STD_TORCH_CHECK(tensor.scalar_type() == type && tensor.dim() == dim, what, ": wrong dtype or number of dimensions");
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
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
