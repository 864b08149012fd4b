// Linear maps and attention of a few rows, as a decode step has them: each weight, key and value is read once, in the
// layout that it is stored in, and everything is summed in float32. Vectors are those of GCC and Clang, so that the
// same text serves every processor; only products of bfloat16 have instructions of their own.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "tiles.h"

using torch::stable::Tensor;

#if defined(__AVX512F__)
constexpr int LANES = 16, MANY = 8;  // 8 x 3 sums fit into 32 registers
#elif defined(__AVX__)
constexpr int LANES = 8, MANY = 4;
#else
constexpr int LANES = 4, MANY = 8;
#endif
constexpr int TOGETHER = 3;       // rows of a matrix that are read at once
constexpr int64_t KEYS = 128;     // keys between two corrections of the running maximum
constexpr int64_t AHEAD = 2048;   // bytes between what is read and what is asked for
constexpr int64_t GROUP = 8;       // values that are asked for together
constexpr int64_t GRAIN = 1 << 14;

typedef float Vec __attribute__((vector_size(LANES * 4), aligned(4)));
typedef uint16_t Half __attribute__((vector_size(LANES * 2), aligned(2)));
typedef uint32_t Word __attribute__((vector_size(LANES * 4), aligned(4)));
typedef int32_t Int __attribute__((vector_size(LANES * 4), aligned(4)));

struct BFloat {
  uint16_t bits;
};

static inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
static inline Vec load(const BFloat* p) {
  Word wide = __builtin_convertvector(*reinterpret_cast<const Half*>(p), Word) << 16;
  Vec out;
  std::memcpy(&out, &wide, sizeof out);
  return out;
}
static inline void store(Vec v, float* p) { std::memcpy(p, &v, sizeof v); }
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

template <class T>
static std::vector<Factor<T>> factors(const T* x, int64_t count) {
  std::vector<Factor<T>> out(count);
  std::transform(x, x + count, out.begin(), Product<T>::of);
  return out;
}

// ---- linear: y (M, N) = x (M, K) weight (N, K)^T + bias (N,) ----

template <int M, int R, class T>
static inline __attribute__((always_inline)) void products(
    const Factor<T>* x, const T* weight, float* y, int64_t K, int64_t N, bool fetch) {
  using P = Product<T>;
  Vec sums[M][R] = {};
  int64_t k = 0;
  for (; k + P::STEP <= K; k += P::STEP) {
    typename P::Pack w[R];
    for (int r = 0; r < R; ++r) w[r] = P::pack(weight + r * K + k);
    if (fetch)
      for (int r = 0; r < R; ++r) __builtin_prefetch(weight + (R + r) * K + k, 0, 2);  // the first cache is for x
    for (int m = 0; m < M; ++m) {
      auto v = P::pack(x + m * K + k);
      for (int r = 0; r < R; ++r) sums[m][r] = P::add(sums[m][r], v, w[r]);
    }
  }
  for (int m = 0; m < M; ++m)
    for (int r = 0; r < R; ++r) {
      float total = sum(sums[m][r]);
      for (int64_t rest = k; rest < K; ++rest) total += one(x[m * K + rest]) * one(weight[r * K + rest]);
      y[m * N + r] = total;
    }
}

template <int R, class T>
static void some_outputs(const Factor<T>* x, const T* weight, float* y, int64_t M, int64_t K, int64_t N, bool fetch) {
  int64_t m = 0;
  auto blocks = [&](auto size) {
    constexpr int rows = decltype(size)::value;
    for (; M - m >= rows; m += rows) products<rows, R>(x + m * K, weight, y + m * N, K, N, fetch && m == 0);
  };
  blocks(std::integral_constant<int, MANY>{});
  blocks(std::integral_constant<int, 4>{});
  blocks(std::integral_constant<int, 2>{});
  blocks(std::integral_constant<int, 1>{});
}

