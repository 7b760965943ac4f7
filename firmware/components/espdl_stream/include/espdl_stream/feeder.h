// Frames of any number at a time into a stream that takes whole chunks, through a ring buffer.
//
//   espdl::Feeder feeder;
//   feeder.Open(&stream, kws::kSpec, ring_memory);
//   feeder.Feed(frames, count, [](const espdl::Stream& stream) { use(stream.output(0)); });
//
// Or in two tasks: one calls Write as frames arrive (an I2S task, an interrupt), the other Poll.
#ifndef ESPDL_STREAM_FEEDER_H_
#define ESPDL_STREAM_FEEDER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "espdl_stream/error.h"
#include "espdl_stream/span.h"
#include "espdl_stream/spec.h"
#include "espdl_stream/stream.h"

namespace espdl {

class Feeder {
 public:
  // For a model with one input beside its states. A frame is all values of one time step in the
  // input's type, in the order of the other axes. `ring` holds at least one chunk; each byte more
  // is room for a writer that runs ahead. All outlive the feeder.
  Error Open(Stream* stream, const Spec& spec, MutableBytes ring);

  size_t frame_bytes() const { return frame_bytes_; }
  size_t waiting_frames() const;  // written, not yet part of a step

  // Takes as many of `count` frames as the ring has room for; returns how many.
  size_t Write(const void* frames, size_t count);

  // Runs one step if a whole chunk waits; *stepped says whether.
  Error Poll(bool* stepped);

  // Takes all frames, and calls sink(stream) after each step.
  template <typename Sink>
  Error Feed(const void* frames, size_t count, Sink&& sink) {
    const uint8_t* next = static_cast<const uint8_t*>(frames);
    for (;;) {
      const size_t taken = Write(next, count);
      next += taken * frame_bytes_;
      count -= taken;
      bool stepped = false;
      ESPDL_RETURN_IF_ERROR(Poll(&stepped));
      if (stepped) {
        sink(static_cast<const Stream&>(*stream_));
      } else if (count == 0) {
        return Error::kNone;
      }
    }
  }

  // At the end of a sequence: fills a begun chunk up with zeros and runs it. *frames says how many
  // of its frames were real; 0: nothing waited, and nothing ran.
  Error Flush(size_t* frames);

  // Drops what waits and resets the stream. Not while another task is in Write.
  Error Reset();

 private:
  Error Step(size_t frames);
  size_t Waiting(uint32_t written, uint32_t read) const {
    return (written + 2 * capacity_ - read) % (2 * capacity_);
  }
  uint32_t Ahead(uint32_t position, size_t frames) const {
    return static_cast<uint32_t>((position + frames) % (2 * capacity_));
  }

  Stream* stream_ = nullptr;
  MutableBytes ring_;
  size_t input_ = 0;  // index of the one unbound input
  size_t chunk_frames_ = 0;
  size_t frame_bytes_ = 0;
  size_t outer_ = 1;        // blocks before the frame axis
  size_t inner_bytes_ = 0;  // of one frame in one block
  uint32_t capacity_ = 0;   // frames
  // Positions in two rounds of the ring, so that full and empty differ. One writer, one reader.
  std::atomic<uint32_t> written_{0};
  std::atomic<uint32_t> read_{0};
};

}  // namespace espdl

#endif  // ESPDL_STREAM_FEEDER_H_
