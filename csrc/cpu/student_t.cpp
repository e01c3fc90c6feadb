// CPU Student-t KL. Sparse p: the stored pairs attract, all unordered pairs repel (tiles.h). Dense p: one pass over
// the unordered pairs accumulates attraction and repulsion apart.
//
// There a tile above the diagonal meets its mirror image, transposed in registers, so that every distance, division
// and force is computed once for both orders, in the tiles and chunks of tiles.h; two rows share one division. With
// dof 1 and no exaggeration p log p - p log w is one logarithm, log(p t), and where p is symmetric (as t-SNE's are) it
// serves both orders. Padding costs no mask: it has 0 for the numerator of the division.
//
// Normalised by row, the forces need the row's sum of w first: a pass for these sums, one for the forces.
#include "fastpdr/student_t.h"

#include <cfloat>
#include <cstring>

#include "tiles.h"

namespace fastpdr {
namespace {

using simd::Floats;
using simd::Ints;
using tiles::kCapacity;
using tiles::kRows;
using tiles::Points;
using tiles::Sums;

constexpr int kGroup = 4;               // rows of tiles taken together
constexpr int kRun = 4;                 // columns of tiles summed in float32 before widening to float64
constexpr std::int64_t kCached = 1200;  // a p of so many rows lies in a core's caches
constexpr float kLog2E = 1.44269504088896f;

struct Problem {
  const float* p;               // [b, b], null where p is sparse
  tiles::Stored stored;         // where p is sparse
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
  std::int64_t index;
  float* attraction;  // [c, padded], sum over the chunk's pairs of (p_ij + p_ji) (y_i - y_j) / t_ij
  float* repulsion;   // [c, padded], likewise of w_ij (y_i - y_j) / t_ij
  Totals totals;
};

// What a dense p asks of a pair.
template <bool UnitDof, bool OneLogarithm>
struct Mode {
  static constexpr bool kUnitDof = UnitDof, kOneLogarithm = OneLogarithm;
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
FASTPDR_INLINE void add_tile_pairs(const Points& points, const Problem& problem, const Chunk& chunk, std::int64_t i,
                                   std::int64_t j, const float* upper, std::int64_t stride,
                                   const Floats<W> (&mirror)[W], Run<W>& total, RowSums<W, C>& rows) {
  // Everything the loop reads lies in locals: its stores could alias members.
  const int c = points.columns<C>();
  const std::int64_t padded = points.padded;
  const float inverse_dof = problem.inverse_dof, exponent = problem.exponent;
  const float* const coordinates = points.coordinates;
  const std::int64_t columns = std::min<std::int64_t>(points.b - j, W),
                     height = std::min<std::int64_t>(points.b - i, W);
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
  total = run;
  for (int a = 0; a < c; ++a) {
    float* const pushed = chunk.repulsion + a * padded + j;
    float* const pulled = chunk.attraction + a * padded + j;
    simd::store<W>(pushed, simd::load<W>(pushed) + repulsion[a]);
    simd::store<W>(pulled, simd::load<W>(pulled) + attraction[a]);
  }
}

// Copies a W x W tile of p whose rows or columns end before W, filled up with 0, without the diagonal.
template <int W>
FASTPDR_INLINE void copy_tile(const float* p, std::int64_t b, std::int64_t i, std::int64_t j, float* tile) {
  const std::int64_t rows = std::min<std::int64_t>(W, b - i), columns = std::min<std::int64_t>(W, b - j);
  std::memset(tile, 0, sizeof(float) * W * W);
  for (std::int64_t r = 0; r < rows; ++r) {
    std::memcpy(tile + r * W, p + (i + r) * b + j, sizeof(float) * columns);
    if (i == j) tile[r * W + r] = 0.0f;
  }
}

template <int W, int C, class Mode>
FASTPDR_INLINE void add_tile(const Points& points, const Problem& problem, const Chunk& chunk, std::int64_t i,
                             std::int64_t j, Run<W>& run, RowSums<W, C>& rows) {
  Floats<W> mirror[W];
  const std::int64_t b = points.b;
  const float *upper = problem.p + i * b + j, *lower = problem.p + j * b + i;
  std::int64_t stride = b;
  float upper_copy[W * W], lower_copy[W * W];
  if (j + W > b) {
    copy_tile<W>(problem.p, b, i, j, upper_copy);
    copy_tile<W>(problem.p, b, j, i, lower_copy);
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
    add_tile_pairs<W, C, Mode, Tile::kMirrored>(points, problem, chunk, i, j, upper, stride, mirror, run, rows);
  } else {
    add_tile_pairs<W, C, Mode, Tile::kSymmetric>(points, problem, chunk, i, j, upper, stride, mirror, run, rows);
  }
}

template <int W, int C, class Mode>
FASTPDR_INLINE void add_diagonal_tile(const Points& points, const Problem& problem, Chunk& chunk, std::int64_t i,
                                      RowSums<W, C>& rows) {
  float copy[W * W];
  Floats<W> mirror[W];
  copy_tile<W>(problem.p, points.b, i, i, copy);
  Run<W> run;
  add_tile_pairs<W, C, Mode, Tile::kDiagonal>(points, problem, chunk, i, i, copy, W, mirror, run, rows);
  chunk.totals.add(run, 1.0);
}

// Rows are taken a few tiles at a time, so that both p_ij and p_ji are read in pieces of several cache lines.
template <int W, int C, class Mode>
FASTPDR_INLINE void add_dense_pairs(const Points& points, const Problem& problem, Chunk& chunk) {
  const int c = points.columns<C>();
  const std::int64_t padded = points.padded, rows_end = std::min(points.begin(chunk.index + 1), points.b);
  RowSums<W, C> rows[kGroup];
  for (std::int64_t group = points.begin(chunk.index); group < rows_end; group += kGroup * W) {
    const std::int64_t group_end = std::min(group + kGroup * W, rows_end);
    for (std::int64_t i = group; i < group_end; i += W) {
      RowSums<W, C>& own = rows[(i - group) / W];
      for (int r = 0; r < W; ++r) {
        for (int a = 0; a < c; ++a) own.attraction[r][a] = own.repulsion[r][a] = Floats<W>{};
      }
      add_diagonal_tile<W, C, Mode>(points, problem, chunk, i, own);
    }
    for (std::int64_t begin = group + W; begin < points.b; begin += kRun * W) {
      const std::int64_t end = std::min(begin + kRun * W, points.b);
      Run<W> run;
      for (std::int64_t j = begin; j < end; j += W) {
        for (std::int64_t i = group; i < std::min(group_end, j); i += W) {
          add_tile<W, C, Mode>(points, problem, chunk, i, j, run, rows[(i - group) / W]);
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

// p log p, p log t and the attraction along stored pairs.
struct Attraction {
  float inverse_dof;
  Totals* totals;

  template <int W>
  FASTPDR_INLINE Floats<W> evaluate(std::int64_t, Floats<W> p, Floats<W> sqdist) const {
    const Floats<W> t = sqdist * inverse_dof + 1.0f;
    totals->mass += simd::sum<W>(p);
    totals->entropy += simd::sum<W>(p * simd::log_positive<W>(p + FLT_MIN));
    totals->log_t += simd::sum<W>(p * simd::log_positive<W>(t));
    return p / t;
  }
};

// w and 1 / t of the rows of a tile, two with one division.
template <int W, bool kUnitDof>
FASTPDR_INLINE void similarities(const Floats<W> (&sqdist)[kRows], float inverse_dof, float exponent,
                                 Floats<W> (&w)[kRows], Floats<W> (&inverse_t)[kRows]) {
  Floats<W> t[kRows];
  for (int r = 0; r < kRows; ++r) t[r] = (kUnitDof ? sqdist[r] : sqdist[r] * inverse_dof) + 1.0f;
  for (int r = 0; r < kRows; r += 2) {
    const Floats<W> inverse = 1.0f / (t[r] * t[r + 1]);
    inverse_t[r] = inverse * t[r + 1];
    inverse_t[r + 1] = inverse * t[r];
  }
  for (int r = 0; r < kRows; ++r) w[r] = similarity<W, kUnitDof>(t[r], inverse_t[r], exponent);
}

// The repulsion of a sparse p under one normalisation for all pairs.
template <bool kUnitDof>
struct Repulsion {
  static constexpr bool kSums = false;
  template <int W>
  using Values = tiles::PlainSum<W>;
  float inverse_dof, exponent;

  template <int W>
  FASTPDR_INLINE void evaluate(const Floats<W> (&sqdist)[kRows], std::int64_t, std::int64_t, tiles::PlainSum<W>& z,
                               Floats<W> (&push)[kRows]) const {
    Floats<W> w[kRows], inverse_t[kRows];
    similarities<W, kUnitDof>(sqdist, inverse_dof, exponent, w, inverse_t);
    z.add(w);
    for (int r = 0; r < kRows; ++r) push[r] = w[r] * inverse_t[r];
  }
};

// The sum of w of every row.
template <bool kUnitDof>
struct RowTotals {
  static constexpr bool kSums = true;
  template <int W>
  using Values = tiles::PlainSum<W>;
  float inverse_dof, exponent;

  template <int W>
  FASTPDR_INLINE void evaluate(const Floats<W> (&sqdist)[kRows], std::int64_t, std::int64_t, tiles::PlainSum<W>&,
                               Floats<W> (&w)[kRows]) const {
    Floats<W> inverse_t[kRows];
    similarities<W, kUnitDof>(sqdist, inverse_dof, exponent, w, inverse_t);
  }
};

// The repulsion under a normalisation of every row: `share` is the row's mass of p over its sum of w.
template <bool kUnitDof>
struct RowRepulsion {
  static constexpr bool kSums = false;
  template <int W>
  using Values = tiles::PlainSum<W>;
  float inverse_dof, exponent;
  const float* share;  // [padded], 0 beyond b

  template <int W>
  FASTPDR_INLINE void evaluate(const Floats<W> (&sqdist)[kRows], std::int64_t i, std::int64_t j, tiles::PlainSum<W>&,
                               Floats<W> (&push)[kRows]) const {
    Floats<W> w[kRows], inverse_t[kRows];
    similarities<W, kUnitDof>(sqdist, inverse_dof, exponent, w, inverse_t);
    const Floats<W> columns = simd::load<W>(share + j);
    for (int r = 0; r < kRows; ++r) push[r] = w[r] * inverse_t[r] * (columns + share[i + r]);
  }
};

// Attraction, and the repulsion that a dense p brings along.
template <int W, int C>
FASTPDR_INLINE void attract_of(const Points& points, const Problem& problem, Chunk& chunk) {
  if (problem.p == nullptr) {
    Attraction attraction{problem.inverse_dof, &chunk.totals};
    tiles::add_stored_pairs<W, C>(points, problem.stored, attraction, chunk.index, chunk.attraction);
  } else if (problem.one_logarithm) {
    add_dense_pairs<W, C, Mode<true, true>>(points, problem, chunk);
  } else if (problem.unit_dof) {
    add_dense_pairs<W, C, Mode<true, false>>(points, problem, chunk);
  } else {
    add_dense_pairs<W, C, Mode<false, false>>(points, problem, chunk);
  }
}

// A pass of a term over all pairs: its forces or sums into `sums`, the sum of its values into chunk.totals.z.
template <int W, int C, template <bool> class Term, class... Fields>
FASTPDR_INLINE void pass_of(const Points& points, const Problem& problem, Chunk& chunk, float* sums, Fields... fields) {
  if (problem.unit_dof) {
    const Term<true> term{problem.inverse_dof, problem.exponent, fields...};
    chunk.totals.z = tiles::add_all_pairs<W, C>(points, term, chunk.index, sums);
  } else {
    const Term<false> term{problem.inverse_dof, problem.exponent, fields...};
    chunk.totals.z = tiles::add_all_pairs<W, C>(points, term, chunk.index, sums);
  }
}

enum class Pass { kAttraction, kRepulsion, kRowTotals, kRowRepulsion };

template <int W, int C>
FASTPDR_INLINE void process_chunk_of(const Points& points, const Problem& problem, Pass pass, const float* share,
                                     Chunk& chunk) {
  switch (pass) {
    case Pass::kAttraction: return attract_of<W, C>(points, problem, chunk);
    case Pass::kRepulsion: return pass_of<W, C, Repulsion>(points, problem, chunk, chunk.repulsion);
    case Pass::kRowTotals: return pass_of<W, C, RowTotals>(points, problem, chunk, chunk.repulsion);
    case Pass::kRowRepulsion: return pass_of<W, C, RowRepulsion>(points, problem, chunk, chunk.repulsion, share);
  }
}

template <int W>
FASTPDR_INLINE void process_chunk_body(const Points& points, const Problem& problem, Pass pass, const float* share,
                                       Chunk& chunk) {
  switch (points.c) {
    case 2: return process_chunk_of<W, 2>(points, problem, pass, share, chunk);
    case 3: return process_chunk_of<W, 3>(points, problem, pass, share, chunk);
    case 4: return process_chunk_of<W, 4>(points, problem, pass, share, chunk);
    default: return process_chunk_of<W, 0>(points, problem, pass, share, chunk);
  }
}

FASTPDR_MULTIVERSION(process_chunk,
                     (const Points& points, const Problem& problem, Pass pass, const float* share, Chunk& chunk),
                     (points, problem, pass, share, chunk))

// One pass over all chunks.
void run(const Points& points, const Problem& problem, Pass pass, const float* share, std::vector<Chunk>& chunks) {
#pragma omp parallel for schedule(dynamic, 1) if (points.chunks > 1)
  for (std::int64_t index = 0; index < points.chunks; ++index)
    process_chunk(points, problem, pass, share, chunks[index]);
}

// Mass of p off the diagonal in every row.
std::vector<double> row_masses(const Points& points, const Problem& problem) {
  std::vector<double> mass(points.b);
#pragma omp parallel for schedule(static) if (points.b > 256)
  for (std::int64_t i = 0; i < points.b; ++i) {
    if (problem.p != nullptr) {
      const float* const row = problem.p + i * points.b;
      double sum = 0.0;
      for (std::int64_t j = 0; j < points.b; ++j) sum += row[j];
      mass[i] = sum - row[i];
    } else {
      const tiles::Stored& stored = problem.stored;
      for (std::int64_t e = stored.indptr[i]; e < stored.indptr[i + 1]; ++e) {
        if (stored.indices[e] != i) mass[i] += stored.values[e];
      }
    }
  }
  return mass;
}

// The passes of a normalisation by row, for p of the given mass: leaves the repulsion in the chunks and returns
// sum_i r_i (log Z_i - log r_i), r the rows' shares of the mass.
double repel_by_row(const Points& points, const Problem& problem, double mass, const Sums& repulsion,
                    std::vector<Chunk>& chunks) {
  const Sums totals(points, 1);
  for (Chunk& chunk : chunks) chunk.repulsion = totals.cleared(chunk.index);
  run(points, problem, Pass::kRowTotals, nullptr, chunks);
  const std::vector<double> masses = row_masses(points, problem);
  std::vector<float> share(points.padded);
  double value = 0.0;
  for (std::int64_t i = 0; i < points.b; ++i) {
    double z = 0.0;
    for (std::int64_t chunk = 0; chunk < points.chunks; ++chunk) z += totals.of(chunk)[i];
    const double r = mass > 0.0 ? masses[i] / mass : 0.0;
    if (r > 0.0) value += r * (std::log(z) - std::log(r));
    share[i] = static_cast<float>(r / z);
  }
  for (Chunk& chunk : chunks) chunk.repulsion = repulsion.cleared(chunk.index);
  run(points, problem, Pass::kRowRepulsion, share.data(), chunks);
  return value;
}

void divergence(const float* y, const Problem& problem, std::int64_t b, std::int64_t c, double dof, double exaggeration,
                bool by_row, float* loss, float* grad) {
  const tiles::Map map(y, b, c);
  const Points& points = map.points();
  const Sums attraction(points, c), repulsion(points, c);
  std::vector<Chunk> chunks(points.chunks);
  for (std::int64_t index = 0; index < points.chunks; ++index) {
    chunks[index] = Chunk{index, attraction.cleared(index), repulsion.cleared(index), Totals{}};
  }
  run(points, problem, Pass::kAttraction, nullptr, chunks);
  if (problem.p == nullptr && !by_row) run(points, problem, Pass::kRepulsion, nullptr, chunks);
  Totals sum;
  for (const Chunk& chunk : chunks) {
    sum.z += chunk.totals.z;
    sum.mass += chunk.totals.mass;
    sum.entropy += chunk.totals.entropy;
    sum.log_t += chunk.totals.log_t;
  }
  // Fewer than two points, or a p without mass: what is not defined pulls and pushes nowhere.
  const double slope = (dof + 1.0) / dof;
  double value = 0.0, push = 0.0;
  if (b > 1) {
    value = by_row ? repel_by_row(points, problem, sum.mass, repulsion, chunks) : std::log(sum.z);
    push = by_row ? slope : 2.0 * slope / sum.z;
  }
  if (sum.mass > 0.0) {
    value += sum.entropy / sum.mass - std::log(sum.mass) + exaggeration * problem.exponent * sum.log_t / sum.mass;
  }
  tiles::combine(points, attraction, sum.mass > 0.0 ? slope * exaggeration / sum.mass : 0.0, repulsion, push, grad);
  *loss = tiles::checked(value, points, grad);
}

Problem make_problem(const float* p, tiles::Stored stored, double dof, double exaggeration) {
  return {p,
          stored,
          static_cast<float>(1.0 / dof),
          static_cast<float>((dof + 1.0) / 2.0),
          dof == 1.0,
          dof == 1.0 && exaggeration == 1.0};
}

}  // namespace

void student_t_kl(const float* y, const float* p, std::int64_t b, std::int64_t c, double dof, double exaggeration,
                  bool by_row, float* loss, float* grad) {
  divergence(y, make_problem(p, {}, dof, exaggeration), b, c, dof, exaggeration, by_row, loss, grad);
}

void student_t_kl_csr(const float* y, const std::int64_t* indptr, const std::int64_t* indices, const float* values,
                      std::int64_t b, std::int64_t c, double dof, double exaggeration, bool by_row, float* loss,
                      float* grad) {
  const Problem problem = make_problem(nullptr, {indptr, indices, values}, dof, exaggeration);
  divergence(y, problem, b, c, dof, exaggeration, by_row, loss, grad);
}

}  // namespace fastpdr