// y (M, N) for outputs `begin` to `end`.
template <class T>
static void outputs(const Factor<T>* x, const T* weight, float* y, int64_t M, int64_t K, int64_t N, int64_t begin,
                    int64_t end) {
  int64_t n = begin;
  for (; n + TOGETHER <= end; n += TOGETHER)
    some_outputs<TOGETHER>(x, weight + n * K, y + n, M, K, N, n + 2 * TOGETHER <= N);
  for (; n < end; ++n) some_outputs<1>(x, weight + n * K, y + n, M, K, N, false);
}

// y = sums + bias, from `begin` to `end`.
template <class T>
static void put_all(const float* sums, const T* bias, T* y, int64_t begin, int64_t end) {
  int64_t n = begin;
  for (; n + LANES <= end; n += LANES) store(bias ? load(sums + n) + load(bias + n) : load(sums + n), y + n);
  for (; n < end; ++n) put(sums[n] + (bias ? one(bias[n]) : 0.0f), y + n);
}

template <class T>
static void linear(const T* x, const T* weight, const T* bias, T* y, int64_t M, int64_t K, int64_t N) {
  auto bits = [](const T* p) { return reinterpret_cast<const uint16_t*>(p); };
  bool tiled = std::is_same_v<T, BFloat> && tiles::serve(M, K);
  int64_t step = tiled ? tiles::OUTPUTS : TOGETHER, steps = (N + step - 1) / step;
  std::vector<Factor<T>> rows = factors(x, tiled && N % step == 0 ? 0 : M * K);
  std::vector<uint16_t> pairs = tiled ? tiles::packed(bits(x), M, K) : std::vector<uint16_t>();
  std::vector<float> sums(M * N);
  torch::stable::parallel_for(0, steps, std::max<int64_t>(1, GRAIN / (K * step)), [&](int64_t first, int64_t last) {
    int64_t begin = first * step, end = std::min(N, last * step), rest = tiled ? end - (end - begin) % step : begin;
    if (tiled) tiles::linear(pairs.data(), bits(weight), sums.data(), M, K, N, begin, rest);
    outputs(rows.data(), weight, sums.data(), M, K, N, rest, end);
    for (int64_t m = 0; m < M; ++m) put_all(sums.data() + m * N, bias, y + m * N, begin, end);
  });
}

// ---- attention of one query a sequence ----

struct Sight {  // which positions a query sees
  int64_t query, window, sinks;
  bool sees_self;
  bool of(int64_t p, int64_t padding) const {
    if (p < padding || p < 0 || (sees_self ? p > query : p >= query)) return false;
    return window < 0 || p > query - window || p < sinks;
  }
};

constexpr float NONE = -std::numeric_limits<float>::infinity();

struct Partial {  // a softmax over some of the keys: largest score, sum of weights, weighted sum of values
  float most = NONE, total = 0;
  std::vector<float> values;
};

template <class T>
struct Rows {  // keys or values of one head
  const T* data;
  int64_t stride, size;
  const T* at(int64_t t) const { return data + t * stride; }
  Rows from(int64_t t) const { return {at(t), stride, size}; }
};

// The rows to ask for while those from `t` on are read: of the first `count` of `here`, and then of `next`.
template <class T>
static inline Rows<T> coming(int64_t t, const Rows<T>& here, int64_t count, const Rows<T>& next) {
  t += std::max<int64_t>(1, AHEAD / (here.size * int64_t(sizeof(T))));
  return t < count ? here.from(t) : next.from(t - count);
}
template <class T>
static inline void fetch(const T* row, int64_t size) {
  for (int64_t i = 0; i < size; i += 64 / int64_t(sizeof(T))) __builtin_prefetch(row + i);
}

