// Runs the inputs that a proof ran, and compares every element with what it saw.
//
// A vectors file, little endian: "ESV1", u32 steps, u32 input bytes and u32 output bytes of a step,
// u8[32] SHA-256 of the streaming file; then for each step its unbound inputs in the file's order
// and all its outputs, without gaps.
#ifndef ESPDL_STREAM_SELF_TEST_H_
#define ESPDL_STREAM_SELF_TEST_H_

#include <cstddef>
#include <cstdint>

#include "espdl_stream/error.h"
#include "espdl_stream/span.h"
#include "espdl_stream/stream.h"

namespace espdl {

struct SelfTestResult {
  uint32_t steps = 0;
  uint32_t elements = 0;
  uint32_t differing = 0;  // by more than the tolerance
  uint32_t max_lsb = 0;    // of integers
  // Where the first one is that differs.
  uint32_t step = 0;
  uint32_t output = 0;
  uint32_t element = 0;
};

// Resets the stream before and after. kDiffers when an element differs, kVectors when the file is
// cut short, not of this model or without steps.
Error SelfTest(Stream* stream, const Spec& spec, Bytes vectors, SelfTestResult* result);

}  // namespace espdl

#endif  // ESPDL_STREAM_SELF_TEST_H_
