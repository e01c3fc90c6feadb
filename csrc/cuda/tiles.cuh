// The pairs of a map's points on a CUDA device: all of them in tiles, or those that a sparse matrix stores; one term of
// a loss each.
//
// Method: ordered pairs. A block owns rows, a thread a few of them in registers; the columns of the block's span pass
// through shared memory, read four at a time and the same by all threads, so that a read serves 16 pairs of a thread.
// Where rows are few, several blocks share a row's columns; each writes its sums to planes of its own, which `combine`
// adds in order. Maps of other widths than 2, 3 and 4 meet in tiles of 32 x 32: distances first, then forces.
// Stored pairs take a warp per row; as both ends of a pair are moved, their forces are added as whole numbers (fixed
// point, 60 bits below what a point can be pulled at most), which comes to the same in any order.
//
// Precision policy: per-pair arithmetic float32 with the approximations of the special-function unit (below), sums
// widened to float64 after a tile, between blocks as well, but for the planes, which round to float32 once. A map that
// is not finite makes the loss NaN.
#pragma once

#include <algorithm>
#include <cfloat>

#include "indexing.cuh"

namespace fastpdr::cuda::tiles {

constexpr int kThreads = 128;     // of a block that has tiles
constexpr int kMostColumns = 64;  // of a map
constexpr int kQuad = 4;          // columns read together
constexpr int kSide = 32;         // of a tile of a map of any width, or of a dense matrix
constexpr int kStride = 36;       // of its rows in shared memory: four floats at a time meet no bank twice

#ifdef FASTPDR_CUDA_EMULATOR
constexpr int kTileColumns = 32;  // so that the small maps of tests have several tiles
#else
constexpr int kTileColumns = 256;  // of a map of few columns
#endif

// The special-function unit, errors as NVIDIA's PTX manual states them: 1/x to 1 ulp, 2^x and 1/sqrt x to 2^-22, log2 x
// to 2^-22 absolute in (0.5, 2), relative elsewhere. Beside the 2^-24 of every rounding these are noise of the same
// size, which sums over many pairs average out. Numbers below FLT_MIN count as 0.
#ifdef FASTPDR_CUDA_EMULATOR
inline float reciprocal(float x) {
  return 1.0f / x;
}
inline float exp2_approximate(float x) {
  return exp2f(x);
}
inline float log2_approximate(float x) {
  return log2f(x);
}
inline float inverse_root(float x) {
  return 1.0f / sqrtf(x);
}
#else
__device__ __forceinline__ float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float log2_approximate(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float inverse_root(float x) {
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#endif

constexpr double kLn2 = 0.693147180559945309417;

// Cuts a caller's memory into aligned pieces; without memory it only counts the bytes.
class Workspace {
 public:
  explicit Workspace(void* memory) : memory_(static_cast<char*>(memory)) {}
  template <typename T>
  T* take(std::int64_t count) {
    char* const piece = memory_ == nullptr ? nullptr : memory_ + bytes_;
    bytes_ +=
        static_cast<std::size_t>(divide_up(count * static_cast<std::int64_t>(sizeof(T)), kAlignment)) * kAlignment;
    return reinterpret_cast<T*>(piece);
  }
  std::size_t bytes() const { return bytes_; }

 private:
  static constexpr std::int64_t kAlignment = 256;
  char* memory_;
  std::size_t bytes_ = 0;
};

// How the pairs are shared out: blocks of rows times spans of columns. It depends on sizes alone, as do the bits.
struct Plan {
  std::int64_t row_blocks, splits, span;
  std::int64_t blocks() const { return row_blocks * splits; }
};

// Enough blocks for every multiprocessor; beyond, spans so long that planes cost little beside the pairs.
inline Plan make_plan(std::int64_t b, std::int64_t rows) {
  constexpr std::int64_t kFewBlocks = 1024, kManyBlocks = 8192, kShortSpan = 64, kLongSpan = 512;
  const std::int64_t row_blocks = divide_up(b, rows);
  const std::int64_t most = divide_up(b, kShortSpan), few = divide_up(kFewBlocks, row_blocks);
  const std::int64_t many = std::min(divide_up(b, kLongSpan), kManyBlocks / row_blocks);
  const std::int64_t splits = std::max<std::int64_t>(std::min(std::max(few, many), most), 1);
  const std::int64_t span = divide_up(divide_up(b, splits), kSide) * kSide;
  return {row_blocks, divide_up(b, span), span};
}

// Terms. A term computes four pairs of one row at once, so that they can share a division or a logarithm:
//   kRows         rows of a thread
//   kForces       forces it tells apart; pull[f][q] times (y_i - y_j) is what it adds to force f
//   kValues       values it sums up; the first kRowValues of them also for every row
//   kShares       reads a number of every point, share[i]
//   kDense        reads a matrix p [b, b], and p transposed
//   start()       what is added to a squared distance before evaluate() is given it
//   evaluate<kMasked>(sums, beside, value, pull); where kMasked, beside.counted says which pairs there are
//   kShortens     near() and shorten(pull, sqdist) bound the force of pairs whose sum lies below near()
struct Beside {
  bool counted[kQuad];
  float share, shares[kQuad];       // of the row, of the columns
  float p[kQuad], mirrored[kQuad];  // p_ij, p_ji; 0 where there is no pair
};

template <class Term>
__host__ __device__ constexpr int planes_of(int c) {
  return Term::kForces * c + Term::kRowValues;
}

__device__ __forceinline__ void unpack(float4 packed, float (&values)[kQuad]) {
  values[0] = packed.x;
  values[1] = packed.y;
  values[2] = packed.z;
  values[3] = packed.w;
}

template <int kCount>
constexpr int kAtLeastOne = kCount > 0 ? kCount : 1;

// The block's sum of each value, to totals [kValues, blocks].
template <int kValues, int kBlockThreads>
__device__ __forceinline__ void write_totals(const double* value, double* totals) {
#pragma unroll
  for (int v = 0; v < kValues; ++v) {
    const double sum = block_sum<kBlockThreads>(value[v]);
    if (threadIdx.x == 0) totals[static_cast<std::int64_t>(v) * gridDim.x + blockIdx.x] = sum;
  }
}

// Copies the tile of p at rows [first, first + kRows), columns [begin, begin + kSide), without the diagonal and 0
// beyond row b and column `end`: p_ij to `straight`, p_ji to `mirrored`.
template <int kRows>
__device__ __forceinline__ void stage_matrix(const float* __restrict__ p, std::int64_t b, std::int64_t first,
                                             std::int64_t begin, std::int64_t end, float* straight, float* mirrored) {
  static_assert(kRows % kSide == 0, "whole warps");
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  constexpr int kWarps = kThreads / kWarp;
#pragma unroll 8
  for (int r = warp; r < kRows; r += kWarps) {
    const std::int64_t i = first + r, j = begin + lane;
    straight[r * kStride + lane] = i < b && j < end && i != j ? p[i * b + j] : 0.0f;
  }
#pragma unroll 8
  for (int piece = warp; piece < kSide * (kRows / kWarp); piece += kWarps) {
    const int s = piece / (kRows / kWarp), r = piece % (kRows / kWarp) * kWarp + lane;
    const std::int64_t i = first + r, j = begin + s;
    mirrored[s * kRows + r] = i < b && j < end && i != j ? p[j * b + i] : 0.0f;
  }
}

// What a thread adds up over its rows and columns.
template <int C, class Term>
struct Sums {
  static constexpr int kValueRows = Term::kRowValues > 0 ? Term::kRows : 1;
  double value[kValueRows][kAtLeastOne<Term::kValues>];
  double force[Term::kRows][kAtLeastOne<Term::kForces>][C];
};

// The pairs of a thread's rows with the columns of a tile.
template <int C, class Term, bool kMasked, int kColumns>
__device__ __forceinline__ void add_tile(const Term& term, const float4 (*columns)[kColumns / kQuad],
                                         const float4* straight, const float* mirrored,
                                         const float (&own)[Term::kRows][C], const float (&share)[Term::kRows],
                                         std::int64_t i, std::int64_t b, std::int64_t begin, int count,
                                         Sums<C, Term>& sums) {
  constexpr int kRows = Term::kRows, kValues = kAtLeastOne<Term::kValues>, kForces = kAtLeastOne<Term::kForces>;
  float value[Sums<C, Term>::kValueRows][kValues] = {}, force[kRows][kForces][C] = {};
  int limit[kRows], self[kRows];  // where a row's pairs end, and the one with itself
  if constexpr (kMasked) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const std::int64_t row = i + r * kThreads, place = row - begin;
      limit[r] = row < b ? count : 0;
      self[r] = 0 <= place && place < count ? static_cast<int>(place) : -1;
    }
  }
#pragma unroll 1
  for (int quad = 0; quad * kQuad < count; ++quad) {
    float column[C][kQuad];
#pragma unroll
    for (int a = 0; a < C; ++a) unpack(columns[a][quad], column[a]);
    Beside beside;
    if constexpr (Term::kShares) unpack(columns[C][quad], beside.shares);
    if constexpr (Term::kDense) {
      static_assert(kRows == 1, "a row of p for a thread");
      unpack(straight[threadIdx.x * (kStride / kQuad) + quad], beside.p);
#pragma unroll
      for (int q = 0; q < kQuad; ++q) beside.mirrored[q] = mirrored[(quad * kQuad + q) * kThreads + threadIdx.x];
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float difference[C][kQuad], sum[kQuad], pull[kForces][kQuad];
#pragma unroll
      for (int q = 0; q < kQuad; ++q) {
        sum[q] = term.start();
#pragma unroll
        for (int a = 0; a < C; ++a) {
          difference[a][q] = own[r][a] - column[a][q];
          sum[q] = fmaf(difference[a][q], difference[a][q], sum[q]);
        }
        if constexpr (kMasked) {
          const int s = quad * kQuad + q;
          beside.counted[q] = s < limit[r] && s != self[r];
        }
      }
      beside.share = share[r];
      term.template evaluate<kMasked>(sum, beside, value[Sums<C, Term>::kValueRows > 1 ? r : 0], pull);
      if constexpr (Term::kShortens) {
        if (fminf(fminf(sum[0], sum[1]), fminf(sum[2], sum[3])) < term.near()) {  // one branch for the quad
#pragma unroll
          for (int q = 0; q < kQuad; ++q) {
            float sqdist = 0.0f;
#pragma unroll
            for (int a = 0; a < C; ++a) sqdist = fmaf(difference[a][q], difference[a][q], sqdist);
            pull[0][q] = term.shorten(pull[0][q], sqdist);
          }
        }
      }
#pragma unroll
      for (int f = 0; f < Term::kForces; ++f) {
#pragma unroll
        for (int a = 0; a < C; ++a) {
#pragma unroll
          for (int q = 0; q < kQuad; ++q) force[r][f][a] = fmaf(pull[f][q], difference[a][q], force[r][f][a]);
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < Sums<C, Term>::kValueRows; ++r) {
#pragma unroll
    for (int v = 0; v < Term::kValues; ++v) sums.value[r][v] += value[r][v];
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int f = 0; f < Term::kForces; ++f) {
#pragma unroll
      for (int a = 0; a < C; ++a) sums.force[r][f][a] += force[r][f][a];
    }
  }
}

// Blocks that a multiprocessor shall hold: as few as hide latencies leave the most registers to each thread.
template <int C>
constexpr int kResident = C == 2   ? 5
                          : C == 3 ? 4
                                   : 3;

// Maps of C columns: the sums of a block's rows over its span to planes [splits, planes_of, b], its values to totals
// [kValues, blocks].
template <int C, class Term>
__global__ void __launch_bounds__(kThreads, kResident<C>)
    add_pairs(const float* __restrict__ y, const std::int64_t* __restrict__ points, std::int64_t b, Plan plan,
              Term term, float* __restrict__ planes, double* __restrict__ totals) {
  constexpr int kRows = Term::kRows, kColumns = Term::kDense ? kSide : kTileColumns;
  constexpr int kLines = C + (Term::kShares ? 1 : 0);
  FASTPDR_SHARED(float4, columns, [kLines][kColumns / kQuad]);
  FASTPDR_SHARED(float4, straight, [Term::kDense ? kThreads * kStride / kQuad : 1]);
  FASTPDR_SHARED(float, mirrored, [Term::kDense ? kSide * kThreads : 1]);
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t split = blockIdx.x / plan.row_blocks;
  const std::int64_t first = blockIdx.x % plan.row_blocks * (kThreads * kRows), i = first + thread;
  const std::int64_t m = points_of(points, b), span_end = min(m, (split + 1) * plan.span);
  float own[kRows][C], share[kRows];
  Sums<C, Term> sums = {};
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t row = i + r * kThreads;
    float poison = 0.0f;  // NaN where a coordinate is not finite
#pragma unroll
    for (int a = 0; a < C; ++a) {
      own[r][a] = row < m ? y[row * C + a] : 0.0f;
      poison += 0.0f * own[r][a];
    }
    share[r] = 0.0f;
    if constexpr (Term::kShares) share[r] = row < m ? term.share[row] : 0.0f;
    if constexpr (Term::kValues > 0) sums.value[Sums<C, Term>::kValueRows > 1 ? r : 0][0] += poison;
  }
  for (std::int64_t begin = split * plan.span; begin < span_end; begin += kColumns) {
    const std::int64_t end = min(begin + kColumns, span_end);
    __syncthreads();
    for (int s = thread; s < kColumns; s += kThreads) {
      const std::int64_t j = begin + s;
#pragma unroll
      for (int a = 0; a < C; ++a) reinterpret_cast<float*>(columns[a])[s] = j < end ? y[j * C + a] : 0.0f;
      if constexpr (Term::kShares) reinterpret_cast<float*>(columns[C])[s] = j < end ? term.share[j] : 0.0f;
    }
    if constexpr (Term::kDense) {
      stage_matrix<kThreads>(term.p, b, first, begin, end, reinterpret_cast<float*>(straight), mirrored);
    }
    __syncthreads();
    const int count = static_cast<int>(end - begin);
    const bool whole = first + kThreads * kRows <= m && count % kQuad == 0;
    const bool apart = end <= first || begin >= first + kThreads * kRows;
    if (whole && apart) {
      add_tile<C, Term, false, kColumns>(term, columns, straight, mirrored, own, share, i, m, begin, count, sums);
    } else {
      add_tile<C, Term, true, kColumns>(term, columns, straight, mirrored, own, share, i, m, begin, count, sums);
    }
  }
  float* const plane = planes + split * planes_of<Term>(C) * b;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t row = i + r * kThreads;
    if (row >= b) continue;
#pragma unroll
    for (int f = 0; f < Term::kForces; ++f) {
#pragma unroll
      for (int a = 0; a < C; ++a) plane[(f * C + a) * b + row] = static_cast<float>(sums.force[r][f][a]);
    }
#pragma unroll
    for (int v = 0; v < Term::kRowValues; ++v) {
      plane[(Term::kForces * C + v) * b + row] = static_cast<float>(sums.value[r][v]);
    }
  }
  double value[kAtLeastOne<Term::kValues>] = {};
#pragma unroll
  for (int r = 0; r < Sums<C, Term>::kValueRows; ++r) {
#pragma unroll
    for (int v = 0; v < Term::kValues; ++v) value[v] += sums.value[r][v];
  }
  write_totals<Term::kValues, kThreads>(value, totals);
}

// Maps of any width. In turn, a lane has a row and a warp two quads of columns of the tile, then every fourth
// coordinate.
template <class Term>
__global__ void __launch_bounds__(kThreads, kResident<3>)
    add_wide_pairs(const float* __restrict__ y, const std::int64_t* __restrict__ points, std::int64_t b, int c,
                   Plan plan, Term term, float* __restrict__ planes, double* __restrict__ totals) {
  constexpr int kWarps = kThreads / kWarp, kCoordinates = kMostColumns / kWarps;
  constexpr int kForces = kAtLeastOne<Term::kForces>, kValues = kAtLeastOne<Term::kValues>;
  constexpr int kRowValues = kAtLeastOne<Term::kRowValues>;
  FASTPDR_SHARED(float, own, [kMostColumns][kSide + 1]);
  FASTPDR_SHARED(float4, columns, [kMostColumns][kStride / kQuad]);
  FASTPDR_SHARED(float4, shares, [kSide / kQuad]);
  FASTPDR_SHARED(float4, straight, [Term::kDense ? kSide * kStride / kQuad : 1]);
  FASTPDR_SHARED(float, mirrored, [Term::kDense ? kSide * kSide : 1]);
  FASTPDR_SHARED(float, pulls, [kForces][kSide][kSide]);
  FASTPDR_SHARED(double, row_values, [kRowValues][kWarps][kSide]);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  const std::int64_t split = blockIdx.x / plan.row_blocks;
  const std::int64_t first = blockIdx.x % plan.row_blocks * kSide, i = first + lane;
  const std::int64_t m = points_of(points, b), span_end = min(m, (split + 1) * plan.span);
  Beside beside;
  beside.share = 0.0f;
  if constexpr (Term::kShares) beside.share = i < m ? term.share[i] : 0.0f;
  double value[kValues] = {}, force[kForces][kCoordinates] = {};
  for (int place = thread; place < kSide * c; place += kThreads) {
    const float coordinate = first + place / c < m ? y[first * c + place] : 0.0f;
    own[place % c][place / c] = coordinate;
    if constexpr (Term::kValues > 0) value[0] += 0.0f * coordinate;
  }
  for (std::int64_t begin = split * plan.span; begin < span_end; begin += kSide) {
    const std::int64_t end = min(begin + kSide, span_end);
    __syncthreads();
    for (int place = thread; place < kSide * c; place += kThreads) {
      const float coordinate = begin + place / c < end ? y[begin * c + place] : 0.0f;
      reinterpret_cast<float*>(columns[place % c])[place / c] = coordinate;
    }
    if constexpr (Term::kShares) {
      if (thread < kSide) {
        reinterpret_cast<float*>(shares)[thread] = begin + thread < end ? term.share[begin + thread] : 0.0f;
      }
    }
    if constexpr (Term::kDense) {
      stage_matrix<kSide>(term.p, b, first, begin, end, reinterpret_cast<float*>(straight), mirrored);
    }
    __syncthreads();
    float tile_value[kValues] = {};
#pragma unroll
    for (int quad = warp; quad < kSide / kQuad; quad += kWarps) {
      float sqdist[kQuad] = {}, sum[kQuad], pull[kForces][kQuad];
      for (int a = 0; a < c; ++a) {
        float column[kQuad];
        unpack(columns[a][quad], column);
#pragma unroll
        for (int q = 0; q < kQuad; ++q) {
          const float difference = own[a][lane] - column[q];
          sqdist[q] = fmaf(difference, difference, sqdist[q]);
        }
      }
      if constexpr (Term::kShares) unpack(shares[quad], beside.shares);
      if constexpr (Term::kDense) unpack(straight[lane * (kStride / kQuad) + quad], beside.p);
#pragma unroll
      for (int q = 0; q < kQuad; ++q) {
        const int s = quad * kQuad + q;
        sum[q] = sqdist[q] + term.start();
        beside.counted[q] = i < m && begin + s < end && i != begin + s;
        if constexpr (Term::kDense) beside.mirrored[q] = mirrored[s * kSide + lane];
      }
      term.template evaluate<true>(sum, beside, tile_value, pull);
#pragma unroll
      for (int q = 0; q < kQuad; ++q) {
        if constexpr (Term::kShortens) {
          if (sum[q] < term.near()) pull[0][q] = term.shorten(pull[0][q], sqdist[q]);
        }
#pragma unroll
        for (int f = 0; f < Term::kForces; ++f) pulls[f][quad * kQuad + q][lane] = pull[f][q];
      }
    }
#pragma unroll
    for (int v = 0; v < Term::kValues; ++v) value[v] += tile_value[v];
    if constexpr (Term::kForces > 0) {
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kCoordinates; ++k) {
        const int a = warp + k * kWarps;
        if (a >= c) continue;
        float tile_force[kForces] = {};
        for (int quad = 0; quad < kSide / kQuad; ++quad) {
          float column[kQuad];
          unpack(columns[a][quad], column);
#pragma unroll
          for (int q = 0; q < kQuad; ++q) {
#pragma unroll
            for (int f = 0; f < Term::kForces; ++f) {
              tile_force[f] = fmaf(pulls[f][quad * kQuad + q][lane], own[a][lane] - column[q], tile_force[f]);
            }
          }
        }
#pragma unroll
        for (int f = 0; f < Term::kForces; ++f) force[f][k] += tile_force[f];
      }
    }
  }
  float* const plane = planes + split * planes_of<Term>(c) * b;
#pragma unroll
  for (int f = 0; f < Term::kForces; ++f) {
#pragma unroll
    for (int k = 0; k < kCoordinates; ++k) {
      const int a = warp + k * kWarps;
      if (a < c && i < b) plane[(f * c + a) * b + i] = static_cast<float>(force[f][k]);
    }
  }
  if constexpr (Term::kRowValues > 0) {
#pragma unroll
    for (int v = 0; v < Term::kRowValues; ++v) row_values[v][warp][lane] = value[v];
    __syncthreads();
    if (warp == 0 && i < b) {
#pragma unroll
      for (int v = 0; v < Term::kRowValues; ++v) {
        double sum = 0.0;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) sum += row_values[v][w][lane];
        plane[(Term::kForces * c + v) * b + i] = static_cast<float>(sum);
      }
    }
  }
  write_totals<Term::kValues, kThreads>(value, totals);
}

