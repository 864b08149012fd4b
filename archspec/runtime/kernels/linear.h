// Linear maps of a few rows: y (M, N) = x (M, K) weight (N, K)^T + bias (N,). Every weight is read once, in the layout
// that it is stored in, and everything is summed in float32.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "threads.h"
#include "tiles.h"
#include "vectors.h"

constexpr int MANY = LANES == 8 ? 4 : 8;  // rows of x: 8 x 3 sums fit into 32 registers
constexpr int TOGETHER = 3;               // rows of a matrix that are read at once
constexpr int64_t GRAIN = 1 << 15;        // weights that a thread takes at once
constexpr int64_t LINE = 64;              // bytes that memory gives at once

struct Ahead {  // what to ask memory for at every step, in bytes
  const char* from;
  int64_t apart, onward;
};

// y (M, R) = x (M, K) weight (R, K)^T; asks for ASKED places ahead at every step.
template <int M, int R, int ASKED, class T>
static __attribute__((noinline)) void products(
    const Factor<T>* x, const T* weight, float* y, int64_t K, int64_t N, Ahead ahead) {
  using P = Product<T>;
  Vec sums[M][R] = {};
  int64_t k = 0;
  for (; k + P::STEP <= K; k += P::STEP, ahead.from += ahead.onward) {
    typename P::Pack w[R];
    for (int r = 0; r < R; ++r) w[r] = in_register(P::pack(weight + r * K + k));
    for (int i = 0; i < ASKED; ++i) __builtin_prefetch(ahead.from + i * ahead.apart, 0, 2);  // the first cache is for x
    for (int m = 0; m < M; ++m) {
      auto v = in_register(P::pack(x + m * K + k));
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

// `products` of M rows, up to MOST.
template <int MOST, int R, int ASKED, class T>
static inline void products_of(int64_t M, const Factor<T>* x, const T* weight, float* y, int64_t K, int64_t N,
                               Ahead ahead) {
  if (M == MOST) return products<MOST, R, ASKED>(x, weight, y, K, N, ahead);
  if constexpr (MOST > 1) products_of<MOST - 1, R, ASKED>(M, x, weight, y, K, N, ahead);
}

// R outputs for all rows of x, some rows in each pass over the weight's. Memory is kept busy in all passes: each asks
// for its part of the R rows that come next (if none does, nobody waits for what is asked for in vain).
template <int R, class T>
static void some_outputs(const Factor<T>* x, const T* weight, float* y, int64_t M, int64_t K, int64_t N) {
  constexpr int64_t step = Product<T>::STEP * sizeof(T);
  const char* next = reinterpret_cast<const char*>(weight + R * K);
  int64_t passes = (M + MANY - 1) / MANY;
  if (passes == 1 && R * step > LINE) return products_of<MANY, R, R>(M, x, weight, y, K, N, {next, K * int64_t(sizeof(T)), step});
  int64_t onward = R * step / passes;
  for (int64_t pass = 0; pass < passes; ++pass, next += K / Product<T>::STEP * onward) {
    int64_t m = pass * M / passes, rows = (pass + 1) * M / passes - m;
    if (onward > LINE)
      products_of<MANY, R, R>(rows, x + m * K, weight, y + m * N, K, N, {next, onward / R, onward});
    else
      products_of<MANY, R, 1>(rows, x + m * K, weight, y + m * N, K, N, {next, 0, onward});
  }
}

// y (M, N) for outputs `begin` to N.
template <class T>
static void outputs(const Factor<T>* x, const T* weight, float* y, int64_t M, int64_t K, int64_t N, int64_t begin) {
  int64_t n = begin;
  for (; n + TOGETHER <= N; n += TOGETHER) some_outputs<TOGETHER>(x, weight + n * K, y + n, M, K, N);
  for (; n < N; ++n) some_outputs<1>(x, weight + n * K, y + n, M, K, N);
}

// y = sums + bias.
template <class T>
static void put_all(const float* sums, const T* bias, T* y, int64_t count) {
  int64_t n = 0;
  for (; n + LANES <= count; n += LANES) store(bias ? load(sums + n) + load(bias + n) : load(sums + n), y + n);
  for (; n < count; ++n) put(sums[n] + (bias ? one(bias[n]) : 0.0f), y + n);
}

// What a linear map is given. All members are words: a tape holds them so.
struct Linear {
  const void *x, *weight, *bias;  // bias may be null
  void* y;
  int64_t M, K, N;
};

template <class T>
static void linear(const Linear& given) {
  int64_t M = given.M, K = given.K, N = given.N;
  const T *x = static_cast<const T*>(given.x), *weight = static_cast<const T*>(given.weight);
  const T* bias = static_cast<const T*>(given.bias);
  T* y = static_cast<T*>(given.y);
  auto bits = [](const T* p) { return reinterpret_cast<const uint16_t*>(p); };
  bool tiled = std::is_same_v<T, BFloat> && tiles::serve(M, K);
  int64_t step = tiled ? tiles::OUTPUTS : TOGETHER, most = std::max<int64_t>(1, GRAIN / (K * step)) * step;
  std::vector<Factor<T>> kept;
  const Factor<T>* rows = factors(x, tiled && N % step == 0 ? 0 : M * K, kept);
  // Every thread has its own: another core's would come line by line.
  auto packed = [&] { return tiled ? tiles::packed(bits(x), M, K) : nullptr; };
  share((N + most - 1) / most, packed, [&](int64_t task, const std::unique_ptr<uint16_t[]>& pairs) {
    int64_t begin = task * most, count = std::min(most, N - begin), by_tiles = tiled ? count - count % step : 0;
    std::unique_ptr<float[]> sums(new float[M * count]);
    const T* some = weight + begin * K;
    if (tiled) tiles::linear(pairs.get(), bits(some), sums.get(), M, K, count, by_tiles);
    outputs(rows, some, sums.get(), M, K, count, by_tiles);
    for (int64_t m = 0; m < M; ++m)
      put_all(sums.get() + m * count, bias ? bias + begin : nullptr, y + m * N + begin, count);
  });
}
