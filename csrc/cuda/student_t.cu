// CUDA Student-t KL (fastpdr/student_t.h) by the tiles of tiles.cuh. Dense p: one pass over ordered pairs accumulates
// attraction and repulsion apart, and all sums of the loss; it reads p_ij and p_ji, through shared memory, and waits
// for these. Sparse p: the stored pairs attract, all pairs repel.
//
// A pair of a map of two columns and sparse p is two differences, two squares, a division by the special-function unit,
// and two forces: some ten instructions at dof 1. Z is known after the pass, so it divides the forces in the end;
// normalised by row, the forces need the row's sum of w first: a pass for these sums, one for the forces.
//
// Precision policy: tiles.cuh. Logarithms are taken of p times the number of pairs (or of entries), which is about 1:
// there the approximation's error is 2e-7, however many pairs there are; what was multiplied is subtracted in float64.
#include <cmath>

#include "fastpdr/cuda.h"
#include "fastpdr/student_t.h"
#include "tiles.cuh"

namespace fastpdr::cuda {
namespace {

using tiles::Beside;
using tiles::kLn2;
using tiles::kQuad;
using tiles::Scales;
using tiles::Totals;

// w and 1 / t, from t with dof 1 and from a squared distance otherwise.
template <bool kUnitDof>
struct Similarity {
  float inverse_dof, exponent;  // 1 / dof, (dof + 1) / 2

  __device__ float start() const { return kUnitDof ? 1.0f : 0.0f; }
  __device__ __forceinline__ void evaluate(float sum, float& t, float& inverse_t, float& w) const {
    t = kUnitDof ? sum : fmaf(sum, inverse_dof, 1.0f);
    inverse_t = tiles::reciprocal(t);
    w = inverse_t;
    if constexpr (!kUnitDof) w = tiles::exp2_approximate(fmaxf(-exponent * tiles::log2_approximate(t), -126.0f));
  }
};

// The repulsion of a sparse p under one normalisation for all pairs.
template <bool kUnitDof>
struct Repulsion : Similarity<kUnitDof> {
  static constexpr int kRows = 4, kForces = 1, kValues = 1, kRowValues = 0;
  static constexpr bool kShares = false, kDense = false, kShortens = false;

  template <bool kMasked>
  __device__ __forceinline__ void evaluate(const float (&sum)[kQuad], const Beside& beside, float (&value)[1],
                                           float (&push)[1][kQuad]) const {
#pragma unroll
    for (int q = 0; q < kQuad; ++q) {
      float t, inverse_t, w;
      Similarity<kUnitDof>::evaluate(sum[q], t, inverse_t, w);
      if constexpr (kMasked) w = beside.counted[q] ? w : 0.0f;
      value[0] += w;
      push[0][q] = w * inverse_t;
    }
  }
};

// The sum of w of every row.
template <bool kUnitDof>
struct RowTotals : Similarity<kUnitDof> {
  static constexpr int kRows = 4, kForces = 0, kValues = 1, kRowValues = 1;
  static constexpr bool kShares = false, kDense = false, kShortens = false;

  template <bool kMasked>
  __device__ __forceinline__ void evaluate(const float (&sum)[kQuad], const Beside& beside, float (&value)[1],
                                           float (&)[1][kQuad]) const {
#pragma unroll
    for (int q = 0; q < kQuad; ++q) {
      float t, inverse_t, w;
      Similarity<kUnitDof>::evaluate(sum[q], t, inverse_t, w);
      if constexpr (kMasked) w = beside.counted[q] ? w : 0.0f;
      value[0] += w;
    }
  }
};

// The repulsion under a normalisation of every row: `share` is the row's part of the mass over its sum of w.
template <bool kUnitDof>
struct RowRepulsion : Similarity<kUnitDof> {
  static constexpr int kRows = 4, kForces = 1, kValues = 0, kRowValues = 0;
  static constexpr bool kShares = true, kDense = false, kShortens = false;
  const float* share;  // [b]