template <class Term>
Plan plan_of(std::int64_t b, std::int64_t c) {
  return make_plan(b, 2 <= c && c <= 4 ? kThreads * Term::kRows : kSide);
}

// b >= 1.
template <class Term>
void launch_pairs(const float* y, const std::int64_t* points, std::int64_t b, std::int64_t c, const Term& term,
                  float* planes, double* totals, cudaStream_t stream) {
  const Plan plan = plan_of<Term>(b, c);
  const dim3 blocks = grid(plan.blocks()), threads(kThreads);
  switch (c) {
    case 2:
      FASTPDR_LAUNCH((add_pairs<2, Term>), blocks, threads, 0, stream, y, points, b, plan, term, planes, totals);
      break;
    case 3:
      FASTPDR_LAUNCH((add_pairs<3, Term>), blocks, threads, 0, stream, y, points, b, plan, term, planes, totals);
      break;
    case 4:
      FASTPDR_LAUNCH((add_pairs<4, Term>), blocks, threads, 0, stream, y, points, b, plan, term, planes, totals);
      break;
    default:
      FASTPDR_LAUNCH((add_wide_pairs<Term>), blocks, threads, 0, stream, y, points, b, static_cast<int>(c), plan, term,
                     planes, totals);
  }
}

// Stored pairs --------------------------------------------------------------------------------------------------------

