// Attention of one query a sequence. Every key and value is read once, in the layout that it is stored in, for all
// queries that share it, and everything is summed in float32.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

#include "threads.h"
#include "vectors.h"

template <class T>
constexpr int64_t KEYS = sizeof(T) == 2 ? 32 : 128;  // keys between two corrections of the running maximum
constexpr int64_t AHEAD = 2048;  // bytes between what is read and what is asked for
constexpr int64_t GROUP = 8;     // values that are asked for together

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
  float* values = nullptr;
};

template <class T, int SIZE>
struct Rows {  // keys or values of one head; of rows of SIZE, unless that is 0
  const T* data;
  int64_t stride, length;
  int64_t size() const { return SIZE ? SIZE : length; }
  const T* at(int64_t t) const { return data + t * stride; }
  Rows from(int64_t t) const { return {at(t), stride, length}; }
};

// The rows to ask for while those from `t` on are read: of the first `count` of `here`, and then of `next`.
template <class T, int SIZE>
static inline Rows<T, SIZE> coming(int64_t t, const Rows<T, SIZE>& here, int64_t count, const Rows<T, SIZE>& next) {
  t += std::max<int64_t>(1, AHEAD / (here.size() * int64_t(sizeof(T))));
  return t < count ? here.from(t) : next.from(t - count);
}
template <class T, int SIZE>
static inline void fetch(const Rows<T, SIZE>& rows, int64_t t) {
  for (int64_t i = 0; i < rows.size(); i += 64 / int64_t(sizeof(T))) __builtin_prefetch(rows.at(t) + i);
}

