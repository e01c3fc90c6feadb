// The Python module fastpdr._C: importing it registers torch.ops.fastpdr; build_info() says what it is.
#include <pybind11/pybind11.h>

#include "fastpdr/info.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  m.doc() = "Loads the fastpdr operators into torch.ops.fastpdr.";
  m.def("build_info", [] {
    const fastpdr::BuildInfo info = fastpdr::build_info();
    py::dict result;
    result["version"] = info.version;
    result["compiler"] = info.compiler;
    result["simd_compiled"] = info.simd_compiled;
    result["simd_used"] = info.simd_used;
    result["openmp"] = info.openmp;
    result["cuda_architectures"] = info.cuda_architectures;
    return result;
  });
}
