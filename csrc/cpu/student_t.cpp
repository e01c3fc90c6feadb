// CPU Student-t KL: one pass over the unordered pairs accumulates attraction and repulsion apart.
//
// The pairs are cut into tiles of W x W, W the vector width. A tile above the diagonal meets its mirror image,
// transposed in registers, so that every distance, division and force is computed once for both orders. Row sums
// stay in vectors until a row of tiles is done, column sums until a tile is done, two rows share one division. Rows
// of tiles are dealt out in chunks whose number depends on b alone; each has its own sums, added in fixed order.
// With dof 1 and no exaggeration p log p - p log w is one logarithm, log(p t), and where p is symmetric (as t-SNE's
// are) it serves both orders. Padding costs no mask: it has 0 for the numerator of the division.
#include "fastpdr/student_t.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <memory>
#include <vector>

#include "simd.h"

namespace fastpdr {
namespace {

using simd::Floats;
using simd::Ints;

constexpr std::int64_t kAlignment = 16;  // rows are padded to the widest tile
constexpr std::int64_t kMaxChunks = 32;
constexpr std::int64_t kCached = 1200;  // a p of so many rows lies in a core's caches
constexpr int kGroup = 4;               // rows of tiles taken together
constexpr int kRun = 4;                 // columns of tiles summed in float32 before widening to float64
constexpr float kLog2E = 1.44269504088896f;

struct Problem {
  const float* y;               // [b, c]
  const float* p;               // [b, b], null where p is sparse
  const std::int64_t* indptr;   // [b + 1], null where p is dense
  const std::int64_t* indices;  // [nnz]
  const float* values;          // [nnz]
  std::int64_t b, c, padded, chunks;
  float inverse_dof, exponent;  // 1 / dof, (dof + 1) / 2
  bool unit_dof, one_logarithm;
};

// Sums in lanes over a few tiles.
template <int W>
struct Run {
  Floats<W> z = {}, mass = {}, entropy = {}, log_t = {};
};

struct Totals {
  double z = 0.0;        // sum w
  double mass = 0.0;     // sum p
  double entropy = 0.0;  // sum p log p, or sum p log(p t) where one logarithm serves both
  double log_t = 0.0;    // sum p log t