constexpr int kStoredThreads = 256;
constexpr int kStoredRows = kStoredThreads / kWarp;  // rows of a block at a time

struct Stored {
  const std::int64_t* indptr;   // [b + 1]
  const std::int64_t* indices;  // [nnz]
  const float* values;          // [nnz]
  std::int64_t nnz;
};

inline std::int64_t stored_blocks(std::int64_t b) {
  return std::min<std::int64_t>(divide_up(b, kStoredRows), 1024);
}

struct Entries {
  std::int64_t begin, end;
  bool sound;
};

__device__ __forceinline__ Entries entries_of(const Stored& stored, std::int64_t row) {
  const std::int64_t begin = stored.indptr[row], end = stored.indptr[row + 1];
  if (0 <= begin && begin <= end && end <= stored.nnz) return {begin, end, true};
  return {0, 0, false};
}

__device__ __forceinline__ bool inside(std::int64_t index, std::int64_t size) {
  return static_cast<std::uint64_t>(index) < static_cast<std::uint64_t>(size);
}

// Sum of a [count] by a block, in fixed order; all threads get it.
template <int kBlockThreads>
__device__ __forceinline__ double sum_of(const double* __restrict__ values, std::int64_t count) {
  double sum = 0.0;
#pragma unroll 8
  for (std::int64_t e = threadIdx.x; e < count; e += kBlockThreads) sum += values[e];
  return block_sum<kBlockThreads>(sum);
}

