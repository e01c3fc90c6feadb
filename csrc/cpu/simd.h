// Vectors of W floats, and one portable way to compile a kernel for several instruction sets.
//
// A kernel body is a template on the vector width W, built from the GNU vector extension (gcc, clang).
// FASTPDR_MULTIVERSION instantiates it for AVX-512 (W = 16), AVX2 (W = 8) and the baseline (W = 4) in one
// translation unit and picks one when the library is loaded, so the build needs no -march flag.
// Plain loops with target_clones were the alternative: they cannot change the width a data layout is
// padded to, and they leave scalar tails that cost as much as the vectors on rows of 90 to 500 entries.
//
// Precision: exp2 and log below err by at most 2e-7 and 4e-7 relative to max(1, |result|).
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#define FASTPDR_INLINE __attribute__((always_inline)) inline
#if defined(__x86_64__)
#define FASTPDR_X86_LEVELS
#endif

namespace fastpdr::simd {

template <int W>
struct Vector {
  typedef float Floats __attribute__((vector_size(W * sizeof(float))));
  typedef std::int32_t Ints __attribute__((vector_size(W * sizeof(float))));
};
template <int W>
using Floats = typename Vector<W>::Floats;
template <int W>
using Ints = typename Vector<W>::Ints;

template <int W>
FASTPDR_INLINE Floats<W> load(const float* source) {
  Floats<W> value;
  std::memcpy(&value, source, sizeof value);
  return value;
}

template <int W>
FASTPDR_INLINE void store(float* target, Floats<W> value) {
  std::memcpy(target, &value, sizeof value);
}

template <int W>
FASTPDR_INLINE Floats<W> splat(float value) {
  return Floats<W>{} + value;
}

template <int W>
FASTPDR_INLINE Floats<W> minimum(Floats<W> a, Floats<W> b) {
  return a < b ? a : b;
}

template <int W>
FASTPDR_INLINE Floats<W> maximum(Floats<W> a, Floats<W> b) {
  return a > b ? a : b;
}

template <int W>
FASTPDR_INLINE Floats<W> square_root(Floats<W> value) {
  Floats<W> root;
  for (int lane = 0; lane < W; ++lane) root[lane] = __builtin_sqrtf(value[lane]);
  return root;
}

template <int W>
FASTPDR_INLINE bool any(Ints<W> bits) {
  if constexpr (W == 4) {
    std::uint64_t words[2];
    std::memcpy(words, &bits, sizeof words);
    return (words[0] | words[1]) != 0;
  } else {
    Ints<W / 2> low, high;
    std::memcpy(&low, &bits, sizeof low);
    std::memcpy(&high, reinterpret_cast<const char*>(&bits) + sizeof low, sizeof high);
    return any<W / 2>(low | high);
  }
}

// Folds the vector in halves, so that the order of the additions depends on W alone.
template <int W>
FASTPDR_INLINE float sum(Floats<W> value) {
  if constexpr (W == 1) {
    return value[0];
  } else if constexpr (W == 2) {
    return value[0] + value[1];
  } else {
    Floats<W / 2> low, high;
    std::memcpy(&low, &value, sizeof low);
    std::memcpy(&high, reinterpret_cast<const char*>(&value) + sizeof low, sizeof high);
    return sum<W / 2>(low + high);
  }
}

// Lane l of the result is lane l of `low` where l & Bit is 0, else lane l - Bit of `high` (exchange_low), and lane
// l + Bit of `low`, else lane l of `high` (exchange_high).
template <int W, int Bit, int... Lane>
FASTPDR_INLINE Floats<W> exchange_low(Floats<W> low, Floats<W> high, std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(low, high, ((Lane & Bit) ? W + Lane - Bit : Lane)...);
}
template <int W, int Bit, int... Lane>
FASTPDR_INLINE Floats<W> exchange_high(Floats<W> low, Floats<W> high, std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(low, high, ((Lane & Bit) ? W + Lane : Lane + Bit)...);
}

// Transposes a W x W tile by exchanging blocks of half its size, then of a quarter, and so on.
template <int W, int Bit = W / 2>
FASTPDR_INLINE void transpose(Floats<W> (&tile)[W]) {
  constexpr auto lanes = std::make_integer_sequence<int, W>{};
  for (int i = 0; i < W; ++i) {
    if (i & Bit) continue;
    const Floats<W> low = tile[i], high = tile[i + Bit];
    tile[i] = exchange_low<W, Bit>(low, high, lanes);
    tile[i + Bit] = exchange_high<W, Bit>(low, high, lanes);
  }
  if constexpr (Bit > 1) transpose<W, Bit / 2>(tile);
}

// 2^x for |x| <= 126: x = n + f by the magic-number rounding (which -ffast-math would break), then the polynomial of
// degree 5 that is 1 at f = 0 and minimax in the relative error there (1e-7), in pairs so that the chain stays short.
template <int W>
FASTPDR_INLINE Floats<W> exp2_bounded(Floats<W> x) {
  const Floats<W> shifted = x + 12582912.0f;  // 1.5 * 2^23
  const Floats<W> f = x - (shifted - 12582912.0f);
  const Floats<W> square = f * f;
  const Floats<W> high = f * 1.326472720e-3f + 9.671512640e-3f;
  const Floats<W> middle = f * 5.550733743e-2f + 2.402224209e-1f;
  const Floats<W> series = (high * square + middle) * square + (f * 6.931469776e-1f + 1.0f);
  return (Floats<W>)((Ints<W>)series + ((Ints<W>)shifted << 23));
}

// A positive normal number as 2^exponent (1 + m), 1 + m in [sqrt(1/2), sqrt 2), and the natural logarithm of 1 + m:
// the polynomial of degree 7 without constant that is minimax to it (3e-7), in pairs.
template <int W>
struct Logarithm {
  Floats<W> exponent, mantissa;