  template <bool kMasked>
  __device__ __forceinline__ void evaluate(const float (&sum)[kQuad], const Beside& beside, float (&)[1],
                                           float (&push)[1][kQuad]) const {
#pragma unroll
    for (int q = 0; q < kQuad; ++q) {
      float t, inverse_t, w;
      Similarity<kUnitDof>::evaluate(sum[q], t, inverse_t, w);
      if constexpr (kMasked) w = beside.counted[q] ? w : 0.0f;
      push[0][q] = w * inverse_t * (beside.share + beside.shares[q]);
    }
  }
};

// Everything at once for a dense p. Where dof and exaggeration are 1, p log p - p log w is one logarithm, log(p t).
template <bool kUnitDof, bool kOneLogarithm>
struct Dense : Similarity<kUnitDof> {
  static constexpr int kRows = 1, kForces = 2, kValues = 4, kRowValues = 2;
  static constexpr bool kShares = false, kDense = true, kShortens = false;
  enum Value { kMass, kZ, kEntropy, kLogT };
  const float* p;  // [b, b]
  float entries;   // off the diagonal

  template <bool kMasked>
  __device__ __forceinline__ void evaluate(const float (&sum)[kQuad], const Beside& beside, float (&value)[4],
                                           float (&pull)[2][kQuad]) const {
#pragma unroll
    for (int q = 0; q < kQuad; ++q) {
      float t, inverse_t, w;
      Similarity<kUnitDof>::evaluate(sum[q], t, inverse_t, w);
      if constexpr (kMasked) w = beside.counted[q] ? w : 0.0f;
      const float p_ij = beside.p[q], scaled = p_ij * entries;
      value[kMass] += p_ij;
      value[kZ] += w;
      // FLT_MIN stands in for the logarithm of 0, which p = 0 wipes out.
      value[kEntropy] += p_ij * tiles::log2_approximate((kOneLogarithm ? scaled * t : scaled) + FLT_MIN);
      if constexpr (!kOneLogarithm) value[kLogT] += p_ij * tiles::log2_approximate(t);
      pull[0][q] = (p_ij + beside.mirrored[q]) * inverse_t;
      pull[1][q] = w * inverse_t;
    }
  }
};

// Along the stored pairs, which are few: full logarithms.
struct Attraction {
  static constexpr int kValues = 2;
  enum Value { kEntropy, kLogT };
  float inverse_dof;

  __device__ __forceinline__ float evaluate(float p, float sqdist, float entries, double (&value)[2]) const {
    const float excess = sqdist * inverse_dof;
    value[kEntropy] += p == 0.0f ? 0.0f : p * log2f(p * entries);
    value[kLogT] += p * (log1pf(excess) * static_cast<float>(1.0 / kLn2));
    return p / (1.0f + excess);
  }
};

constexpr int kShareThreads = 256;

// Every row's share of the mass over its sum of w, and sum_i r_i (log Z_i - log r_i), r the share of the mass. A row's
// mass is either in `row_masses` or in a plane.
__global__ void __launch_bounds__(kShareThreads)
    share_rows(Totals masses, const double* __restrict__ row_masses, tiles::Planes mass_planes, tiles::Planes z_planes,
               std::int64_t b, float* __restrict__ share, double* __restrict__ totals) {
  const double mass = tiles::sum_of<kShareThreads>(masses.values, masses.count);
  double value = 0.0;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kShareThreads + threadIdx.x; i < b;
       i += static_cast<std::int64_t>(gridDim.x) * kShareThreads) {
    double z = 0.0, row_mass = row_masses == nullptr ? 0.0 : row_masses[i];
    for (std::int64_t s = 0; s < z_planes.splits; ++s) {
      z += z_planes.values[s * z_planes.count * b + i];
      if (row_masses == nullptr) row_mass += mass_planes.values[s * mass_planes.count * b + i];
    }
    const double r = mass == 0.0 ? 0.0 : row_mass / mass;
    if (!(r <= 0.0)) value += r * (log(z) - log(r));
    share[i] = r <= 0.0 ? 0.0f : static_cast<float>(r / z);  // padding has neither
  }
  tiles::write_totals<1, kShareThreads>(&value, totals);
}

// The loss, and the factors of attraction and repulsion.
struct Finish {
  static constexpr int kTotals = 4;
  double slope, exaggeration, exponent;  // (dof + 1) / dof, exaggeration, (dof + 1) / 2
  bool by_row;
  const std::int64_t* points;  // how many, or null: enough
  double entries;              // what values were multiplied by in logarithms: this,
  const Scales* scales;        // or, where p is sparse, this
  float* loss;
  double* factors;