// The mass off the diagonal of every row, and of the rows of every block; NaN where indptr or indices lead astray.
static __global__ void __launch_bounds__(kStoredThreads)
    weigh(Stored stored, std::int64_t b, double* __restrict__ row_masses, double* __restrict__ totals) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  double total = 0.0;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kStoredRows + warp; i < b;
       i += static_cast<std::int64_t>(gridDim.x) * kStoredRows) {
    const Entries entries = entries_of(stored, i);
    double mass = entries.sound ? 0.0 : NAN;
    for (std::int64_t e = entries.begin + lane; e < entries.end; e += kWarp) {
      const std::int64_t j = stored.indices[e];
      if (j != i) mass += inside(j, b) ? static_cast<double>(stored.values[e]) : NAN;
    }
    mass = warp_sum(mass);
    if (lane == 0) {
      row_masses[i] = mass;
      total += mass;
    }
  }
  write_totals<1, kStoredThreads>(&total, totals);
}

// What the stored pairs are measured by.
struct Scales {
  double fixed_point;  // whole numbers are forces times this power of two
  double entries;      // entries over mass: values times this are about 1
};

__device__ __forceinline__ Scales scales_of(double mass, double longest, std::int64_t nnz) {
  const double bound = mass * longest;
  if (!(bound > 0.0 && bound < DBL_MAX)) return {1.0, 1.0};
  return {scalbn(1.0, 59 - ilogb(bound)), static_cast<double>(static_cast<float>(static_cast<double>(nnz) / mass))};
}