  FASTPDR_INLINE explicit Logarithm(Floats<W> x) {
    const Ints<W> bits = (Ints<W>)x - 0x3f3504f3;  // 0x3f3504f3 = sqrt(1/2)
    exponent = __builtin_convertvector(bits >> 23, Floats<W>);
    const Floats<W> m = (Floats<W>)((bits & 0x007fffff) + 0x3f3504f3) - 1.0f;
    const Floats<W> square = m * m;
    const Floats<W> low = m * 3.331554470e-1f - 5.000148589e-1f;
    const Floats<W> middle = m * 2.049256826e-1f - 2.489776568e-1f;
    const Floats<W> high = m * 1.198640899e-1f - 1.876171946e-1f;
    mantissa = ((high * square + middle) * square + low) * square + m;
  }
};

// Natural logarithm of positive normal numbers.
template <int W>
FASTPDR_INLINE Floats<W> log_positive(Floats<W> x) {
  const Logarithm<W> log(x);
  return log.exponent * 0.693147180559945f + log.mantissa;
}

// The instruction sets a kernel is compiled for, and the best of them that this processor has. FASTPDR_SIMD=baseline
// or x86-64-v3 in the environment takes a lesser one: the tests run all that a machine can.
enum class Level { kBaseline, kV3, kV4 };

inline Level level() {
#if defined(FASTPDR_X86_LEVELS)
  const auto detect = [] {
    const char* const wanted = std::getenv("FASTPDR_SIMD");
    const bool baseline = wanted != nullptr && std::strcmp(wanted, "baseline") == 0;
    const bool at_most_v3 = wanted != nullptr && std::strcmp(wanted, "x86-64-v3") == 0;
    const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    const bool v4 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl");
    if (v4 && !at_most_v3 && !baseline) return Level::kV4;
    return v3 && !baseline ? Level::kV3 : Level::kBaseline;
  };
  static const Level best = detect();
  return best;
#else
  return Level::kBaseline;
#endif
}

inline int width(Level level) {
  return level == Level::kV4 ? 16 : level == Level::kV3 ? 8 : 4;
}

inline const char* level_name(Level level) {
  return level == Level::kV4 ? "x86-64-v4" : level == Level::kV3 ? "x86-64-v3" : "baseline";
}

inline const char* compiled_levels() {
#if defined(FASTPDR_X86_LEVELS)
  return "baseline,x86-64-v3,x86-64-v4";
#else
  return "baseline";
#endif
}

}  // namespace fastpdr::simd

// FASTPDR_MULTIVERSION(name, (int a, float* b), (a, b)) defines void name(int a, float* b) from the
// always-inline template name_body<W>(a, b).
#if defined(FASTPDR_X86_LEVELS)
#define FASTPDR_MULTIVERSION(name, parameters, arguments)               \
  __attribute__((target("arch=x86-64-v4"))) void name##_v4 parameters { \
    name##_body<16> arguments;                                          \
  }                                                                     \
  __attribute__((target("arch=x86-64-v3"))) void name##_v3 parameters { \
    name##_body<8> arguments;                                           \
  }                                                                     \
  void name##_baseline parameters {                                     \
    name##_body<4> arguments;                                           \
  }                                                                     \
  void name parameters {                                                \
    switch (::fastpdr::simd::level()) {                                 \
      case ::fastpdr::simd::Level::kV4: return name##_v4 arguments;     \
      case ::fastpdr::simd::Level::kV3: return name##_v3 arguments;     \
      default: return name##_baseline arguments;                        \
    }                                                                   \
  }
#else
#define FASTPDR_MULTIVERSION(name, parameters, arguments) \
  void name parameters {                                  \
    name##_body<4> arguments;                             \
  }
#endif
