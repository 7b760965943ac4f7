// What an exported header says of its model: ports, chunk, latency, warm-up and states.
#ifndef ESPDL_STREAM_SPEC_H_
#define ESPDL_STREAM_SPEC_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "espdl_stream/engine.h"
#include "espdl_stream/span.h"

namespace espdl {

struct Port {
  Tensor tensor;
  int8_t frame_axis = -1;       // of tensor.dims; -1 for a state or a value of the whole stream
  uint32_t chunk_frames = 0;    // of this tensor in one step
  uint32_t latency_frames = 0;  // an output's first frames that belong to no input yet
  uint32_t warm_up_frames = 0;  // those behind them that a cold start may change
};

// The output of a step that is the input of the next, and zero before the first.
struct State {
  std::string_view output;
  std::string_view input;
};

struct Spec {
  std::string_view name;
  std::string_view target;  // ESP-IDF's name of the chip that the file is packed for
  std::string_view sha256;  // of the streaming file, hexadecimal
  Span<const Port> inputs;  // in the file's order, states included
  Span<const Port> outputs;
  Span<const State> states;
  uint32_t tolerance_lsb = 0;  // what the target's float steps may differ from the test vectors
};

inline constexpr size_t kAlignment = 16;  // of tensors, as SIMD loads want it

constexpr uint64_t AlignUp(uint64_t size) {
  return (size + kAlignment - 1) & ~uint64_t{kAlignment - 1};
}

// Bytes of working memory that a Stream of this model takes.
constexpr size_t MemoryBytes(const Spec& spec) {
  uint64_t total = kAlignment;
  for (const Port& port : spec.inputs) {
    total += AlignUp(port.tensor.bytes);
  }
  for (const Port& port : spec.outputs) {
    total += AlignUp(port.tensor.bytes);
  }
  return static_cast<size_t>(total);
}

}  // namespace espdl

#endif  // ESPDL_STREAM_SPEC_H_