__device__ __forceinline__ void add_fixed(std::int64_t* sum, float force, double scale) {
  const long long number = llrint(static_cast<double>(force) * scale);
  atomicAdd(reinterpret_cast<unsigned long long*>(sum), static_cast<unsigned long long>(number));
}

// Adds the stored pairs' forces to sums [b, c] and their values to totals [kValues, blocks]. The term returns the pull
// of a value at a squared distance; no pair of value 1 pulls harder than `longest`.
template <class Term>
__global__ void __launch_bounds__(kStoredThreads, 4)
    attract(const float* __restrict__ y, Stored stored, std::int64_t b, int c, Term term, double longest,
            const double* __restrict__ masses, std::int64_t* sums, Scales* scales, double* __restrict__ totals) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const Scales scale = scales_of(sum_of<kStoredThreads>(masses, gridDim.x), longest, stored.nnz);
  if (blockIdx.x == 0 && threadIdx.x == 0) *scales = scale;
  double value[Term::kValues] = {};
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kStoredRows + warp; i < b;
       i += static_cast<std::int64_t>(gridDim.x) * kStoredRows) {
    const Entries entries = entries_of(stored, i);
    for (std::int64_t begin = entries.begin; begin < entries.end; begin += kWarp) {
      const std::int64_t e = begin + lane;
      const std::int64_t column = e < entries.end ? stored.indices[e] : i, j = inside(column, b) ? column : i;
      const float p = j == i ? 0.0f : stored.values[e];
      float sqdist = 0.0f;
      for (int a = 0; a < c; ++a) {
        const float difference = y[i * c + a] - y[j * c + a];
        sqdist = fmaf(difference, difference, sqdist);
      }
      const float pull = term.evaluate(p, sqdist, static_cast<float>(scale.entries), value);
      for (int a = 0; a < c; ++a) {
        const float force = pull * (y[i * c + a] - y[j * c + a]);
        if (j != i) add_fixed(sums + j * c + a, -force, scale.fixed_point);
        const float row_force = warp_sum(force);
        if (lane == 0) add_fixed(sums + i * c + a, row_force, scale.fixed_point);
      }
    }
  }
  write_totals<Term::kValues, kStoredThreads>(value, totals);
}

