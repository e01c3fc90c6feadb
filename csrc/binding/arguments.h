// The arguments of the operators, checked as far as shapes, dtypes and devices go, the same for every device.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <tuple>

#include "fastpdr/layer_norm_gelu.h"
#include "fastpdr/pairs.h"
#include "fastpdr/sampling.h"
#include "fastpdr/student_t.h"
#include "fastpdr/subgraph.h"
#include "fastpdr/symmetrize.h"
#include "tensor.h"

namespace fastpdr::binding {

// float32 or float64: the kernels that copy take both.
inline ScalarType float_type(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// int32 or int64: the kernels that read a matrix of the whole data take both.
inline ScalarType index_type(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Int ? ScalarType::Int : ScalarType::Long;
}

// What the indices of a new matrix are: 32 bits where these are enough for its rows and its entries.
inline ScalarType index_type(int64_t n, int64_t entries) {
  return std::max(n, entries) <= INT32_MAX ? ScalarType::Int : ScalarType::Long;
}

struct Map {
  Tensor y;  // [b, c]
  int64_t b, c;

  Map(const Tensor& y_, int64_t most, const std::string& op)
      : y(require(y_, ScalarType::Float, 2, (op + ": y").c_str())), b(y.size(0)), c(y.size(1)) {
    STD_TORCH_CHECK(c >= 1 && c <= most, op, ": y must have 1 to ", most, " columns, got ", c);
  }
};

// [] on the device of `like`: how many of the b rows of a batch are points; what is behind them is padding.
class Points {
 public:
  Points(const std::optional<Tensor>& points, const Tensor& like, const char* like_what, const std::string& op) {
    if (points) number_ = require(*points, ScalarType::Long, 0, (op + ": points").c_str(), like, like_what);
  }
  const int64_t* data() const { return number_ ? read<int64_t>(*number_) : nullptr; }
  // Of tensors on the host.
  int64_t of(int64_t b) const { return number_ ? std::min(std::max(*data(), int64_t{0}), b) : b; }

 private:
  std::optional<Tensor> number_;
};

// The entries are those that indptr says; where a batch is padded there may be room for more.
struct Csr {
  Tensor indptr, indices, values;
  int64_t nnz;

  Csr(const Tensor& indptr_, const Tensor& indices_, const Tensor& values_, const Map& map, const std::string& op)
      : indptr(require(indptr_, ScalarType::Long, 1, (op + ": indptr").c_str(), map.y, "y")),
        indices(require(indices_, ScalarType::Long, 1, (op + ": indices").c_str(), map.y, "y")),
        values(require(values_, ScalarType::Float, 1, (op + ": values").c_str(), map.y, "y")),
        nnz(values.size(0)) {
    STD_TORCH_CHECK(indptr.size(0) == map.b + 1, op, ": indptr must be [b + 1]");
    STD_TORCH_CHECK(indices.size(0) == nnz, op, ": indices and values must be of one length");
  }
};

struct SquareP {
  Tensor p;  // [b, b]

  SquareP(const Tensor& p_, const Map& map, const std::string& op)
      : p(require(p_, ScalarType::Float, 2, (op + ": p").c_str(), map.y, "y")) {
    STD_TORCH_CHECK(p.size(0) == map.b && p.size(1) == map.b, op, ": p must be [b, b]");
  }
};

struct Weights {
  Tensor weights;  // [e]
  int64_t e;

  explicit Weights(const Tensor& weights_)
      : weights(require(weights_, float_type(weights_), 1, "alias_table: weights")), e(weights.size(0)) {
    STD_TORCH_CHECK(e >= 1 && e < kAliasMaxEntries, "alias_table: weights must be [e] with 1 <= e < 2^31");
  }
};

struct Draws {
  Tensor table;  // [e]
  int64_t e;

  Draws(const Tensor& table_, int64_t n_edges, int64_t seed, int64_t step)
      : table(require(table_, ScalarType::Long, 1, "sample_edges: table")), e(table.size(0)) {
    STD_TORCH_CHECK(e >= 1, "sample_edges: table must be [e] with e >= 1");
    STD_TORCH_CHECK(n_edges >= 0 && seed >= 0 && step >= 0, "sample_edges: n_edges, seed and step must be >= 0");
  }
};

struct Subgraph {
  Tensor indptr, indices, values, rows;
  Points points;
  int64_t n, nnz, b;
  std::optional<int64_t> capacity;  // room for entries in the result, whose size is not looked at then

  Subgraph(const Tensor& indptr_, const Tensor& indices_, const Tensor& values_, const Tensor& rows_,
           const std::optional<Tensor>& points_, std::optional<int64_t> capacity_)
      : indptr(require(indptr_, index_type(indptr_), 1, "subgraph: indptr", values_, "values")),
        indices(require(indices_, index_type(indptr_), 1, "subgraph: indices", values_, "values")),
        values(require(values_, float_type(values_), 1, "subgraph: values")),
        rows(require(rows_, ScalarType::Long, 1, "subgraph: rows", values_, "values")),
        points(points_, values_, "values", "subgraph"),
        n(indptr.size(0) - 1),
        nnz(indices.size(0)),
        b(rows.size(0)),
        capacity(capacity_) {
    STD_TORCH_CHECK(capacity.value_or(0) >= 0, "subgraph: capacity must be >= 0");
    STD_TORCH_CHECK(n >= 0, "subgraph: indptr must be [n + 1]");
    STD_TORCH_CHECK(values.size(0) == nnz, "subgraph: indices and values must be of one length");
    STD_TORCH_CHECK(b <= kSubgraphMaxRows, "subgraph: rows must be fewer than 2^29");
  }
};

struct Neighbors {
  Tensor indices, values;  // [n, k]
  int64_t n, k;

  Neighbors(const Tensor& indices_, const Tensor& values_)
      : indices(require(indices_, ScalarType::Long, 2, "symmetrize: indices", values_, "values")),
        values(require(values_, float_type(values_), 2, "symmetrize: values")),
        n(indices.size(0)),
        k(indices.size(1)) {
    STD_TORCH_CHECK(values.size(0) == n && values.size(1) == k, "symmetrize: values must be [n, k] like indices");
    STD_TORCH_CHECK(n <= kSymmetrizeMaxRows, "symmetrize: indices must have fewer than 2^31 rows");
  }
};

// The rows of a hidden layer, and the weight by which they are normalised.
struct Layer {
  Tensor x, weight;  // [n, d], [d]
  int64_t n, d;

  Layer(const Tensor& x_, const Tensor& weight_, const std::string& op)
      : x(require(x_, row_type(x_), 2, (op + ": x").c_str())),
        weight(require(weight_, ScalarType::Float, 1, (op + ": weight").c_str(), x_, "x")),
        n(x.size(0)),
        d(x.size(1)) {
    STD_TORCH_CHECK(d >= 1, op, ": x must have at least one column");
    STD_TORCH_CHECK(weight.size(0) == d, op, ": weight must be [d] like the columns of x");
  }
  static ScalarType row_type(const Tensor& x) {
    return x.scalar_type() == ScalarType::BFloat16 ? ScalarType::BFloat16 : ScalarType::Float;
  }
  // Another tensor of x's shape and type.
  Tensor rows(const Tensor& value, const std::string& what) const {
    const Tensor found = require(value, x.scalar_type(), 2, what.c_str(), x, "x");
    STD_TORCH_CHECK(found.size(0) == n && found.size(1) == d, what, " must be [n, d] like x");
    return found;
  }
  // Numbers, one for each row or column.
  Tensor numbers(const Tensor& value, int64_t size, const std::string& what) const {
    const Tensor found = require(value, ScalarType::Float, 1, what.c_str(), x, "x");
    STD_TORCH_CHECK(found.size(0) == size, what, " must be [", size, "]");
    return found;
  }
};

// The arguments of layer_norm_gelu, and room for its results.
struct LayerForward {
  static constexpr const char* kOp = "layer_norm_gelu";
  Layer layer;
  Tensor bias, y, slope, mean, scale;  // [d], [n, d], [n, d], [n], [n]

  LayerForward(const Tensor& x, const Tensor& weight, const Tensor& bias_)
      : layer(x, weight, kOp),
        bias(layer.numbers(bias_, layer.d, "layer_norm_gelu: bias")),
        y(allocate(kOp, layer.x, {layer.n, layer.d}, layer.x.scalar_type())),
        slope(allocate(kOp, layer.x, {layer.n, layer.d}, layer.x.scalar_type())),
        mean(allocate(kOp, layer.x, {layer.n}, ScalarType::Float)),
        scale(allocate(kOp, layer.x, {layer.n}, ScalarType::Float)) {}
  std::tuple<Tensor, Tensor, Tensor, Tensor> results() const { return {y, slope, mean, scale}; }
};

// The same of layer_norm_gelu_backward.
struct LayerBackward {
  static constexpr const char* kOp = "layer_norm_gelu_backward";
  Layer layer;
  Tensor grad, slope, mean, scale;        // [n, d], [n, d], [n], [n]
  Tensor grad_x, grad_weight, grad_bias;  // [n, d], [d], [d]

  LayerBackward(const Tensor& grad_, const Tensor& x, const Tensor& slope_, const Tensor& weight, const Tensor& mean_,
                const Tensor& scale_)
      : layer(x, weight, kOp),
        grad(layer.rows(grad_, "layer_norm_gelu_backward: grad")),
        slope(layer.rows(slope_, "layer_norm_gelu_backward: slope")),
        mean(layer.numbers(mean_, layer.n, "layer_norm_gelu_backward: mean")),
        scale(layer.numbers(scale_, layer.n, "layer_norm_gelu_backward: scale")),
        grad_x(allocate(kOp, layer.x, {layer.n, layer.d}, layer.x.scalar_type())),
        grad_weight(allocate(kOp, layer.x, {layer.d}, ScalarType::Float)),
        grad_bias(allocate(kOp, layer.x, {layer.d}, ScalarType::Float)) {}
  std::tuple<Tensor, Tensor, Tensor> results() const { return {grad_x, grad_weight, grad_bias}; }
};

// Calls `function` with a null pointer of the type of the rows.
template <typename F>
auto with_rows_of(const Layer& layer, F function) {
  return layer.x.scalar_type() == ScalarType::BFloat16 ? function(static_cast<BFloat16*>(nullptr))
                                                       : function(static_cast<float*>(nullptr));
}

inline void require_connectivity(double local_connectivity) {
  STD_TORCH_CHECK(local_connectivity >= 0.0, "fuzzy_weights: local_connectivity must be >= 0");
}

// Calls `function` with a null pointer of the index's and one of the value's type.
template <typename F>
auto with_types(ScalarType index, ScalarType value, F function) {
  const auto with_index = [&](auto* index_type) {
    return value == ScalarType::Double ? function(index_type, static_cast<double*>(nullptr))
                                       : function(index_type, static_cast<float*>(nullptr));
  };
  return index == ScalarType::Int ? with_index(static_cast<int32_t*>(nullptr))
                                  : with_index(static_cast<int64_t*>(nullptr));
}

// What the kernels found wrong with the contents; the number of entries otherwise.
inline void require_subgraph_found(int64_t entries) {
  STD_TORCH_CHECK(entries != kSubgraphRepeatedRow, "subgraph: rows must be distinct");
  STD_TORCH_CHECK(entries != kSubgraphStrayColumn, "subgraph: indices must lie in [0, n)");
}

inline void require_symmetrized(int64_t entries) {
  STD_TORCH_CHECK(entries != kSymmetrizeStrayIndex, "symmetrize: indices must lie in [-1, n)");
  STD_TORCH_CHECK(entries != kSymmetrizeOwnIndex, "symmetrize: indices must not name the row itself");
  STD_TORCH_CHECK(entries != kSymmetrizeRepeatedIndex, "symmetrize: indices must be distinct within a row");
}

// On the CPU, for tensors there; the CUDA operator builds its table with it.
Tensor alias_table_on_host(const Tensor& weights);

}  // namespace fastpdr::binding