  // Sums of p, p log2 p, p log2 t, and of w or, by row, of r (log Z - log r).
  __device__ void operator()(const double (&sums)[kTotals]) const {
    if (points != nullptr && *points < 2) {
      *loss = 0.0f;
      factors[0] = factors[1] = 0.0;
      return;
    }
    const double mass = sums[0], measured = scales == nullptr ? entries : scales->entries;
    double value = by_row ? sums[3] : log(sums[3]), pull = 0.0;
    if (mass != 0.0) {  // a p without mass pulls nowhere
      value += kLn2 * (sums[1] + exaggeration * exponent * sums[2]) / mass - log(measured) - log(mass);
      pull = slope * exaggeration / mass / (scales == nullptr ? 1.0 : scales->fixed_point);
    }
    *loss = static_cast<float>(value);
    factors[0] = pull;
    factors[1] = by_row ? slope : 2.0 * slope / sums[3];
  }
};

// dof 1 and others are kernels of their own.
template <template <bool> class Term, typename... Fields>
void launch_term(const float* y, const std::int64_t* points, std::int64_t b, std::int64_t c, double dof, float* planes,
                 double* totals, cudaStream_t stream, Fields... fields) {
  const auto inverse_dof = static_cast<float>(1.0 / dof), exponent = static_cast<float>((dof + 1.0) / 2.0);
  if (dof == 1.0) {
    tiles::launch_pairs(y, points, b, c, Term<true>{{inverse_dof, exponent}, fields...}, planes, totals, stream);
  } else {
    tiles::launch_pairs(y, points, b, c, Term<false>{{inverse_dof, exponent}, fields...}, planes, totals, stream);
  }
}

template <bool kUnitDof>
using DenseTwo = Dense<kUnitDof, false>;
using AnyDense = Dense<true, false>;
using AnyTotals = RowTotals<true>;
using AnyRepulsion = Repulsion<true>;  // and RowRepulsion, whose plan is the same

constexpr std::int64_t kMostShareBlocks = 1024;

// What is common to dense and sparse p: the second pass of a normalisation by row, the loss and the gradient.
struct Ending {
  float* share;          // [b], by row
  double* row_totals;    // [blocks], by row
  float* row_repulsion;  // [splits, c, b], by row
  double* factors;       // [2]
  std::int64_t share_blocks;

  Ending(tiles::Workspace& workspace, std::int64_t b, std::int64_t c, bool by_row)
      : share(by_row ? workspace.take<float>(b) : nullptr),
        row_totals(by_row ? workspace.take<double>(kMostShareBlocks) : nullptr),
        row_repulsion(by_row ? workspace.take<float>(tiles::plan_of<AnyRepulsion>(b, c).splits * c * b) : nullptr),
        factors(workspace.take<double>(2)),
        share_blocks(std::min(divide_up(b, kShareThreads), kMostShareBlocks)) {}

  // Leaves the repulsion by row, and returns where the value of its part of the loss is.
  Totals repel_by_row(const float* y, const std::int64_t* points, std::int64_t b, std::int64_t c, double dof,
                      Totals masses, const double* row_masses, tiles::Planes mass_planes, tiles::Planes z_planes,
                      cudaStream_t stream) const {
    FASTPDR_LAUNCH(share_rows, grid(share_blocks), dim3(kShareThreads), 0, stream, masses, row_masses, mass_planes,
                   z_planes, b, share, row_totals);
    launch_term<RowRepulsion>(y, points, b, c, dof, row_repulsion, nullptr, stream, static_cast<const float*>(share));
    return {row_totals, share_blocks};
  }
};

struct DenseMemory {
  tiles::Plan plan;
  float* planes;   // [splits, 2 c + 2, b]
  double* totals;  // [4, blocks]
  Ending ending;

