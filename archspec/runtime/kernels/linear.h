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

// `products` of M rows, up to MOST.
template <int MOST, int R, class T>
static inline void products_of(int64_t M, const Factor<T>* x, const T* weight, float* y, int64_t K, int64_t N,
                               bool fetch) {
  if (M == MOST) return products<MOST, R>(x, weight, y, K, N, fetch);
  if constexpr (MOST > 1) products_of<MOST - 1, R>(M, x, weight, y, K, N, fetch);
}

template <int R, class T>
static void some_outputs(const Factor<T>* x, const T* weight, float* y, int64_t M, int64_t K, int64_t N, bool fetch) {
  for (int64_t m = 0; m < M; m += MANY)
    products_of<MANY, R>(std::min<int64_t>(MANY, M - m), x + m * K, weight, y + m * N, K, N, fetch && m == 0);
}

// y (M, N) for outputs `begin` to N, of which `more` follow in the weight.
template <class T>
static void outputs(const Factor<T>* x, const T* weight, float* y, int64_t M, int64_t K, int64_t N, int64_t begin,
                    int64_t more) {
  int64_t n = begin;
  for (; n + TOGETHER <= N; n += TOGETHER)
    some_outputs<TOGETHER>(x, weight + n * K, y + n, M, K, N, n + 2 * TOGETHER <= N + more);
  for (; n < N; ++n) some_outputs<1>(x, weight + n * K, y + n, M, K, N, false);
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
    outputs(rows, some, sums.get(), M, K, count, by_tiles, N - begin - count);
    for (int64_t m = 0; m < M; ++m)
      put_all(sums.get() + m * count, bias ? bias + begin : nullptr, y + m * N + begin, count);
  });
}
