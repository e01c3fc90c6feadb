// The pairs of a map's points: all of them in tiles, or those that a sparse matrix stores; one term of a loss each.
//
// Unordered pairs are cut into tiles of W columns, W the vector width, so that distances and forces serve both orders.
// Four rows are taken together: their sums stay in registers along a block of columns, whose own sums stay in the L1
// cache. Rows are dealt out in chunks whose number depends on b alone; each has its own sums, added in fixed order, so
// that the result does not depend on the number of threads. Padding costs no mask: it lies too far away to count.
//
// A term computes the rows of a tile together, so that they can share a division or a logarithm. It adds the values of
// the pairs to a sum of its own kind, and gives every pair its pull: the force on row i is pull (y_i - y_j), that on
// row j the opposite. With kSums the pull itself is added to both rows.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "simd.h"

namespace fastpdr::tiles {

using simd::Floats;
using simd::Ints;

constexpr std::int64_t kAlignment = 16;  // rows are padded to the widest tile
constexpr std::int64_t kMaxChunks = 32;
constexpr int kRows = 4;          // taken together
constexpr int kColumns = 1024;    // whose coordinates and sums stay in the L1 cache
constexpr int kRun = 16;          // tiles summed in float32 before widening to float64
constexpr float kFar = 1e12f;     // where the padding lies
constexpr int kMostColumns = 64;  // of a map

// The number of coordinates, known to the compiler where C > 0.
template <int C>
constexpr int kCapacity = C > 0 ? C : kMostColumns;

// A map, cut into chunks of rows.
struct Points {
  const float* y;            // [b, c]
  const float* coordinates;  // [c, padded], y transposed
  std::int64_t b, c, padded;
  std::int64_t chunks;

  template <int C>
  FASTPDR_INLINE int columns() const {
    return C > 0 ? C : static_cast<int>(c);
  }

  // The first row of a chunk: the tiles right of the diagonal are shared evenly.
  std::int64_t begin(std::int64_t chunk) const {
    const double rest = std::sqrt(1.0 - static_cast<double>(chunk) / chunks);
    return static_cast<std::int64_t>(std::lround(padded / kAlignment * (1.0 - rest))) * kAlignment;
  }
};

// A sparse matrix over the points.
struct Stored {
  const std::int64_t* indptr;   // [b + 1]
  const std::int64_t* indices;  // [nnz]
  const float* values;          // [nnz]
};

// Owns the transposed map.
class Map {
 public:
  Map(const float* y, std::int64_t b, std::int64_t c) {
    const std::int64_t padded = (b + kAlignment - 1) / kAlignment * kAlignment;
    coordinates_.reset(new float[c * padded]);
    for (std::int64_t a = 0; a < c; ++a) {
      float* line = coordinates_.get() + a * padded;
      for (std::int64_t i = 0; i < b; ++i) line[i] = y[i * c + a];
      std::fill(line + b, line + padded, kFar);
    }
    points_ = Points{y, coordinates_.get(), b, c, padded, count_chunks(b)};
  }
  const Points& points() const { return points_; }

 private:
  // A power of two, so that few threads share the chunks evenly, of at least 64 rows on average.
  static std::int64_t count_chunks(std::int64_t b) {
    std::int64_t chunks = 1;
    while (chunks < kMaxChunks && 2 * chunks * 64 <= b) chunks *= 2;
    return chunks;
  }
  std::unique_ptr<float[]> coordinates_;
  Points points_;
};

// What the chunks write: `planes` numbers a point and chunk, zeroed by the chunk before it adds to them.
class Sums {
 public:
  Sums(const Points& points, std::int64_t planes)
      : stride_(planes * points.padded), values_(new float[points.chunks * stride_]) {}
  float* of(std::int64_t chunk) const {  // [planes, padded]
    return values_.get() + chunk * stride_;
  }
  float* cleared(std::int64_t chunk) const {
    std::fill(of(chunk), of(chunk) + stride_, 0.0f);
    return of(chunk);
  }