  DenseMemory(tiles::Workspace& workspace, std::int64_t b, std::int64_t c, bool by_row)
      : plan(tiles::plan_of<AnyDense>(b, c)),
        planes(workspace.take<float>(plan.splits * (2 * c + 2) * b)),
        totals(workspace.take<double>(4 * plan.blocks())),
        ending(workspace, b, c, by_row) {}
};

struct SparseMemory {
  tiles::Plan plan;
  std::int64_t blocks;   // of passes over the stored pairs
  float* planes;         // [splits, c, b], or [splits, 1, b] by row
  double* totals;        // [1, plan.blocks()]
  double* row_masses;    // [b]
  double* masses;        // [blocks]
  double* stored;        // [2, blocks]
  std::int64_t* pulled;  // [b, c]
  Scales* scales;        // []
  Ending ending;

  SparseMemory(tiles::Workspace& workspace, std::int64_t b, std::int64_t c, bool by_row)
      : plan(tiles::plan_of<AnyRepulsion>(b, c)),
        blocks(tiles::stored_blocks(b)),
        planes(workspace.take<float>(plan.splits * (by_row ? 1 : c) * b)),
        totals(workspace.take<double>(plan.blocks())),
        row_masses(workspace.take<double>(b)),
        masses(workspace.take<double>(blocks)),
        stored(workspace.take<double>(2 * blocks)),
        pulled(workspace.take<std::int64_t>(b * c)),
        scales(workspace.take<Scales>(1)),
        ending(workspace, b, c, by_row) {}
};

template <class Memory>
std::size_t count_bytes(std::int64_t b, std::int64_t c, bool by_row) {
  if (b < 2) return 0;
  tiles::Workspace workspace(nullptr);
  const Memory memory(workspace, b, c, by_row);
  return workspace.bytes();
}

}  // namespace

std::size_t student_t_kl_workspace(std::int64_t b, std::int64_t c, bool by_row) {
  return count_bytes<DenseMemory>(b, c, by_row);
}

cudaError_t student_t_kl(const float* y, const float* p, std::int64_t b, std::int64_t c, double dof,
                         double exaggeration, bool by_row, void* workspace, float* loss, float* grad,
                         cudaStream_t stream) {
  if (b < 2) return tiles::clear(b, c, loss, grad, stream);
  tiles::Workspace pieces(workspace);
  const DenseMemory memory(pieces, b, c, by_row);
  const Ending& ending = memory.ending;
  const auto entries = static_cast<float>(static_cast<double>(b) * static_cast<double>(b - 1));
  if (dof == 1.0 && exaggeration == 1.0) {
    const Dense<true, true> term{{1.0f, 1.0f}, p, entries};
    tiles::launch_pairs(y, nullptr, b, c, term, memory.planes, memory.totals, stream);
  } else {
    launch_term<DenseTwo>(y, nullptr, b, c, dof, memory.planes, memory.totals, stream, p, entries);
  }
  const std::int64_t splits = memory.plan.splits, count = 2 * c + 2, blocks = memory.plan.blocks();
  const auto plane = [&](std::int64_t index) { return tiles::Planes{memory.planes + index * b, splits, count}; };
  const auto total = [&](std::int64_t index) { return Totals{memory.totals + index * blocks, blocks}; };
  Totals value = total(AnyDense::kZ);
  tiles::Planes repulsion = plane(c);
  if (by_row) {
    value = ending.repel_by_row(y, nullptr, b, c, dof, total(AnyDense::kMass), nullptr, plane(2 * c + AnyDense::kMass),
                                plane(2 * c + AnyDense::kZ), stream);
    repulsion = {ending.row_repulsion, tiles::plan_of<AnyRepulsion>(b, c).splits, c};
  }
  const Finish last{(dof + 1.0) / dof, exaggeration, (dof + 1.0) / 2.0, by_row, nullptr, entries,
                    nullptr,           loss,         ending.factors};
  const tiles::TotalsOf<Finish::kTotals> totals{
      {total(AnyDense::kMass), total(AnyDense::kEntropy), total(AnyDense::kLogT), value}};
  FASTPDR_LAUNCH((tiles::finish<Finish>), dim3(1), dim3(tiles::kFinishThreads), 0, stream, totals, last);
  tiles::launch_combine(plane(0), nullptr, repulsion, b, c, ending.factors, grad, stream);
  return cudaGetLastError();
}