// Results -------------------------------------------------------------------------------------------------------------

constexpr int kFinishThreads = 256;

// Numbers that blocks have left to be summed up.
struct Totals {
  const double* values;  // [count]
  std::int64_t count;
};

template <int kCount>
struct TotalsOf {
  Totals plane[kCount];
};

// One block: finish(sums) writes the loss and the factors of `combine`.
template <class Finish>
__global__ void __launch_bounds__(kFinishThreads) finish(TotalsOf<Finish::kTotals> totals, Finish function) {
  double sums[Finish::kTotals];
#pragma unroll
  for (int t = 0; t < Finish::kTotals; ++t) {
    sums[t] = sum_of<kFinishThreads>(totals.plane[t].values, totals.plane[t].count);
  }
  if (threadIdx.x == 0) function(sums);
}

// c planes among `count` of each of `splits` blocks.
struct Planes {
  const float* values;  // [splits, count, b], moved to the first of the c planes
  std::int64_t splits, count;
};

constexpr int kCombineThreads = 256;

// grad = factors[0] * attraction - factors[1] * repulsion; the attraction is planes or, where these are null, fixed.
static __global__ void __launch_bounds__(kCombineThreads)
    combine(Planes attraction, const std::int64_t* __restrict__ fixed, Planes repulsion, std::int64_t b, int c,
            const double* __restrict__ factors, float* __restrict__ grad) {
  constexpr int kWarps = kCombineThreads / kWarp;
  FASTPDR_SHARED(double, parts, [kWarps][kWarp]);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int a = static_cast<int>(blockIdx.x % static_cast<unsigned>(c));
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x / static_cast<unsigned>(c)) * kWarp + lane;
  double pulled = 0.0, pushed = 0.0;
  if (i < b) {
    if (attraction.values != nullptr) {
#pragma unroll 4
      for (std::int64_t s = warp; s < attraction.splits; s += kWarps) {
        pulled += attraction.values[(s * attraction.count + a) * b + i];
      }
    } else if (warp == 0) {
      pulled = static_cast<double>(fixed[i * c + a]);
    }
#pragma unroll 4
    for (std::int64_t s = warp; s < repulsion.splits; s += kWarps) {
      pushed += repulsion.values[(s * repulsion.count + a) * b + i];
    }
  }
  parts[warp][lane] = factors[0] * pulled - factors[1] * pushed;
  __syncthreads();
  if (warp != 0 || i >= b) return;
  double sum = 0.0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += parts[w][lane];
  grad[i * c + a] = static_cast<float>(sum);
}

inline void launch_combine(Planes attraction, const std::int64_t* fixed, Planes repulsion, std::int64_t b,
                           std::int64_t c, const double* factors, float* grad, cudaStream_t stream) {
  FASTPDR_LAUNCH(combine, grid(divide_up(b, kWarp) * c), dim3(kCombineThreads), 0, stream, attraction, fixed, repulsion,
                 b, static_cast<int>(c), factors, grad);
}

// What is left to do for fewer than two points.
inline cudaError_t clear(std::int64_t b, std::int64_t c, float* loss, float* grad, cudaStream_t stream) {
  const cudaError_t error = cudaMemsetAsync(loss, 0, sizeof(float), stream);
  if (error != cudaSuccess || b == 0) return error;
  return cudaMemsetAsync(grad, 0, static_cast<std::size_t>(b * c) * sizeof(float), stream);
}

}  // namespace fastpdr::cuda::tiles