 private:
  std::int64_t stride_;
  std::unique_ptr<float[]> values_;
};

// What a term's values are added to, in lanes.
template <int W>
struct PlainSum {
  Floats<W> lanes = {};
  FASTPDR_INLINE void add(const Floats<W> (&value)[kRows]) { lanes += (value[0] + value[1]) + (value[2] + value[3]); }
  FASTPDR_INLINE double total() const { return simd::sum<W>(lanes); }
};

// Adds the pairs of rows [i, i + kRows) with columns [j, j + W), or the ordered pairs of rows within the tile at j.
template <int W, int C, bool kDiagonal, class Term, class Values>
FASTPDR_INLINE void add_tile(const Points& points, const Term& term, std::int64_t i, std::int64_t j, Values& values,
                             Floats<W> (&rows)[kRows][kCapacity<C>], float* sums) {
  const int c = points.columns<C>(), planes = Term::kSums ? 1 : c;
  const std::int64_t padded = points.padded;
  const float* const coordinates = points.coordinates;
  Floats<W> difference[kRows][kCapacity<C>], sqdist[kRows], pull[kRows];
  for (int r = 0; r < kRows; ++r) sqdist[r] = Floats<W>{};
  for (int a = 0; a < c; ++a) {
    const Floats<W> column = simd::load<W>(coordinates + a * padded + j);
    for (int r = 0; r < kRows; ++r) {
      difference[r][a] = coordinates[a * padded + i + r] - column;
      sqdist[r] += difference[r][a] * difference[r][a];
    }
  }
  if constexpr (kDiagonal) {  // a point and itself, and what is no point, are as far apart as padding
    for (int r = 0; r < kRows; ++r) {
      sqdist[r][i - j + r] = kFar * kFar;
      if (i + r >= points.b) sqdist[r] = simd::splat<W>(kFar * kFar);
    }
  }
  term.template evaluate<W>(sqdist, i, j, values, pull);
  for (int a = 0; a < planes; ++a) {
    Floats<W> below = {};
    for (int r = 0; r < kRows; ++r) {
      const Floats<W> part = Term::kSums ? pull[r] : pull[r] * difference[r][a];
      rows[r][a] += part;
      below += Term::kSums ? part : -part;
    }
    if constexpr (!kDiagonal) {
      float* const target = sums + a * padded + j;
      simd::store<W>(target, simd::load<W>(target) + below);
    }
  }
}

// Adds the unordered pairs of the rows of a chunk with all later rows to sums [planes, padded]; returns the sum of the
// values over ordered pairs.
template <int W, int C, class Term>
FASTPDR_INLINE double add_all_pairs(const Points& points, const Term& term, std::int64_t chunk, float* sums) {
  using Values = typename Term::template Values<W>;
  const int planes = Term::kSums ? 1 : points.columns<C>();
  const std::int64_t first = points.begin(chunk), last = std::min(points.begin(chunk + 1), points.b);
  double value = 0.0;
  for (std::int64_t block = first; block < points.b; block += kColumns) {
    const std::int64_t block_end = std::min(block + kColumns, points.b);
    for (std::int64_t i = first; i < std::min(last, block_end); i += kRows) {
      const std::int64_t tile = i / W * W;
      Floats<W> rows[kRows][kCapacity<C>];
      for (int r = 0; r < kRows; ++r) {
        for (int a = 0; a < planes; ++a) rows[r][a] = Floats<W>{};
      }
      if (tile >= block) {
        Values run;
        add_tile<W, C, true>(points, term, i, tile, run, rows, sums);
        value += run.total();
      }
      for (std::int64_t begin = std::max(block, tile + W); begin < block_end; begin += kRun * W) {
        Values run;
        for (std::int64_t j = begin; j < std::min(begin + kRun * W, block_end); j += W) {
          add_tile<W, C, false>(points, term, i, j, run, rows, sums);
        }
        value += 2.0 * run.total();
      }
      for (int r = 0; r < kRows; ++r) {
        for (int a = 0; a < planes; ++a) sums[a * points.padded + i + r] += simd::sum<W>(rows[r][a]);
      }
    }
  }
  return value;
}

// Adds the stored pairs of the rows of a chunk, W at a time, to sums [c, padded]. The term is given the row, the stored
// values (0 on the diagonal and beyond the row's end) and the squared distances, and returns the pull.
template <int W, int C, class Term>
FASTPDR_INLINE void add_stored_pairs(const Points& points, const Stored& stored, Term& term, std::int64_t chunk,
                                     float* sums) {
  const int c = points.columns<C>();
  const std::int64_t padded = points.padded;
  float gathered[W], moved[W];
  Floats<W> difference[kCapacity<C>];
  for (std::int64_t i = points.begin(chunk); i < std::min(points.begin(chunk + 1), points.b); ++i) {
    for (std::int64_t first = stored.indptr[i]; first < stored.indptr[i + 1]; first += W) {
      const int count = static_cast<int>(std::min<std::int64_t>(W, stored.indptr[i + 1] - first));
      std::int64_t columns[W];
      for (int lane = 0; lane < W; ++lane) {
        columns[lane] = lane < count ? stored.indices[first + lane] : i;
        gathered[lane] = columns[lane] == i ? 0.0f : stored.values[first + lane];
      }
      const Floats<W> p = simd::load<W>(gathered);
      Floats<W> sqdist = {};
      for (int a = 0; a < c; ++a) {
        for (int lane = 0; lane < W; ++lane) gathered[lane] = points.coordinates[a * padded + columns[lane]];
        difference[a] = points.y[i * c + a] - simd::load<W>(gathered);
        sqdist += difference[a] * difference[a];
      }
      const Floats<W> pull = term.template evaluate<W>(i, p, sqdist);
      for (int a = 0; a < c; ++a) {
        const Floats<W> force = pull * difference[a];
        sums[a * padded + i] += simd::sum<W>(force);
        simd::store<W>(moved, force);
        for (int lane = 0; lane < count; ++lane) sums[a * padded + columns[lane]] -= moved[lane];
      }
    }
  }
}

// grad = attraction_factor * (the chunks' attraction) - repulsion_factor * (their repulsion)
inline void combine(const Points& points, const Sums& attraction, double attraction_factor, const Sums& repulsion,
                    double repulsion_factor, float* grad) {
  constexpr std::int64_t kPiece = 256;
  const std::int64_t pieces = (points.b + kPiece - 1) / kPiece;
#pragma omp parallel for schedule(static) if (points.b > 2048)
  for (std::int64_t piece = 0; piece < pieces; ++piece) {
    const std::int64_t begin = piece * kPiece, count = std::min(kPiece, points.b - begin);
    for (std::int64_t a = 0; a < points.c; ++a) {
      double pulled[kPiece] = {}, pushed[kPiece] = {};
      for (std::int64_t chunk = 0; chunk < points.chunks; ++chunk) {
        const float* const pull = attraction.of(chunk) + a * points.padded + begin;
        const float* const push = repulsion.of(chunk) + a * points.padded + begin;
        for (std::int64_t i = 0; i < count; ++i) pulled[i] += pull[i];
        for (std::int64_t i = 0; i < count; ++i) pushed[i] += push[i];
      }
      for (std::int64_t i = 0; i < count; ++i) {
        grad[(begin + i) * points.c + a] =
            static_cast<float>(attraction_factor * pulled[i] - repulsion_factor * pushed[i]);
      }
    }
  }
}

// The loss beside its gradient [b, c]: NaN where that is not finite, since comparisons within the terms may lose a NaN.
inline float checked(double loss, const Points& points, const float* grad) {
  bool finite = true;
  for (std::int64_t i = 0; i < points.b * points.c; ++i) finite &= std::abs(grad[i]) <= FLT_MAX;
  return finite ? static_cast<float>(loss) : NAN;
}

}  // namespace fastpdr::tiles
