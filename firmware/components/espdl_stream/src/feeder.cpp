#include "espdl_stream/feeder.h"

#include <algorithm>
#include <cstring>

namespace espdl {
Error Feeder::Open(Stream* stream, const Spec& spec, MutableBytes ring) {
  stream_ = stream;
  ring_ = ring;
  input_ = stream->input_count();
  for (size_t index = 0; index < stream->input_count(); ++index) {
    if (!stream->is_bound(index)) {
      if (input_ != stream->input_count()) {
        return Error::kNoSuchPort;  // two: which is meant?
      }
      input_ = index;
    }
  }
  if (input_ >= spec.inputs.size() || spec.inputs[input_].frame_axis < 0) {
    return Error::kNoSuchPort;
  }
  const Port& port = spec.inputs[input_];
  outer_ = 1;
  for (int axis = 0; axis < port.frame_axis; ++axis) {
    outer_ *= port.tensor.dims[axis];
  }
  chunk_frames_ = port.chunk_frames;
  inner_bytes_ = port.tensor.bytes / (outer_ * chunk_frames_);
  frame_bytes_ = outer_ * inner_bytes_;
  capacity_ = static_cast<uint32_t>(ring.size() / frame_bytes_);
  written_ = 0;
  read_ = 0;
  return capacity_ < chunk_frames_ ? Error::kNoMemory : Error::kNone;
}

size_t Feeder::waiting_frames() const {
  return Waiting(written_.load(std::memory_order_acquire), read_.load(std::memory_order_acquire));
}

size_t Feeder::Write(const void* frames, size_t count) {
  const uint32_t written = written_.load(std::memory_order_relaxed);
  const size_t room = capacity_ - Waiting(written, read_.load(std::memory_order_acquire));
  const size_t taken = std::min(room, count);
  const size_t at = written % capacity_;
  const size_t first = std::min<size_t>(taken, capacity_ - at);  // uint32_t is long on chips
  const uint8_t* source = static_cast<const uint8_t*>(frames);
  if (taken != 0) {
    std::memcpy(ring_.data() + at * frame_bytes_, source, first * frame_bytes_);
    std::memcpy(ring_.data(), source + first * frame_bytes_, (taken - first) * frame_bytes_);
  }
  written_.store(Ahead(written, taken), std::memory_order_release);
  return taken;
}

Error Feeder::Poll(bool* stepped) {
  *stepped = waiting_frames() >= chunk_frames_;
  return *stepped ? Step(chunk_frames_) : Error::kNone;
}

Error Feeder::Flush(size_t* frames) {
  *frames = std::min(waiting_frames(), chunk_frames_);
  return *frames == 0 ? Error::kNone : Step(*frames);
}

Error Feeder::Reset() {
  read_.store(written_.load(std::memory_order_acquire), std::memory_order_release);
  return stream_->Reset();
}

// Moves frames from the ring to their places in the input, zeros behind them, and runs.
Error Feeder::Step(size_t frames) {
  const MutableBytes input = stream_->input(input_);
  const uint32_t read = read_.load(std::memory_order_relaxed);
  if (frames < chunk_frames_) {
    std::memset(input.data(), 0, input.size());
  }
  for (size_t frame = 0; frame < frames; ++frame) {
    const uint8_t* source = ring_.data() + ((read + frame) % capacity_) * frame_bytes_;
    for (size_t block = 0; block < outer_; ++block) {
      std::memcpy(input.data() + (block * chunk_frames_ + frame) * inner_bytes_,
                  source + block * inner_bytes_, inner_bytes_);
    }
  }
  read_.store(Ahead(read, frames), std::memory_order_release);
  ESPDL_RETURN_IF_ERROR(stream_->Run());
  stream_->Advance();
  return Error::kNone;
}

}  // namespace espdl
