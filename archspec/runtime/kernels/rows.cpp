// Linear maps and attention of a few rows, as a decode step has them, and rows of kernels that are launched again.
#include <array>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "attend.h"
#include "linear.h"

using torch::stable::Tensor;

// In files of their own, which are compiled at the same time.
extern template void attend<float>(const Attend&);
extern template void attend<BFloat>(const Attend&);

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

static const void* data_or_null(const std::optional<Tensor>& tensor) { return tensor ? tensor->data_ptr() : nullptr; }

Tensor linear_op(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
  int64_t K = weight.size(1), N = weight.size(0), M = x.numel() / K;
  Tensor rows = torch::stable::contiguous(x);
  STD_TORCH_CHECK(weight.is_contiguous() && x.scalar_type() == weight.scalar_type(),
                  "a contiguous weight of x's dtype");
  std::vector<int64_t> sizes;
  for (int64_t i = 0; i + 1 < x.dim(); ++i) sizes.push_back(x.size(i));
  sizes.push_back(N);
  Tensor y = torch::stable::new_empty(rows, sizes);
  Linear given{rows.data_ptr(), weight.data_ptr(), data_or_null(bias), y.data_ptr(), M, K, N};
  by_dtype(rows, [&](auto like) { linear<decltype(like)>(given); });
  return y;
}

Tensor attend_op(const Tensor& q, const Tensor& keys, const Tensor& values, const Tensor& k_positions,
                 const Tensor& q_position, int64_t window, int64_t sinks, bool sees_self,
                 const std::optional<Tensor>& pads, double scale, double softcap,
                 const std::optional<Tensor>& sink_logits) {
  STD_TORCH_CHECK(keys.stride(3) == 1 && values.stride(3) == 1, "keys and values lie together");
  Tensor rows = torch::stable::contiguous(q);
  Tensor out = torch::stable::new_empty(rows, {q.size(0), q.size(1), 1, values.size(3)});
  Attend given{rows.data_ptr(),
               keys.data_ptr(),
               values.data_ptr(),
               static_cast<const int64_t*>(k_positions.data_ptr()),
               static_cast<const int64_t*>(q_position.data_ptr()),
               static_cast<const int64_t*>(data_or_null(pads)),
               data_or_null(sink_logits),
               out.data_ptr(),
               q.size(0),
               q.size(1),
               q.size(3),
               keys.size(1),
               keys.size(2),
               keys.size(3),
               values.size(3),
               {keys.stride(0), keys.stride(1), keys.stride(2)},
               {values.stride(0), values.stride(1), values.stride(2)},
               window,
               sinks,
               sees_self,
               scale,
               softcap};
  by_dtype(rows, [&](auto like) { attend<decltype(like)>(given); });
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

// ---- kernels launched again ----

// The kernels of this library as a row of launches has them: they find what they are given in words.
extern "C" {
void archspec_linear_float32(const int64_t* words) { linear<float>(*reinterpret_cast<const Linear*>(words)); }
void archspec_linear_bfloat16(const int64_t* words) { linear<BFloat>(*reinterpret_cast<const Linear*>(words)); }
void archspec_attend_float32(const int64_t* words) { attend<float>(*reinterpret_cast<const Attend*>(words)); }
void archspec_attend_bfloat16(const int64_t* words) { attend<BFloat>(*reinterpret_cast<const Attend*>(words)); }
}

constexpr size_t MOST_WORDS = 64;

template <size_t... I>
static void called(void* kernel, const int64_t* words, std::index_sequence<I...>) {
  reinterpret_cast<void (*)(decltype(int64_t(I))...)>(kernel)(words[I]...);
}
template <size_t N>
static void called_with(void* kernel, const int64_t* words) {
  called(kernel, words, std::make_index_sequence<N>());
}
template <size_t... N>
static constexpr auto callers(std::index_sequence<N...>) {
  return std::array<void (*)(void*, const int64_t*), sizeof...(N)>{called_with<N>...};
}

// Launches kernels one after another. Each stands as its address, the number of its words, and these: pointers and
// whole numbers. With a negative number the kernel is given their address instead. Returns null, or what went wrong.
extern "C" const char* archspec_launch(const int64_t* words, int64_t count) {
  static constexpr auto by_number = callers(std::make_index_sequence<MOST_WORDS + 1>());
  static thread_local std::string message;
  try {
    for (int64_t at = 0; at < count;) {
      void* kernel = reinterpret_cast<void*>(words[at]);
      int64_t number = words[at + 1], size = number < 0 ? -number : number;
      at += 2;
      if (number < 0)
        reinterpret_cast<void (*)(const int64_t*)>(kernel)(words + at);
      else
        by_number.at(number)(kernel, words + at);
      at += size;
    }
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
  return nullptr;
}