// Scores (Q, KEYS) of `count` keys, for Q queries at once.
template <int Q, class T, int SIZE>
static inline void dots(float (*scores)[KEYS<T>], const Factor<T>* q, int64_t E, const Rows<T, SIZE>& keys,
                        int64_t count, const Rows<T, SIZE>& next) {
  using P = Product<T>;
  constexpr int AT_ONCE = LANES / Q;
  int64_t H = keys.size(), whole = H / P::STEP * P::STEP;
  auto some = [&](int64_t from, auto key) {
    Rows<T, SIZE> soon = coming(from, keys, count, next);
    Vec sums[Q * AT_ONCE];
#pragma GCC unroll 16
    for (int t = 0; t < AT_ONCE; ++t) {
      fetch(soon, t);
      Vec products[Q] = {};
      for (int64_t h = 0; h < whole; h += P::STEP) {
        auto pack = P::pack(key(from + t) + h);
        for (int i = 0; i < Q; ++i) products[i] = P::add(products[i], P::pack(q + i * E + h), pack);
      }
      for (int i = 0; i < Q; ++i) sums[i * AT_ONCE + t] = products[i];
    }
    float totals[LANES];
    store(sums_of(sums), totals);
    for (int i = 0; i < Q; ++i) {
      std::copy_n(totals + i * AT_ONCE, AT_ONCE, scores[i] + from);
      for (int t = 0; t < AT_ONCE; ++t)
        for (int64_t h = whole; h < H; ++h) scores[i][from + t] += one(q[i * E + h]) * one(key(from + t)[h]);
    }
  };
  int64_t from = 0;
  for (; from + AT_ONCE <= count; from += AT_ONCE) some(from, [&](int64_t t) { return keys.at(t); });
  if (from < count) some(from, [&](int64_t t) { return keys.at(std::min(t, count - 1)); });
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
template <int Q, class T, int SIZE>
static inline void add_values(float* const* out, const float (*weights)[KEYS<T>], const Rows<T, SIZE>& values,
                              int64_t count, const Rows<T, SIZE>& next) {
  constexpr int STEP = Taken<T>::SIZE, VECS = Taken<T>::VECS, WIDE = LANES == 16 ? 4 / VECS : 8 / VECS / Q;
  int64_t D = values.size();
  int64_t d = 0;
  auto step = [&](auto width) {
    constexpr int W = decltype(width)::value;
    for (; d + W * STEP <= D; d += W * STEP) {
      Vec sums[Q][W * VECS];
      for (int i = 0; i < Q; ++i)
        for (int j = 0; j < W * VECS; ++j) sums[i][j] = load(out[i] + d + j * LANES);
      for (int64_t from = 0; from < count; from += GROUP) {
        Rows<T, SIZE> soon = coming(from, values, count, next);
        for (int64_t t = from; t < std::min(count, from + GROUP); ++t) {
          if (d == 0) fetch(soon, t - from);
          Vec taken[W * VECS];
          for (int j = 0; j < W; ++j) Taken<T>::take(values.at(t) + d + j * STEP, taken + j * VECS);
          for (int i = 0; i < Q; ++i)
            for (int j = 0; j < W * VECS; ++j) sums[i][j] += weights[i][t] * taken[j];
        }
      }
      for (int i = 0; i < Q; ++i)
        for (int j = 0; j < W * VECS; ++j) store(sums[i][j], out[i] + d + j * LANES);
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
  // Of `count` products, in place; tanh(y) = 1 - 2 / (exp(2 y) + 1).
  void apply(float* scores, int64_t count) const {
    for (int64_t t = 0; t < count; t += LANES) {
      Vec y = load(scores + t) * scale;
      if (softcap > 0) y /= softcap, y = softcap * (1.0f - 2.0f / (exponential(y + y) + 1.0f));
      store(y, scores + t);
    }
  }
};

template <class T, int SIZE>
struct Head {  // keys and values of one kv head
  Rows<T, SIZE> keys, values;
  Head from(int64_t t) const { return {keys.from(t), values.from(t)}; }
};

// One block of keys for Q queries that share them. `q` is (Q, E): with E = 2 H the second half of a query is for sinks.
template <int Q, class T, int SIZE>
static void attend_block(const Factor<T>* q, int64_t E, const Head<T, SIZE>& head, int64_t count, const float* hidden,
                         const bool* is_sink, const Scoring& scoring, Partial* parts, const Rows<T, SIZE>& after) {
  alignas(64) float scores[Q][KEYS<T>] = {};
  int64_t H = head.keys.size();
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
    scoring.apply(scores[i], KEYS<T>);
    Vec top = Vec{} + part.most;
    for (int64_t t = 0; t < KEYS<T>; t += LANES) {
      Vec seen = load(scores[i] + t) + load(hidden + t);
      store(seen, scores[i] + t);
      top = seen > top ? seen : top;
    }
    float largest = most(top), shrink = exponential(Vec{} + (part.most - largest))[0];
    if (shrink != 1)
      for (int64_t d = 0; d < head.values.size(); ++d) part.values[d] *= shrink;
    Vec total = {};
    for (int64_t t = 0; t < KEYS<T>; t += LANES) {
      Vec weights = exponential(load(scores[i] + t) - largest);
      store(weights, scores[i] + t);
      total += weights;
    }
    part.total = part.total * shrink + sum(total), part.most = largest;
    out[i] = part.values;
  }
  add_values<Q>(out, scores, head.values, count, after);
}

// Keys `begin` to `end` of one kv head, for the G queries that read it. `hidden` holds 0 where a key is seen.
template <class T, int SIZE>
static void attend_keys(const Factor<T>* q, int64_t E, int64_t G, const Head<T, SIZE>& head, int64_t begin,
                        int64_t end, const float* hidden, const bool* is_sink, const Scoring& scoring, Partial* parts,
                        const Rows<T, SIZE>& after) {
  for (int64_t from = begin; from < end; from += KEYS<T>) {
    int64_t count = std::min(KEYS<T>, end - from);
    if (std::all_of(hidden + from, hidden + from + count, [](float x) { return x == NONE; })) continue;
    alignas(64) float here[KEYS<T>];
    std::fill(std::copy_n(hidden + from, count, here), here + KEYS<T>, NONE);
    Rows<T, SIZE> next = end - from > KEYS<T> ? head.keys.from(from + KEYS<T>) : after;
    auto block = [&](auto queries, int64_t g) {
      attend_block<decltype(queries)::value, T, SIZE>(q + g * E, E, head.from(from), count, here, is_sink + from,
                                                      scoring, parts + g, next);
    };
    int64_t g = 0;
    for (; g + 4 <= G; g += 4) block(std::integral_constant<int, 4>{}, g);
    for (; g + 2 <= G; g += 2) block(std::integral_constant<int, 2>{}, g);
    for (; g < G; ++g) block(std::integral_constant<int, 1>{}, g);
  }
}

// The values (D,) of one query, of partial softmaxes that stand G apart and of a sink's logit. Overwrites the first
// part.
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
  float* values = parts->values;
  for (int64_t s = 0; s < splits; ++s) {
    const Partial& part = parts[s * G];
    float share = part.total == 0 ? 0.0f : std::exp(part.most - most) / total;
    for (int64_t d = 0; d < D; ++d) values[d] = s == 0 ? share * values[d] : values[d] + share * part.values[d];
  }
  give_values(values, out, D);
}

// What attention is given. All members are words: a tape holds them so.
struct Attend {
  const void *q, *keys, *values;  // (B, N, E), (B, K, T, H), (B, K, T, D)
  const int64_t *positions, *query, *pads;  // (T,), one, (B,) or null
  const void* sink_logits;  // (N,) or null
  void* out;  // (B, N, D)
  int64_t B, N, E, K, T, H, D;
  int64_t k_strides[3], v_strides[3];  // of B, K and T
  int64_t window, sinks, sees_self;  // window: -1 without
  double scale, softcap;  // softcap: 0 without
};

template <class T, int SIZE>
static void attend_sized(const Attend& given) {
  int64_t B = given.B, N = given.N, E = given.E, K = given.K, T_ = given.T, H = given.H, D = given.D, G = N / K;
  const T *k = static_cast<const T*>(given.keys), *v = static_cast<const T*>(given.values);
  const T* sink_logits = static_cast<const T*>(given.sink_logits);
  const int64_t *positions = given.positions, *pads = given.pads;
  Scoring scoring{float(given.scale), float(given.softcap)};
  std::vector<Factor<T>> kept;
  const Factor<T>* queries = factors(static_cast<const T*>(given.q), B * N * E, kept);
  // What a sequence sees is the same in all heads; without padding, in all sequences.
  int64_t sights = pads ? B : 1;
  Sight sight{*given.query, given.window, given.sinks, given.sees_self != 0};
  std::vector<float> hidden(sights * T_);
  std::unique_ptr<bool[]> is_sink(new bool[T_]);
  for (int64_t t = 0; t < T_; ++t) {
    is_sink[t] = positions[t] < given.sinks;
    for (int64_t b = 0; b < sights; ++b) hidden[b * T_ + t] = sight.of(positions[t], pads ? pads[b] : 0) ? 0.0f : NONE;
  }
  auto seen_by_any = [&](int64_t t) {
    for (int64_t b = 0; b < sights; ++b)
      if (hidden[b * T_ + t] == 0) return true;
    return false;
  };
  int64_t live = T_;  // behind these nothing is seen yet
  while (live > 1 && !seen_by_any(live - 1)) --live;
  int64_t threads = torch::stable::get_num_threads();
  int64_t most_splits = std::max<int64_t>(1, live / KEYS<T>);
  int64_t splits = std::clamp<int64_t>(B * K >= threads ? 1 : threads / (B * K), 1, most_splits);
  int64_t size = (live + splits - 1) / splits, tasks = B * K * splits;
  std::vector<float> sums(tasks * G * D);
  std::vector<Partial> parts(tasks * G);
  for (int64_t part = 0; part < tasks * G; ++part) parts[part].values = sums.data() + part * D;
  auto begin = [&](int64_t task) { return task % splits * size; };
  auto head_of = [&](int64_t task) {
    int64_t b = task / (K * splits), head = task / splits % K;
    const int64_t *ks = given.k_strides, *vs = given.v_strides;
    return Head<T, SIZE>{{k + b * ks[0] + head * ks[1], ks[2], H}, {v + b * vs[0] + head * vs[1], vs[2], D}};
  };
  T* o = static_cast<T*>(given.out);
  auto join_head = [&](int64_t head) {  // of all heads of all sequences
    for (int64_t g = 0; g < G; ++g) {
      int64_t row = head * G + g;
      join(parts.data() + head * splits * G + g, splits, G, sink_logits ? one(sink_logits[row % N]) : NONE, o + row * D,
           D);
    }
  };
  share(tasks, [] { return 0; }, [&](int64_t task, int) {
    int64_t b = task / (K * splits), next = std::min(task + 1, tasks - 1);
    attend_keys(queries + task / splits * G * E, E, G, head_of(task), begin(task), std::min(live, begin(task) + size),
                hidden.data() + (pads ? b * T_ : 0), is_sink.get(), scoring, parts.data() + task * G,
                head_of(next).keys.from(begin(next)));
    if (splits == 1) join_head(task);
  });
  for (int64_t head = 0; splits > 1 && head < B * K; ++head) join_head(head);
}

template <class T>
void attend(const Attend& given) {
  if (given.H == 64 && given.D == 64) return attend_sized<T, 64>(given);
  if (given.H == 128 && given.D == 128) return attend_sized<T, 128>(given);
  attend_sized<T, 0>(given);
}
