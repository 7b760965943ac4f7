// What runs models: ESP-DL on a chip, callbacks on a host, a fake in tests.
#ifndef RUNNER_MODEL_RUNNER_H_
#define RUNNER_MODEL_RUNNER_H_

#include <cstdint>
#include <string_view>

#include "wire/messages.h"
#include "wire/span.h"
#include "wire/status.h"

namespace hil {

// Where to copy a node output of the step that runs; exactly its size.
struct Capture {
  uint32_t index = 0;
  MutableBytes data;
};

// Models are named by a non-zero id that the runner chooses. The order of the tensors of a kind is
// the file's and does not change while the model is loaded. Views in results are valid until the
// next call.
class ModelRunner {
 public:
  virtual ~ModelRunner() = default;

  // Loads EDL bytes, which stay valid until Unload returned.
  virtual Status Load(std::string_view name, Bytes model, uint32_t* id) = 0;
  virtual void Unload(uint32_t id) = 0;

  virtual uint32_t Count(uint32_t id, TensorKind kind) = 0;
  virtual Status Describe(uint32_t id, TensorKind kind, uint32_t index, TensorInfo* info) = 0;
  // Finds a node output.
  virtual Status Find(uint32_t id, std::string_view name, uint32_t* index) = 0;

  // Zeroes the model's caches.
  virtual Status Reset(uint32_t id) = 0;

  // Keeps, or stops keeping, every node output of each step for Read.
  virtual Status Retain(uint32_t id, bool on) = 0;

  // One step. `inputs` and `outputs` are all graph inputs and outputs in describe order.
  // Outputs arrive filled with the canary: a runner with output memory of its own copies them there
  // before it assigns inputs and executes. `latency_us` is the time of the inference alone; a
  // runner without a clock leaves it.
  virtual Status Run(uint32_t id, Span<const Bytes> inputs, Span<const MutableBytes> outputs,
                     Span<const Capture> captures, uint32_t* latency_us) = 0;

  // Copies bytes [offset, offset + out.size()) of a node output of the last step.
  virtual Status Read(uint32_t id, uint32_t index, uint32_t offset, MutableBytes out) = 0;

  virtual MemoryInfo Memory() = 0;

  // What the model that was loaded last has cost so far; zeros for what is not known.
  virtual QueryUsageReply Usage() { return QueryUsageReply(); }

  // Puts back what a vector unit's kernels rely on and other code of this core may have changed.
  // Called in Run's task right before and right after it. Returns what was found changed:
  // kChunkRoundingLost, kChunkMisaligned; 0 on chips without such a mode.
  virtual uint16_t RestoreVectorUnit() { return 0; }
};

}  // namespace hil

#endif  // RUNNER_MODEL_RUNNER_H_