// Scores (Q, KEYS) of `count` keys, for Q queries at once.
template <int Q, class T>
static inline void dots(float (*scores)[KEYS], const Factor<T>* q, int64_t E, const Rows<T>& keys, int64_t count,
                        const Rows<T>& next) {
  using P = Product<T>;
  constexpr int AT_ONCE = LANES / Q;
  int64_t H = keys.size, whole = H / P::STEP * P::STEP;
  auto key = [&](int64_t t) { return keys.at(std::min(t, count - 1)); };
  for (int64_t from = 0; from < count; from += AT_ONCE) {
    Rows<T> soon = coming(from, keys, count, next);
    Vec sums[Q * AT_ONCE];
#pragma GCC unroll 16
    for (int t = 0; t < AT_ONCE; ++t) {
      fetch(soon.at(t), H);
      Vec products[Q] = {};
      for (int64_t h = 0; h < whole; h += P::STEP) {
        auto pack = P::pack(key(from + t) + h);
        for (int i = 0; i < Q; ++i) products[i] = P::add(products[i], P::pack(q + i * E + h), pack);
      }
      for (int i = 0; i < Q; ++i) sums[i * AT_ONCE + t] = products[i];
    }
    float totals[LANES];
    Vec all = sums_of(sums);
    std::memcpy(totals, &all, sizeof all);
    for (int i = 0; i < Q; ++i) {
      std::copy_n(totals + i * AT_ONCE, AT_ONCE, scores[i] + from);
      for (int t = 0; t < AT_ONCE; ++t)
        for (int64_t h = whole; h < H; ++h) scores[i][from + t] += one(q[i * E + h]) * one(key(from + t)[h]);
    }
  }
}

// Sums of values are kept in the order in which their elements come out of registers: of bfloat16, first those in the
// lower halves of words, then those in the upper ones.
template <class T>
struct Taken {
  static constexpr int SIZE = LANES, VECS = 1;
  static void take(const T* p, Vec* out) { out[0] = load(p); }
  static void give(const Vec* sums, T* p) { store(sums[0], p); }
};
template <>
struct Taken<BFloat> {
  static constexpr int SIZE = 2 * LANES, VECS = 2;
  static void take(const BFloat* p, Vec* out) {
    Word words, low, high;
    std::memcpy(&words, p, sizeof words);
    low = words << 16, high = words & 0xffff0000u;
    std::memcpy(out, &low, sizeof low), std::memcpy(out + 1, &high, sizeof high);
  }
  static void give(const Vec* sums, BFloat* p) {
    Word words = rounded(sums[0]) | rounded(sums[1]) << 16;
    std::memcpy(p, &words, sizeof words);
  }
};

// out (Q, D) += weights (Q, KEYS) values (count, D).
template <int Q, class T>
static inline void add_values(float* const* out, const float (*weights)[KEYS], const Rows<T>& values, int64_t count,
                              const Rows<T>& next) {
  constexpr int SIZE = Taken<T>::SIZE, VECS = Taken<T>::VECS, WIDE = LANES == 16 ? 4 / VECS : 2 / VECS;
  int64_t D = values.size;
  int64_t d = 0;
  auto step = [&](auto width) {
    constexpr int W = decltype(width)::value;
    for (; d + W * SIZE <= D; d += W * SIZE) {
      Vec sums[Q][W * VECS];
      for (int i = 0; i < Q; ++i)
        for (int j = 0; j < W * VECS; ++j) sums[i][j] = load(out[i] + d + j * LANES);
      for (int64_t from = 0; from < count; from += GROUP) {
        Rows<T> soon = coming(from, values, count, next);
        for (int64_t t = from; t < std::min(count, from + GROUP); ++t) {
          if (d == 0) fetch(soon.at(t - from), D);
          Vec taken[W * VECS];
          for (int j = 0; j < W; ++j) Taken<T>::take(values.at(t) + d + j * SIZE, taken + j * VECS);
          for (int i = 0; i < Q; ++i)
            for (int j = 0; j < W * VECS; ++j) sums[i][j] += weights[i][t] * taken[j];
        }
      }
      for (int i = 0; i < Q; ++i)
        for (int j = 0; j < W * VECS; ++j) std::memcpy(out[i] + d + j * LANES, &sums[i][j], sizeof(Vec));
    }
  };
  step(std::integral_constant<int, WIDE>{});
  step(std::integral_constant<int, 1>{});
  for (; d < D; ++d)
    for (int i = 0; i < Q; ++i)
      for (int64_t t = 0; t < count; ++t) out[i][d] += weights[i][t] * one(values.at(t)[d]);
}

