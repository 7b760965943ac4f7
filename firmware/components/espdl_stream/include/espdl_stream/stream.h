// A model that is fed chunk by chunk: its inputs and outputs, and the state between two steps.
//
//   alignas(16) static uint8_t memory[espdl::MemoryBytes(kws::kSpec)];
//   espdl::DlEngine engine;  // dl_engine.h
//   espdl::Stream stream;
//   engine.LoadAddress(kws::kStreaming);
//   stream.Load(&engine, kws::kSpec, memory);
//   for (;;) {
//     stream.Push(chunk);       // one chunk of the input; states are fed back by themselves
//     use(stream.output(0), stream.FirstFrame(0));
//   }
//
// Nothing is allocated, by this class, at any time. The test firmware that proves a model runs it
// through this class too.
#ifndef ESPDL_STREAM_STREAM_H_
#define ESPDL_STREAM_STREAM_H_

#include <cstddef>
#include <cstdint>

#include "espdl_stream/engine.h"
#include "espdl_stream/error.h"
#include "espdl_stream/span.h"
#include "espdl_stream/spec.h"

namespace espdl {

inline constexpr size_t kMaxPorts = 64;  // graph inputs, and graph outputs, of one model

// A graph output that feeds a graph input at the next step, by index.
struct Binding {
  uint32_t output = 0;
  uint32_t input = 0;
};

class Stream {
 public:
  Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Opens the model that `spec` describes, in `memory` of MemoryBytes(spec) aligned to 16, binds
  // its states and resets it. Engine, spec and memory outlive the stream.
  Error Load(Engine* engine, const Spec& spec, MutableBytes memory);

  // The same without a description, in two steps: Open says how much memory Place must give.
  Error Open(Engine* engine);
  size_t memory_bytes() const { return memory_bytes_; }
  void Place(MutableBytes memory);

  // Replaces all bindings, and resets. On an error nothing changed.
  Error Bind(Span<const Binding> bindings);

  // Zeroes caches and states: the next chunk is the first of a new sequence.
  Error Reset();

  // One step. `inputs` are the unbound inputs in the file's order, each in its own layout and type.
  Error Push(Span<const Bytes> inputs);
  Error Push(Bytes input) { return Push(Span<const Bytes>(&input, 1)); }

  // The last step's; valid until the next.
  Bytes output(size_t index) const { return outputs_[index]; }

  // Which frame of the whole sequence's output the first frame of output(index) is. Below zero the
  // latency has not passed yet: leave these frames out. Needs Load.
  int64_t FirstFrame(size_t index) const;

  // Steps since the last Reset.
  uint32_t steps() const { return steps_; }

  // What Push is made of, for who fills inputs or looks at outputs by himself: fill input(), then
  // Run, then Advance, which moves the states.
  Error Run();
  void Advance();

  size_t input_count() const { return input_count_; }
  size_t output_count() const { return output_count_; }
  bool is_bound(size_t input) const { return bound_[input] != kUnbound; }
  MutableBytes input(size_t index) const { return inputs_[index]; }
  MutableBytes mutable_output(size_t index) const { return outputs_[index]; }
  size_t input_bytes() const { return input_bytes_; }    // of all unbound inputs
  size_t output_bytes() const { return output_bytes_; }  // of all outputs
  size_t state_bytes() const { return state_bytes_; }    // of all bound inputs
  Engine* engine() const { return engine_; }

 private:
  static constexpr int16_t kUnbound = -1;

  Error Measure(Side side, size_t count, MutableBytes* ports, uint64_t* total);
  Error Compare(Side side, Span<const Port> ports);
  void CountInputBytes();

  Engine* engine_ = nullptr;
  Span<const Port> output_specs_;
  size_t input_count_ = 0;
  size_t output_count_ = 0;
  MutableBytes inputs_[kMaxPorts];
  MutableBytes outputs_[kMaxPorts];
  int16_t bound_[kMaxPorts] = {};  // per input: the output that feeds it
  size_t memory_bytes_ = 0;
  size_t input_bytes_ = 0;
  size_t output_bytes_ = 0;
  size_t state_bytes_ = 0;
  uint32_t steps_ = 0;
};

}  // namespace espdl

#endif  // ESPDL_STREAM_STREAM_H_
