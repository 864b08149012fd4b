// Vectors of the processor's width, in float32. They are those of GCC and Clang, so that the same text serves every
// processor; only products of bfloat16 have instructions of their own.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint16_t Half __attribute__((vector_size(LANES * 2), aligned(2)));
typedef uint32_t Word __attribute__((vector_size(LANES * 4), aligned(4)));
typedef int32_t Int __attribute__((vector_size(LANES * 4), aligned(4)));

struct BFloat {
  uint16_t bits;
};

static inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
static inline Vec load(const BFloat* p) {
#if defined(__AVX2__) && !defined(__AVX512F__)  // GCC makes five instructions of the conversion
  Word wide = Word(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#else
  Word wide = __builtin_convertvector(*reinterpret_cast<const Half*>(p), Word);
#endif
  wide <<= 16;
  Vec out;
  std::memcpy(&out, &wide, sizeof out);
  return out;
}
// `pack`, which is not to be read from memory again each time that it is used.
template <class Pack>
static inline Pack in_register(Pack pack) {
#if defined(__x86_64__)
  asm("" : "+v"(pack));
#elif defined(__aarch64__)
  asm("" : "+w"(pack));
#endif
  return pack;
}
static inline void store(Vec v, float* p) { *reinterpret_cast<Vec*>(p) = v; }
static inline Word rounded(Vec v) {  // to bfloat16, to nearest, ties to even
  Word wide;
  std::memcpy(&wide, &v, sizeof wide);
  return v == v ? (wide + 0x7fff + ((wide >> 16) & 1)) >> 16 : Word{} + 0x7fc0;
}
static inline void store(Vec v, BFloat* p) {
  Half half = __builtin_convertvector(rounded(v), Half);
  std::memcpy(p, &half, sizeof half);
}
static inline float one(float x) { return x; }
static inline float one(BFloat x) {
  uint32_t wide = uint32_t(x.bits) << 16;
  float out;
  std::memcpy(&out, &wide, sizeof out);
  return out;
}
template <class T>
static inline void put(float x, T* p) {
  T lanes[LANES];
  store(Vec{} + x, lanes);
  *p = lanes[0];
}

// Lanes of a and b by number, those of b from LANES on.
template <int... I>
static inline Vec chosen(Vec a, Vec b, std::integer_sequence<int, I...>, auto number) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, number(I)...);
#else
  return __builtin_shuffle(a, b, Int{number(I)...});
#endif
}

// Lane i becomes the sum of all lanes of v[i]. Half by half: an addition serves two vectors.
template <int HALF = LANES / 2>
static inline __attribute__((always_inline)) Vec sums_of(Vec* v) {
  constexpr auto lanes = std::make_integer_sequence<int, LANES>();
  for (int j = 0; j < HALF; ++j)
    v[j] = chosen(v[j], v[j + HALF], lanes, [](int i) constexpr { return i & HALF ? LANES + i : i; }) +
           chosen(v[j], v[j + HALF], lanes, [](int i) constexpr { return i & HALF ? LANES + i - HALF : i + HALF; });
  if constexpr (HALF > 1) return sums_of<HALF / 2>(v);
  return v[0];
}

template <int HALF = LANES / 2>
static inline float most(Vec v) {
  Vec other = chosen(v, v, std::make_integer_sequence<int, LANES>(), [](int i) constexpr { return i ^ HALF; });
  v = other > v ? other : v;
  if constexpr (HALF > 1) return most<HALF / 2>(v);
  return v[0];
}

template <int HALF = LANES / 2>
static inline float sum(Vec v) {
  v += chosen(v, v, std::make_integer_sequence<int, LANES>(), [](int i) constexpr { return i ^ HALF; });
  if constexpr (HALF > 1) return sum<HALF / 2>(v);
  return v[0];
}

// exp to about one part in 10^7 (Cephes' polynomial); 0 where it would be below the smallest normal number.
static inline Vec exponential(Vec x) {
  Vec zero = {};
  Vec low = zero - 87.0f, high = zero + 88.0f;
  Vec y = x > low ? x : low;
  y = y < high ? y : high;
  Vec turns = y * 1.44269504f;
  Int whole = __builtin_convertvector(turns + (turns > zero ? zero + 0.5f : zero - 0.5f), Int);
  Vec n = __builtin_convertvector(whole, Vec);
  Vec r = y - n * 0.693359375f + n * 2.12194440e-4f;
  Vec p = ((((1.9875691500e-4f * r + 1.3981999507e-3f) * r + 8.3334519073e-3f) * r + 4.1665795894e-2f) * r +
           1.6666665459e-1f) * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  Int power = (whole + 127) << 23;
  Vec scale;
  std::memcpy(&scale, &power, sizeof scale);
  return x > low ? p * scale : zero;
}

// How rows of a dtype are multiplied: STEP elements at a time, one factor in the dtype X, both in registers as a Pack.
template <class T>
struct Product {
  using X = float;
  using Pack = Vec;
  static constexpr int STEP = LANES;
  static X of(T x) { return one(x); }
  template <class Y>
  static Pack pack(const Y* p) { return load(p); }
  static Vec add(Vec sums, Pack x, Pack y) { return sums + x * y; }
};
#if defined(__AVX512BF16__)
template <>
struct Product<BFloat> {
  using X = BFloat;
  using Pack = __m512bh;
  static constexpr int STEP = 2 * LANES;
  static X of(BFloat x) { return x; }
  static Pack pack(const BFloat* p) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(p)); }
  static Vec add(Vec sums, Pack x, Pack y) { return Vec(_mm512_dpbf16_ps(__m512(sums), x, y)); }
};
#endif
template <class T>
using Factor = typename Product<T>::X;

// `count` elements of x as factors, in `kept` if they have to be made.
template <class T>
static const Factor<T>* factors(const T* x, int64_t count, std::vector<Factor<T>>& kept) {
  if constexpr (std::is_same_v<T, Factor<T>>) return x;
  kept.resize(count);
  std::transform(x, x + count, kept.begin(), Product<T>::of);
  return kept.data();
}