// out (D,) = sums of values, in the order of elements again.
template <class T>
static inline void give_values(const float* sums, T* out, int64_t D) {
  constexpr int SIZE = Taken<T>::SIZE, VECS = Taken<T>::VECS;
  int64_t d = 0;
  for (; d + SIZE <= D; d += SIZE) {
    Vec some[VECS];
    for (int j = 0; j < VECS; ++j) some[j] = load(sums + d + j * LANES);
    Taken<T>::give(some, out + d);
  }
  for (; d < D; ++d) put(sums[d], out + d);
}

struct Scoring {
  float scale, softcap;
  // Of KEYS products, in place; tanh(y) = 1 - 2 / (exp(2 y) + 1).
  void apply(float* scores) const {
    for (int64_t t = 0; t < KEYS; t += LANES) {
      Vec y = load(scores + t) * scale;
      if (softcap > 0) y /= softcap, y = softcap * (1.0f - 2.0f / (exponential(y + y) + 1.0f));
      std::memcpy(scores + t, &y, sizeof y);
    }
  }
};

template <class T>
struct Head {  // keys and values of one kv head
  Rows<T> keys, values;
  Head from(int64_t t) const {
    return {{keys.at(t), keys.stride, keys.size}, {values.at(t), values.stride, values.size}};
  }
};

// One block of keys for Q queries that share them. `q` is (Q, E): with E = 2 H the second half of a query is for sinks.
template <int Q, class T>
static void attend_block(const Factor<T>* q, int64_t E, const Head<T>& head, int64_t count, const float* hidden,
                         const bool* is_sink, const Scoring& scoring, Partial* parts, const Rows<T>& after) {
  alignas(64) float scores[Q][KEYS] = {};
  int64_t H = head.keys.size;
  dots<Q>(scores, q, E, head.keys, count, head.values);
  if (E > H)
    for (int64_t t = 0; t < count; ++t)
      if (is_sink[t])
        for (int i = 0; i < Q; ++i) {
          scores[i][t] = 0;
          for (int64_t h = 0; h < H; ++h) scores[i][t] += one(q[i * E + H + h]) * one(head.keys.at(t)[h]);
        }
  float* out[Q];
  for (int i = 0; i < Q; ++i) {
    Partial& part = parts[i];
    float most = part.most;
    scoring.apply(scores[i]);
    Vec top = Vec{} + most;
    for (int64_t t = 0; t < KEYS; t += LANES) {
      Vec seen = load(scores[i] + t) + load(hidden + t);
      std::memcpy(scores[i] + t, &seen, sizeof seen);
      top = seen > top ? seen : top;
    }
    for (int lane = 0; lane < LANES; ++lane) most = std::max(most, top[lane]);
    float shrink = std::exp(part.most - most);
    if (shrink != 1)
      for (float& value : part.values) value *= shrink;
    Vec total = {};
    for (int64_t t = 0; t < KEYS; t += LANES) {
      Vec weights = exponential(load(scores[i] + t) - most);
      std::memcpy(scores[i] + t, &weights, sizeof weights);
      total += weights;
    }
    part.total = part.total * shrink + sum(total), part.most = most;
    out[i] = part.values.data();
  }
  add_values<Q>(out, scores, head.values, count, after);
}