std::size_t student_t_kl_csr_workspace(std::int64_t b, std::int64_t c, bool by_row) {
  return count_bytes<SparseMemory>(b, c, by_row);
}

cudaError_t student_t_kl_csr(const float* y, const std::int64_t* indptr, const std::int64_t* indices,
                             const float* values, const std::int64_t* points, std::int64_t nnz, std::int64_t b,
                             std::int64_t c, double dof, double exaggeration, bool by_row, void* workspace, float* loss,
                             float* grad, cudaStream_t stream) {
  if (b < 2) return tiles::clear(b, c, loss, grad, stream);
  tiles::Workspace pieces(workspace);
  const SparseMemory memory(pieces, b, c, by_row);
  const Ending& ending = memory.ending;
  const tiles::Stored stored{indptr, indices, values, nnz};
  const std::size_t pulled_bytes = static_cast<std::size_t>(b * c) * sizeof(std::int64_t);
  const cudaError_t error = cudaMemsetAsync(memory.pulled, 0, pulled_bytes, stream);
  if (error != cudaSuccess) return error;
  const dim3 blocks = grid(memory.blocks), threads(tiles::kStoredThreads);
  FASTPDR_LAUNCH(tiles::weigh, blocks, threads, 0, stream, stored, b, memory.row_masses, memory.masses);
  // (y_i - y_j) / t is longest at |y_i - y_j|^2 = dof.
  FASTPDR_LAUNCH((tiles::attract<Attraction>), blocks, threads, 0, stream, y, stored, b, static_cast<int>(c),
                 Attraction{static_cast<float>(1.0 / dof)}, std::sqrt(dof) / 2.0, memory.masses, memory.pulled,
                 memory.scales, memory.stored);
  const auto total = [&](std::int64_t index) { return Totals{memory.stored + index * memory.blocks, memory.blocks}; };
  const Totals masses{memory.masses, memory.blocks};
  Totals value{memory.totals, memory.plan.blocks()};
  tiles::Planes repulsion{memory.planes, memory.plan.splits, c};
  if (by_row) {
    launch_term<RowTotals>(y, points, b, c, dof, memory.planes, memory.totals, stream);
    const tiles::Planes z{memory.planes, tiles::plan_of<AnyTotals>(b, c).splits, 1};
    value = ending.repel_by_row(y, points, b, c, dof, masses, memory.row_masses, {}, z, stream);
    repulsion.values = ending.row_repulsion;
  } else {
    launch_term<Repulsion>(y, points, b, c, dof, memory.planes, memory.totals, stream);
  }
  const Finish last{(dof + 1.0) / dof, exaggeration, (dof + 1.0) / 2.0, by_row, points, 1.0,
                    memory.scales,     loss,         ending.factors};
  const tiles::TotalsOf<Finish::kTotals> totals{{masses, total(Attraction::kEntropy), total(Attraction::kLogT), value}};
  FASTPDR_LAUNCH((tiles::finish<Finish>), dim3(1), dim3(tiles::kFinishThreads), 0, stream, totals, last);
  tiles::launch_combine({}, memory.pulled, repulsion, b, c, ending.factors, grad, stream);
  return cudaGetLastError();
}

}  // namespace fastpdr::cuda