  template <int W>
  FASTPDR_INLINE void add(const Run<W>& run, double orders) {
    z += orders * simd::sum<W>(run.z);
    mass += simd::sum<W>(run.mass);
    entropy += simd::sum<W>(run.entropy);
    log_t += simd::sum<W>(run.log_t);
  }
};

// What a chunk of rows writes.
struct Chunk {
  std::int64_t begin, end;   // its rows, whole tiles
  const float* coordinates;  // [c, padded], y transposed
  float* attraction;         // [c, padded], sum over the chunk's pairs of (p_ij + p_ji) (y_i - y_j) / t_ij
  float* repulsion;          // [c, padded], likewise of w_ij (y_i - y_j) / t_ij
  Totals totals;
};

// The number of coordinates, known to the compiler where C > 0.
template <int C>
FASTPDR_INLINE int dimensions(const Problem& problem) {
  return C > 0 ? C : static_cast<int>(problem.c);
}
template <int C>
constexpr int kCapacity = C > 0 ? C : static_cast<int>(kStudentTMaxComponents);

// What is wanted of a pass over the tiles.
template <bool Dense, bool UnitDof, bool OneLogarithm>
struct Mode {
  static constexpr bool kDense = Dense, kUnitDof = UnitDof, kOneLogarithm = OneLogarithm;
};

// Sums in lanes over a row of tiles.
template <int W, int C>
struct RowSums {
  Floats<W> attraction[W][kCapacity<C>], repulsion[W][kCapacity<C>];
};
// w = t^-exponent
template <int W, bool kUnitDof>
FASTPDR_INLINE Floats<W> similarity(Floats<W> t, Floats<W> inverse_t, float exponent) {
  if constexpr (kUnitDof) return inverse_t;
  const Floats<W> power = simd::log_positive<W>(t) * (-kLog2E * exponent);
  return simd::exp2_bounded<W>(simd::maximum<W>(power, simd::splat<W>(-126.0f)));
}

// How a tile of p stands to its mirror image. The diagonal tile is its own: its pairs are taken in order.
enum class Tile { kSymmetric, kMirrored, kDiagonal };

// Adds sum p log p and sum p log t; FLT_MIN stands in for the logarithm of 0, which p = 0 wipes out.
template <int W, class Mode, Tile kTile>
FASTPDR_INLINE void add_logarithms(Floats<W> p, Floats<W> mirrored, Floats<W> both, Floats<W> t, Run<W>& run) {
  if constexpr (kTile != Tile::kMirrored) {
    run.entropy += both * simd::log_positive<W>(Mode::kOneLogarithm ? p * t + FLT_MIN : p + FLT_MIN);
    if constexpr (!Mode::kOneLogarithm) run.log_t += both * simd::log_positive<W>(t);
  } else {
    run.entropy += p * simd::log_positive<W>(p + FLT_MIN) + mirrored * simd::log_positive<W>(mirrored + FLT_MIN);
    (Mode::kOneLogarithm ? run.entropy : run.log_t) += both * simd::log_positive<W>(t);
  }
}

// Adds the pairs of rows [i, i + W) with columns [j, j + W). p and its transposed mirror image are read at `upper`
// and `mirror`, rows `stride` and W apart.
template <int W, int C, class Mode, Tile kTile>
FASTPDR_INLINE void add_tile_pairs(const Problem& problem, const Chunk& chunk, std::int64_t i, std::int64_t j,
                                   const float* upper, std::int64_t stride, const Floats<W> (&mirror)[W], Run<W>& total,
                                   RowSums<W, C>& rows) {
  // Everything the loop reads lies in locals: its stores could alias members.
  const int c = dimensions<C>(problem);
  const std::int64_t padded = problem.padded;
  const float inverse_dof = problem.inverse_dof, exponent = problem.exponent;
  const float* const coordinates = chunk.coordinates;
  const std::int64_t columns = std::min<std::int64_t>(problem.b - j, W),
                     height = std::min<std::int64_t>(problem.b - i, W);
  Floats<W> counted = simd::splat<W>(1.0f);
  for (std::int64_t lane = columns; lane < W; ++lane) counted[lane] = 0.0f;
  Floats<W> column[kCapacity<C>], attraction[kCapacity<C>], repulsion[kCapacity<C>];
  for (int a = 0; a < c; ++a) {
    column[a] = simd::load<W>(coordinates + a * padded + j);
    attraction[a] = repulsion[a] = Floats<W>{};
  }
  Run<W> run = total;
  for (int pair = 0; pair < W; pair += 2) {
    Floats<W> difference[2][kCapacity<C>], t[2], inverse_t[2];
    for (int half = 0; half < 2; ++half) {
      t[half] = simd::splat<W>(1.0f);
      for (int a = 0; a < c; ++a) {
        difference[half][a] = coordinates[a * padded + i + pair + half] - column[a];
        const Floats<W> square = difference[half][a] * difference[half][a];
        t[half] += Mode::kUnitDof ? square : square * inverse_dof;
      }
    }
    const Floats<W> inverse = counted / (t[0] * t[1]);
    inverse_t[0] = inverse * t[1];
    inverse_t[1] = inverse * t[0];
    for (int half = 0; half < 2; ++half) {
      const int r = pair + half;
      Floats<W> w = similarity<W, Mode::kUnitDof>(t[half], inverse_t[half], exponent);
      if constexpr (!Mode::kUnitDof) w *= counted;
      if constexpr (kTile == Tile::kDiagonal) {
        w[r] = 0.0f;
        if (r >= height) w = Floats<W>{};
      }
      const Floats<W> push = w * inverse_t[half];
      run.z += w;
      for (int a = 0; a < c; ++a) {
        rows.repulsion[r][a] += push * difference[half][a];
        if constexpr (kTile != Tile::kDiagonal) repulsion[a] -= push * difference[half][a];
      }
      if constexpr (Mode::kDense) {
        const Floats<W> p = simd::load<W>(upper + r * stride);
        const Floats<W> both = kTile == Tile::kDiagonal ? p : p + mirror[r];
        const Floats<W> pull = both * inverse_t[half];
        run.mass += both;
        add_logarithms<W, Mode, kTile>(p, mirror[r], both, t[half], run);
        for (int a = 0; a < c; ++a) {
          rows.attraction[r][a] += pull * difference[half][a];
          attraction[a] -= pull * difference[half][a];
        }
      }
    }
  }
  total = run;
  for (int a = 0; a < c; ++a) {
    float* const pushed = chunk.repulsion + a * padded + j;
    simd::store<W>(pushed, simd::load<W>(pushed) + repulsion[a]);
    if constexpr (Mode::kDense) {
      float* const pulled = chunk.attraction + a * padded + j;
      simd::store<W>(pulled, simd::load<W>(pulled) + attraction[a]);
    }
  }
}

// Copies a W x W tile of p whose rows or columns end before W, filled up with 0, without the diagonal.
template <int W>
FASTPDR_INLINE void copy_tile(const Problem& problem, std::int64_t i, std::int64_t j, float* tile) {
  for (std::int64_t r = 0; r < W; ++r) {
    for (std::int64_t s = 0; s < W; ++s) {
      const bool stored = i + r < problem.b && j + s < problem.b && i + r != j + s;
      tile[r * W + s] = stored ? problem.p[(i + r) * problem.b + j + s] : 0.0f;
    }
  }
}

template <int W, int C, class Mode>
FASTPDR_INLINE void add_tile(const Problem& problem, const Chunk& chunk, std::int64_t i, std::int64_t j, Run<W>& run,
                             RowSums<W, C>& rows) {
  Floats<W> mirror[W];
  if constexpr (!Mode::kDense) {
    add_tile_pairs<W, C, Mode, Tile::kSymmetric>(problem, chunk, i, j, nullptr, 0, mirror, run, rows);
    return;
  }
  const std::int64_t b = problem.b;
  const float *upper = problem.p + i * b + j, *lower = problem.p + j * b + i;
  std::int64_t stride = b;
  float upper_copy[W * W], lower_copy[W * W];
  if (j + W > b) {
    copy_tile<W>(problem, i, j, upper_copy);
    copy_tile<W>(problem, j, i, lower_copy);
    upper = upper_copy;
    lower = lower_copy;
    stride = W;
  } else if (b > kCached) {
    // Short pieces of many rows: the hardware does not foresee them.
    for (int r = 0; r < W; ++r) {
      __builtin_prefetch(lower + (r + W) * b);
      __builtin_prefetch(upper + r * b + 2 * W);
    }
  }
  for (int r = 0; r < W; ++r) mirror[r] = simd::load<W>(lower + r * stride);
  simd::transpose<W>(mirror);
  Ints<W> unequal = {};
  for (int r = 0; r < W; ++r) unequal |= (Ints<W>)simd::load<W>(upper + r * stride) ^ (Ints<W>)mirror[r];
  if (simd::any<W>(unequal)) {
    add_tile_pairs<W, C, Mode, Tile::kMirrored>(problem, chunk, i, j, upper, stride, mirror, run, rows);
  } else {
    add_tile_pairs<W, C, Mode, Tile::kSymmetric>(problem, chunk, i, j, upper, stride, mirror, run, rows);
  }
}

template <int W, int C, class Mode>
FASTPDR_INLINE void add_diagonal_tile(const Problem& problem, Chunk& chunk, std::int64_t i, RowSums<W, C>& rows) {
  float copy[W * W];
  Floats<W> mirror[W];
  if constexpr (Mode::kDense) copy_tile<W>(problem, i, i, copy);
  Run<W> run;
  add_tile_pairs<W, C, Mode, Tile::kDiagonal>(problem, chunk, i, i, copy, W, mirror, run, rows);
  chunk.totals.add(run, 1.0);
}

// Rows are taken a few tiles at a time, so that both p_ij and p_ji are read in pieces of several cache lines.
template <int W, int C, class Mode>
FASTPDR_INLINE void add_all_tiles(const Problem& problem, Chunk& chunk) {
  const int c = dimensions<C>(problem);
  const std::int64_t padded = problem.padded, rows_end = std::min(chunk.end, problem.b);
  RowSums<W, C> rows[kGroup];
  for (std::int64_t group = chunk.begin; group < rows_end; group += kGroup * W) {
    const std::int64_t group_end = std::min(group + kGroup * W, rows_end);
    for (std::int64_t i = group; i < group_end; i += W) {
      RowSums<W, C>& own = rows[(i - group) / W];
      for (int r = 0; r < W; ++r) {
        for (int a = 0; a < c; ++a) own.attraction[r][a] = own.repulsion[r][a] = Floats<W>{};
      }
      add_diagonal_tile<W, C, Mode>(problem, chunk, i, own);
    }
    for (std::int64_t begin = group + W; begin < problem.b; begin += kRun * W) {
      const std::int64_t end = std::min(begin + kRun * W, problem.b);
      Run<W> run;
      for (std::int64_t j = begin; j < end; j += W) {
        for (std::int64_t i = group; i < std::min(group_end, j); i += W) {
          add_tile<W, C, Mode>(problem, chunk, i, j, run, rows[(i - group) / W]);
        }
      }
      chunk.totals.add(run, 2.0);
    }
    for (std::int64_t i = group; i < group_end; ++i) {
      const RowSums<W, C>& own = rows[(i - group) / W];
      for (int a = 0; a < c; ++a) {
        chunk.repulsion[a * padded + i] += simd::sum<W>(own.repulsion[(i - group) % W][a]);
        chunk.attraction[a * padded + i] += simd::sum<W>(own.attraction[(i - group) % W][a]);
      }
    }
  }
}

// The attraction along the stored entries of the chunk's rows, W at a time.
template <int W, int C>
FASTPDR_INLINE void add_stored_pairs(const Problem& problem, Chunk& chunk) {
  const int c = dimensions<C>(problem);
  const std::int64_t padded = problem.padded;
  float gathered[W], moved[W];
  Floats<W> difference[kCapacity<C>];
  for (std::int64_t i = chunk.begin; i < std::min(chunk.end, problem.b); ++i) {
    for (std::int64_t first = problem.indptr[i]; first < problem.indptr[i + 1]; first += W) {
      const int count = static_cast<int>(std::min<std::int64_t>(W, problem.indptr[i + 1] - first));
      std::int64_t columns[W];
      for (int lane = 0; lane < W; ++lane) {
        columns[lane] = lane < count ? problem.indices[first + lane] : i;
        gathered[lane] = columns[lane] == i ? 0.0f : problem.values[first + lane];
      }
      const Floats<W> p = simd::load<W>(gathered);
      Floats<W> t = simd::splat<W>(1.0f);
      for (int a = 0; a < c; ++a) {
        for (int lane = 0; lane < W; ++lane) gathered[lane] = chunk.coordinates[a * padded + columns[lane]];
        difference[a] = problem.y[i * c + a] - simd::load<W>(gathered);
        t += difference[a] * difference[a] * problem.inverse_dof;
      }
      chunk.totals.mass += simd::sum<W>(p);
      chunk.totals.entropy += simd::sum<W>(p * simd::log_positive<W>(p + FLT_MIN));
      chunk.totals.log_t += simd::sum<W>(p * simd::log_positive<W>(t));
      for (int a = 0; a < c; ++a) {
        const Floats<W> force = p / t * difference[a];
        chunk.attraction[a * padded + i] += simd::sum<W>(force);
        simd::store<W>(moved, force);
        for (int lane = 0; lane < count; ++lane) chunk.attraction[a * padded + columns[lane]] -= moved[lane];
      }
    }
  }
}

template <int W, int C>
FASTPDR_INLINE void process_chunk_of(const Problem& problem, Chunk& chunk) {
  if (problem.p == nullptr) {
    add_stored_pairs<W, C>(problem, chunk);
    if (problem.unit_dof) {
      add_all_tiles<W, C, Mode<false, true, false>>(problem, chunk);
    } else {
      add_all_tiles<W, C, Mode<false, false, false>>(problem, chunk);
    }
  } else if (problem.one_logarithm) {
    add_all_tiles<W, C, Mode<true, true, true>>(problem, chunk);
  } else if (problem.unit_dof) {
    add_all_tiles<W, C, Mode<true, true, false>>(problem, chunk);
  } else {
    add_all_tiles<W, C, Mode<true, false, false>>(problem, chunk);
  }
}

template <int W>
FASTPDR_INLINE void process_chunk_body(const Problem& problem, Chunk& chunk) {
  switch (problem.c) {
    case 2: return process_chunk_of<W, 2>(problem, chunk);
    case 3: return process_chunk_of<W, 3>(problem, chunk);
    case 4: return process_chunk_of<W, 4>(problem, chunk);
    default: return process_chunk_of<W, 0>(problem, chunk);
  }
}

FASTPDR_MULTIVERSION(process_chunk, (const Problem& problem, Chunk& chunk), (problem, chunk))

// A power of two, so that few threads share the chunks evenly, of at least 64 rows on average.
std::int64_t count_chunks(std::int64_t b) {
  std::int64_t chunks = 1;
  while (chunks < kMaxChunks && 2 * chunks * 64 <= b) chunks *= 2;
  return chunks;
}

// The first row of a chunk: the tiles right of the diagonal are shared evenly.
std::int64_t chunk_begin(const Problem& problem, std::int64_t chunk) {
  const double rest = std::sqrt(1.0 - static_cast<double>(chunk) / problem.chunks);
  const std::int64_t tiles = problem.padded / kAlignment;
  return static_cast<std::int64_t>(std::lround(tiles * (1.0 - rest))) * kAlignment;
}

void transpose(const Problem& problem, float* coordinates) {
  for (std::int64_t a = 0; a < problem.c; ++a) {
    float* line = coordinates + a * problem.padded;
    for (std::int64_t i = 0; i < problem.b; ++i) line[i] = problem.y[i * problem.c + a];
    std::fill(line + problem.b, line + problem.padded, 0.0f);
  }
}

// grad = attraction_factor * (sum of the chunks' attraction) - repulsion_factor * (sum of their repulsion)
void combine(const Problem& problem, const float* sums, double attraction_factor, double repulsion_factor,
             float* grad) {
  constexpr std::int64_t kPiece = 256;
  const std::int64_t pieces = (problem.b + kPiece - 1) / kPiece, plane = problem.c * problem.padded;
#pragma omp parallel for schedule(static) if (problem.b > 2048)
  for (std::int64_t piece = 0; piece < pieces; ++piece) {
    const std::int64_t begin = piece * kPiece, count = std::min(kPiece, problem.b - begin);
    for (std::int64_t a = 0; a < problem.c; ++a) {
      double pulled[kPiece] = {}, pushed[kPiece] = {};
      for (std::int64_t chunk = 0; chunk < problem.chunks; ++chunk) {
        const float* attraction = sums + 2 * chunk * plane + a * problem.padded + begin;
        const float* repulsion = attraction + plane;
        for (std::int64_t i = 0; i < count; ++i) pulled[i] += attraction[i];
        for (std::int64_t i = 0; i < count; ++i) pushed[i] += repulsion[i];
      }
      for (std::int64_t i = 0; i < count; ++i) {
        grad[(begin + i) * problem.c + a] =
            static_cast<float>(attraction_factor * pulled[i] - repulsion_factor * pushed[i]);
      }
    }
  }
}

void divergence(Problem problem, double dof, double exaggeration, float* loss, float* grad) {
  problem.padded = (problem.b + kAlignment - 1) / kAlignment * kAlignment;
  problem.chunks = count_chunks(problem.b);
  problem.inverse_dof = static_cast<float>(1.0 / dof);
  problem.exponent = static_cast<float>((dof + 1.0) / 2.0);
  problem.unit_dof = dof == 1.0;
  problem.one_logarithm = problem.unit_dof && exaggeration == 1.0;
  const std::int64_t plane = problem.c * problem.padded;
  const std::unique_ptr<float[]> coordinates(new float[plane]);
  const std::unique_ptr<float[]> sums(new float[2 * problem.chunks * plane]);  // [chunks, 2, c, padded]
  std::vector<Totals> totals(problem.chunks);
  transpose(problem, coordinates.get());
#pragma omp parallel for schedule(dynamic, 1) if (problem.chunks > 1)
  for (std::int64_t index = 0; index < problem.chunks; ++index) {
    float* attraction = sums.get() + 2 * index * plane;
    std::fill(attraction, attraction + 2 * plane, 0.0f);
    Chunk chunk{chunk_begin(problem, index), chunk_begin(problem, index + 1),
                coordinates.get(),           attraction,
                attraction + plane,          Totals{}};
    process_chunk(problem, chunk);
    totals[index] = chunk.totals;
  }
  Totals sum;
  for (const Totals& part : totals) {
    sum.z += part.z;
    sum.mass += part.mass;
    sum.entropy += part.entropy;
    sum.log_t += part.log_t;
  }
  // Fewer than two points, or a p without mass: what is not defined pulls and pushes nowhere.
  double value = problem.b > 1 ? std::log(sum.z) : 0.0;
  if (sum.mass > 0.0) {
    value += sum.entropy / sum.mass - std::log(sum.mass) + exaggeration * problem.exponent * sum.log_t / sum.mass;
  }
  *loss = static_cast<float>(value);
  const double slope = (dof + 1.0) / dof;
  combine(problem, sums.get(), sum.mass > 0.0 ? slope * exaggeration / sum.mass : 0.0,
          problem.b > 1 ? 2.0 * slope / sum.z : 0.0, grad);
}

}  // namespace

void student_t_kl(const float* y, const float* p, std::int64_t b, std::int64_t c, double dof, double exaggeration,
                  float* loss, float* grad) {
  Problem problem{};
  problem.y = y;
  problem.p = p;
  problem.b = b;
  problem.c = c;
  divergence(problem, dof, exaggeration, loss, grad);
}

void student_t_kl_csr(const float* y, const std::int64_t* indptr, const std::int64_t* indices, const float* values,
                      std::int64_t b, std::int64_t c, double dof, double exaggeration, float* loss, float* grad) {
  Problem problem{};
  problem.y = y;
  problem.indptr = indptr;
  problem.indices = indices;
  problem.values = values;
  problem.b = b;
  problem.c = c;
  divergence(problem, dof, exaggeration, loss, grad);
}

}  // namespace fastpdr
