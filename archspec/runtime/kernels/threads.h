// Work for all threads.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include <torch/csrc/stable/ops.h>

// Does tasks 0 to `count`. Each thread has a row of them of its own, and then takes from those of others: threads do
// not start at once, nor are cores and the ways to memory equally fast. What `prepare` returns is the thread's own.
template <class Prepare, class Task>
static void share(int64_t count, Prepare prepare, Task task) {
  struct alignas(64) Row {
    std::atomic<int64_t> next;
    int64_t end;
  };
  int64_t threads = std::min<int64_t>(count, torch::stable::get_num_threads());
  std::vector<Row> rows(threads);
  for (int64_t i = 0; i < threads; ++i) rows[i].next = i * count / threads, rows[i].end = (i + 1) * count / threads;
  torch::stable::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    auto prepared = prepare();
    for (int64_t own = first; own < last; ++own)
      for (int64_t i = 0; i < threads; ++i) {
        Row& row = rows[(own + i) % threads];
        for (int64_t n; row.next < row.end && (n = row.next++) < row.end;) task(n, prepared);
      }
  });
}
