// Rows of bfloat16 by tiles: sixteen rows of a weight at a time, as they lie in memory, against all rows of x.
#pragma once
#include <cstdint>
#include <cstring>
#include <memory>

#if defined(__linux__) && defined(__AMX_TILE__) && defined(__AMX_BF16__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace tiles {
constexpr int64_t OUTPUTS = 16, INPUTS = 32, ROWS = 16;  // of a weight, of both, and of x that a tile holds
constexpr int64_t FEWEST = 3, MOST = 2 * ROWS;  // rows of x: for fewer, memory is as fast without

// Linux gives a process its tile registers when it asks for them.
static inline bool there_are() {
  constexpr int REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool granted = syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
  return granted;
}

static inline bool serve(int64_t M, int64_t K) { return M >= FEWEST && M <= MOST && K % INPUTS == 0 && there_are(); }

struct alignas(64) Config {
  uint8_t palette = 1, start = 0, unused[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
  void set(int tile, int64_t height, int64_t width) { rows[tile] = uint8_t(height), bytes[tile] = uint16_t(width); }
};

// x (M, K) as the second factor of a product of tiles: pairs of inputs in words, (blocks of rows, K / 2, rows of one).
static inline std::unique_ptr<uint16_t[]> packed(const uint16_t* x, int64_t M, int64_t K) {
  std::unique_ptr<uint16_t[]> out(new uint16_t[M * K]);
  for (int64_t from = 0; from < M; from += ROWS) {
    int64_t rows = M - from < ROWS ? M - from : ROWS;
    for (int64_t m = 0; m < rows; ++m)
      for (int64_t k = 0; k < K; k += 2) std::memcpy(&out[from * K + k * rows + 2 * m], x + (from + m) * K + k, 4);
  }
  return out;
}

// y[m * N + n] for rows 0 to `end` of a weight (N, K), in steps of OUTPUTS; `x` is packed, M up to MOST.
static inline void linear(const uint16_t* x, const uint16_t* weight, float* y, int64_t M, int64_t K, int64_t N,
                          int64_t end) {
  int64_t first = M < ROWS ? M : ROWS, second = M - first;
  Config config;
  config.set(0, OUTPUTS, first * 4), config.set(2, ROWS, first * 4), config.set(4, OUTPUTS, INPUTS * 2);
  if (second) config.set(1, OUTPUTS, second * 4), config.set(3, ROWS, second * 4);
  _tile_loadconfig(&config);
  alignas(64) float sums[2][OUTPUTS * ROWS];
  const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  for (int64_t n = 0; n < end; n += OUTPUTS) {
    _tile_zero(0);
    if (second) _tile_zero(1);
    for (int64_t k = 0; k < K; k += INPUTS) {
      const uint16_t* block = weight + n * K + k;
      _tile_loadd(4, block, K * 2);
      // Into the second cache: the first is full.
      for (int64_t r = OUTPUTS; r < 2 * OUTPUTS; ++r) __builtin_prefetch(block + r * K, 0, 2);
      _tile_loadd(2, x + k * first, first * 4);
      _tile_dpbf16ps(0, 4, 2);
      if (second) {
        _tile_loadd(3, x + first * K + k * second, second * 4);
        _tile_dpbf16ps(1, 4, 3);
      }
    }
    _tile_stored(0, sums[0], first * 4);
    if (second) _tile_stored(1, sums[1], second * 4);
    for (int64_t m = 0; m < M; ++m) {
      const float* column = m < first ? sums[0] + m : sums[1] + m - first;
      __m512i places = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(int(m < first ? first : second)));
      _mm512_storeu_ps(y + m * N + n, _mm512_i32gather_ps(places, column, 4));
    }
  }
  _tile_release();
}
}  // namespace tiles
#else
namespace tiles {
constexpr int64_t OUTPUTS = 16;
static inline bool serve(int64_t, int64_t) { return false; }
static inline std::unique_ptr<uint16_t[]> packed(const uint16_t*, int64_t, int64_t) { return {}; }
static inline void linear(const uint16_t*, const uint16_t*, float*, int64_t, int64_t, int64_t, int64_t) {}
}  // namespace tiles
#endif
