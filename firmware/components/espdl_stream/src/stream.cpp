#include "espdl_stream/stream.h"

#include <algorithm>
#include <cstring>

namespace espdl {
namespace {

constexpr uint64_t kMaxBytes = 0x7FFFFFFF;

void Zero(MutableBytes bytes) {
  if (!bytes.empty()) {
    std::memset(bytes.data(), 0, bytes.size());
  }
}

bool SameLayout(const Tensor& left, const Tensor& right) {
  return left.type == right.type && left.exponent == right.exponent &&
         left.per_channel == right.per_channel && left.bytes == right.bytes &&
         left.rank == right.rank && std::equal(left.dims, left.dims + left.rank, right.dims);
}

bool Find(Span<const Port> ports, std::string_view name, uint32_t* index) {
  for (*index = 0; *index < ports.size(); ++*index) {
    if (ports[*index].tensor.name == name) {
      return true;
    }
  }
  return false;
}

}  // namespace

Error Stream::Load(Engine* engine, const Spec& spec, MutableBytes memory) {
  ESPDL_RETURN_IF_ERROR(Open(engine));
  ESPDL_RETURN_IF_ERROR(Compare(Side::kInput, spec.inputs));
  ESPDL_RETURN_IF_ERROR(Compare(Side::kOutput, spec.outputs));
  if (memory.size() < memory_bytes_) {
    return Error::kNoMemory;
  }
  Place(memory);
  output_specs_ = spec.outputs;
  Binding bindings[kMaxPorts];
  if (spec.states.size() > kMaxPorts) {
    return Error::kBoundTwice;
  }
  for (size_t index = 0; index < spec.states.size(); ++index) {
    if (!Find(spec.outputs, spec.states[index].output, &bindings[index].output) ||
        !Find(spec.inputs, spec.states[index].input, &bindings[index].input)) {
      return Error::kNoSuchPort;
    }
  }
  return Bind(Span<const Binding>(bindings, spec.states.size()));
}

Error Stream::Open(Engine* engine) {
  engine_ = engine;
  output_specs_ = Span<const Port>();
  input_count_ = engine->Count(Side::kInput);
  output_count_ = engine->Count(Side::kOutput);
  if (input_count_ > kMaxPorts || output_count_ > kMaxPorts) {
    return Error::kTooManyPorts;
  }
  uint64_t total = 0;
  ESPDL_RETURN_IF_ERROR(Measure(Side::kInput, input_count_, inputs_, &total));
  ESPDL_RETURN_IF_ERROR(Measure(Side::kOutput, output_count_, outputs_, &total));
  if (total > kMaxBytes) {
    return Error::kTooLarge;
  }
  memory_bytes_ = static_cast<size_t>(std::max<uint64_t>(total, kAlignment));
  return Error::kNone;
}

// Sizes of all ports of a side, into spans that have no memory yet.
Error Stream::Measure(Side side, size_t count, MutableBytes* ports, uint64_t* total) {
  for (size_t index = 0; index < count; ++index) {
    Tensor tensor;
    ESPDL_RETURN_IF_ERROR(engine_->Describe(side, index, &tensor));
    ports[index] = MutableBytes(nullptr, tensor.bytes);
    *total += AlignUp(tensor.bytes);
  }
  return Error::kNone;
}

Error Stream::Compare(Side side, Span<const Port> ports) {
  if (ports.size() != (side == Side::kInput ? input_count_ : output_count_)) {
    return Error::kMismatch;
  }
  for (size_t index = 0; index < ports.size(); ++index) {
    Tensor tensor;
    ESPDL_RETURN_IF_ERROR(engine_->Describe(side, index, &tensor));
    if (tensor.name != ports[index].tensor.name || !SameLayout(tensor, ports[index].tensor)) {
      return Error::kMismatch;
    }
  }
  return Error::kNone;
}

void Stream::Place(MutableBytes memory) {
  Zero(memory.Sub(0, memory_bytes_));
  uint8_t* next = memory.data();
  output_bytes_ = 0;
  for (size_t index = 0; index < input_count_; ++index) {
    inputs_[index] = MutableBytes(next, inputs_[index].size());
    next += AlignUp(inputs_[index].size());
    bound_[index] = kUnbound;
  }
  for (size_t index = 0; index < output_count_; ++index) {
    outputs_[index] = MutableBytes(next, outputs_[index].size());
    next += AlignUp(outputs_[index].size());
    output_bytes_ += outputs_[index].size();
  }
  steps_ = 0;
  CountInputBytes();
}

void Stream::CountInputBytes() {
  input_bytes_ = 0;
  state_bytes_ = 0;
  for (size_t index = 0; index < input_count_; ++index) {
    (is_bound(index) ? state_bytes_ : input_bytes_) += inputs_[index].size();
  }
}

Error Stream::Bind(Span<const Binding> bindings) {
  int16_t bound[kMaxPorts];
  std::fill(std::begin(bound), std::end(bound), kUnbound);
  for (const Binding& binding : bindings) {
    if (binding.input >= input_count_ || binding.output >= output_count_) {
      return Error::kNoSuchPort;
    }
    if (bound[binding.input] != kUnbound) {
      return Error::kBoundTwice;
    }
    Tensor from;
    ESPDL_RETURN_IF_ERROR(engine_->Describe(Side::kOutput, binding.output, &from));
    Tensor to;
    ESPDL_RETURN_IF_ERROR(engine_->Describe(Side::kInput, binding.input, &to));
    if (!SameLayout(from, to)) {
      return Error::kLayout;
    }
    bound[binding.input] = static_cast<int16_t>(binding.output);
  }
  std::copy(std::begin(bound), std::end(bound), bound_);
  CountInputBytes();
  return Reset();
}

Error Stream::Reset() {
  ESPDL_RETURN_IF_ERROR(engine_->Reset());
  for (size_t index = 0; index < input_count_; ++index) {
    if (is_bound(index)) {
      Zero(inputs_[index]);
    }
  }
  steps_ = 0;
  return Error::kNone;
}

Error Stream::Push(Span<const Bytes> inputs) {
  size_t next = 0;
  for (size_t index = 0; index < input_count_; ++index) {
    if (is_bound(index)) {
      continue;
    }
    if (next == inputs.size() || inputs[next].size() != inputs_[index].size()) {
      return Error::kSize;
    }
    if (!inputs_[index].empty()) {
      std::memcpy(inputs_[index].data(), inputs[next].data(), inputs_[index].size());
    }
    ++next;
  }
  if (next != inputs.size()) {
    return Error::kSize;
  }
  ESPDL_RETURN_IF_ERROR(Run());
  Advance();
  return Error::kNone;
}

Error Stream::Run() {
  Bytes inputs[kMaxPorts];
  std::copy(inputs_, inputs_ + input_count_, inputs);
  return engine_->Run(Span<const Bytes>(inputs, input_count_),
                      Span<const MutableBytes>(outputs_, output_count_));
}

void Stream::Advance() {
  for (size_t index = 0; index < input_count_; ++index) {
    if (is_bound(index) && !inputs_[index].empty()) {
      std::memcpy(inputs_[index].data(), outputs_[bound_[index]].data(), inputs_[index].size());
    }
  }
  ++steps_;
}

int64_t Stream::FirstFrame(size_t index) const {
  const Port& port = output_specs_[index];
  return (int64_t{steps_} - 1) * port.chunk_frames - port.latency_frames;
}

}  // namespace espdl