// Keys `begin` to `end` of one kv head, for the G queries that read it. `hidden` holds 0 where a key is seen.
template <class T>
static void attend_keys(const Factor<T>* q, int64_t E, int64_t G, const Head<T>& head, int64_t begin, int64_t end,
                        const float* hidden, const bool* is_sink, const Scoring& scoring, Partial* parts,
                        const Rows<T>& after) {
  for (int64_t from = begin; from < end; from += KEYS) {
    int64_t count = std::min(KEYS, end - from);
    if (std::all_of(hidden + from, hidden + from + count, [](float x) { return x == NONE; })) continue;
    alignas(64) float here[KEYS];
    std::fill(std::copy_n(hidden + from, count, here), here + KEYS, NONE);
    auto block = [&](auto queries, int64_t g) {
      attend_block<decltype(queries)::value, T>(q + g * E, E, head.from(from), count, here, is_sink + from, scoring,
                                                parts + g, end - from > KEYS ? head.keys.from(from + KEYS) : after);
    };
    int64_t g = 0;
    for (; g + 4 <= G; g += 4) block(std::integral_constant<int, 4>{}, g);
    for (; g + 2 <= G; g += 2) block(std::integral_constant<int, 2>{}, g);
    for (; g < G; ++g) block(std::integral_constant<int, 1>{}, g);
  }
}

// The values (D,) of one query, of partial softmaxes that stand G apart and of a sink's logit. Overwrites the first part.
template <class T>
static void join(Partial* parts, int64_t splits, int64_t G, float sink, T* out, int64_t D) {
  float most = sink, total = sink == NONE ? 0.0f : 1.0f;
  for (int64_t s = 0; s < splits; ++s) {
    const Partial& part = parts[s * G];
    float larger = std::max(most, part.most);
    if (larger == NONE) continue;
    total = total * std::exp(most - larger) + part.total * std::exp(part.most - larger);
    most = larger;
  }
  std::vector<float>& values = parts->values;
  for (int64_t s = 0; s < splits; ++s) {
    const Partial& part = parts[s * G];
    float share = part.total == 0 ? 0.0f : std::exp(part.most - most) / total;
    for (int64_t d = 0; d < D; ++d) values[d] = s == 0 ? share * values[d] : values[d] + share * part.values[d];
  }
  give_values(values.data(), out, D);
}

template <class T>
static void attend(const Tensor& q, const Tensor& keys, const Tensor& values, const int64_t* positions, int64_t query,
                   int64_t window, int64_t sinks, bool sees_self, const int64_t* pads, Scoring scoring,
                   const T* sink_logits, Tensor& out) {
  int64_t B = q.size(0), N = q.size(1), E = q.size(3), K = keys.size(1), T_ = keys.size(2), H = keys.size(3);
  int64_t D = values.size(3), G = N / K;
  const T* k = static_cast<const T*>(keys.data_ptr());
  const T* v = static_cast<const T*>(values.data_ptr());
  std::vector<Factor<T>> queries = factors(static_cast<const T*>(q.data_ptr()), B * N * E);
  int64_t threads = torch::stable::get_num_threads();
  int64_t splits = std::clamp<int64_t>(B * K >= threads ? 1 : threads / (B * K), 1, std::max<int64_t>(1, T_ / KEYS));
  int64_t size = (T_ + splits - 1) / splits;
  // What a sequence sees is the same in all heads; without padding, in all sequences.
  int64_t sights = pads ? B : 1;
  Sight sight{query, window, sinks, sees_self};
  std::vector<float> hidden(sights * T_);
  std::unique_ptr<bool[]> is_sink(new bool[T_]);
  for (int64_t t = 0; t < T_; ++t) {
    is_sink[t] = positions[t] < sinks;
    for (int64_t b = 0; b < sights; ++b) hidden[b * T_ + t] = sight.of(positions[t], pads ? pads[b] : 0) ? 0.0f : NONE;
  }
  std::vector<Partial> parts(B * K * splits * G);
  for (Partial& part : parts) part.values.assign(D, 0.0f);
  torch::stable::parallel_for(0, B * K * splits, 1, [&](int64_t first, int64_t last) {
    auto begin = [&](int64_t task) { return task % splits * size; };
    auto shared = [&](int64_t task) {
      int64_t b = task / (K * splits), head = task / splits % K;
      return Head<T>{{k + b * keys.stride(0) + head * keys.stride(1), keys.stride(2), H},
                     {v + b * values.stride(0) + head * values.stride(1), values.stride(2), D}};
    };
    for (int64_t task = first; task < last; ++task) {
      int64_t b = task / (K * splits), head = task / splits % K, next = std::min(task + 1, last - 1);
      attend_keys(queries.data() + (b * N + head * G) * E, E, G, shared(task), begin(task),
                  std::min(T_, begin(task) + size), hidden.data() + (pads ? b * T_ : 0), is_sink.get(), scoring,
                  parts.data() + task * G, shared(next).keys.from(begin(next)));
    }
  });
  T* o = static_cast<T*>(out.data_ptr());
  for (int64_t row = 0; row < B * N; ++row) {
    int64_t b = row / N, head = row % N / G, g = row % G;
    join(parts.data() + (b * K + head) * splits * G + g, splits, G, sink_logits ? one(sink_logits[row % N]) : NONE,
         o + row * D, D);
  }
}

// ---- what torch sees ----

template <class Call>
static void by_dtype(const Tensor& like, Call call) {
  switch (like.scalar_type()) {
    case torch::headeronly::ScalarType::Float:
      return call(float{});
    case torch::headeronly::ScalarType::BFloat16:
      return call(BFloat{});
    default:
      STD_TORCH_CHECK(false, "archspec's kernels take float32 and bfloat16");
  }
}

template <class T>
static const T* data_or_null(const std::optional<Tensor>& tensor) {
  return tensor ? static_cast<const T*>(tensor->data_ptr()) : nullptr;
}

Tensor linear_op(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
  int64_t K = weight.size(1), N = weight.size(0), M = x.numel() / K;
  Tensor rows = torch::stable::contiguous(x);
  STD_TORCH_CHECK(weight.is_contiguous() && x.scalar_type() == weight.scalar_type(),
                  "a contiguous weight of x's dtype");
  std::vector<int64_t> sizes;
  for (int64_t i = 0; i + 1 < x.dim(); ++i) sizes.push_back(x.size(i));
  sizes.push_back(N);
  Tensor y = torch::stable::new_empty(rows, sizes);
  by_dtype(rows, [&](auto like) {
    using T = decltype(like);
    linear(static_cast<const T*>(rows.data_ptr()), static_cast<const T*>(weight.data_ptr()), data_or_null<T>(bias),
           static_cast<T*>(y.data_ptr()), M, K, N);
  });
  return y;
}

Tensor attend_op(const Tensor& q, const Tensor& keys, const Tensor& values, const Tensor& k_positions,
                 const Tensor& q_position, int64_t window, int64_t sinks, bool sees_self,
                 const std::optional<Tensor>& pads, double scale, double softcap,
                 const std::optional<Tensor>& sink_logits) {
  STD_TORCH_CHECK(keys.stride(3) == 1 && values.stride(3) == 1, "keys and values lie together");
  Tensor rows = torch::stable::contiguous(q);
  Tensor out = torch::stable::new_empty(rows, {q.size(0), q.size(1), 1, values.size(3)});
  by_dtype(rows, [&](auto like) {
    using T = decltype(like);
    attend<T>(rows, keys, values, static_cast<const int64_t*>(k_positions.data_ptr()),
              *static_cast<const int64_t*>(q_position.data_ptr()), window, sinks, sees_self,
              data_or_null<int64_t>(pads), Scoring{float(scale), float(softcap)}, data_or_null<T>(sink_logits), out);
  });
  return out;
}

STABLE_TORCH_LIBRARY(archspec_rows, m) {
  m.def("linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor");
  m.def(
      "attend(Tensor q, Tensor keys, Tensor values, Tensor k_positions, Tensor q_position, int window, int sinks, "
      "bool sees_self, Tensor? pads, float scale, float softcap, Tensor? sink_logits) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(archspec_rows, CPU, m) {
  m.impl("linear", TORCH_BOX(&linear_op));
  m.impl("attend", TORCH_BOX(&attend_op));
}
