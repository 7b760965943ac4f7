// One loaded model: its tensors' memory, bound state, watches and stream. Knows no packets.
#ifndef RUNNER_LOADED_MODEL_H_
#define RUNNER_LOADED_MODEL_H_

#include <cstdint>
#include <string_view>

#include "espdl_stream/stream.h"
#include "runner/model_runner.h"
#include "runner/platform.h"
#include "wire/messages.h"
#include "wire/span.h"
#include "wire/status.h"

namespace hil {

// What a step found in the canary, for ChunkReply.
struct Unwritten {
  uint16_t tensors = 0;  // outputs with unwritten bytes
  uint16_t output = 0;   // the first of them
  uint32_t offset = 0;
  uint32_t bytes = 0;
  bool suspect = false;  // a short output is wholly canary, which may be chance
};

// One model of a runner, as the streaming class wants it.
class RunnerEngine final : public espdl::Engine {
 public:
  RunnerEngine() = default;
  RunnerEngine(ModelRunner* runner, uint32_t id) : runner_(runner), id_(id) {}

  size_t Count(espdl::Side side) override;
  espdl::Error Describe(espdl::Side side, size_t index, espdl::Tensor* tensor) override;
  espdl::Error Reset() override;
  espdl::Error Run(Span<const Bytes> inputs, Span<const MutableBytes> outputs) override;

  // Why the last call failed, if the error is kEngine.
  const Status& status() const { return status_; }

  Span<Capture> captures;   // of watched node outputs
  uint32_t latency_us = 0;  // of the last step

 private:
  espdl::Error Keep(const Status& status);

  ModelRunner* runner_ = nullptr;
  uint32_t id_ = 0;
  Status status_;
};

class LoadedModel {
 public:
  LoadedModel() = default;
  ~LoadedModel() { Unload(); }
  LoadedModel(const LoadedModel&) = delete;
  LoadedModel& operator=(const LoadedModel&) = delete;

  // Loads `model`; `owned`, if not empty, is the memory it lies in, kept until Unload.
  // On failure the object is as before: not loaded.
  Status Load(ModelRunner* runner, BufferPool* pool, uint32_t handle, std::string_view name,
              Bytes model, PoolBuffer owned);
  void Unload();

  bool loaded() const { return handle_ != 0; }
  uint32_t handle() const { return handle_; }
  const Sha256Digest& sha256() const { return sha256_; }
  uint32_t size() const { return size_; }
  uint32_t input_bytes() const { return Size(stream_.input_bytes()); }    // of all unbound inputs
  uint32_t output_bytes() const { return Size(stream_.output_bytes()); }  // of all outputs
  uint32_t state_bytes() const { return Size(stream_.state_bytes()); }    // of all bound inputs
  uint32_t watch_bytes() const { return watch_bytes_; }
  uint32_t result_bytes() const { return output_bytes() + watch_bytes_; }

  uint32_t Count(TensorKind kind) const { return runner_->Count(id_, kind); }
  Status Describe(TensorKind kind, uint32_t index, TensorInfo* info) const {
    return runner_->Describe(id_, kind, index, info);
  }
  // Looks through outputs, inputs and node outputs, in this order.
  Status Find(std::string_view name, TensorKind* kind, uint32_t* index) const;

  // Replaces all bindings by `count` StatePairs in `items`, and resets. On failure nothing changed.
  Status Bind(uint16_t count, Bytes items);

  // Replaces the watch list by `count` WatchItems in `items`; the caller checked that
  // there are at most max_watch. On failure the list is empty.
  Status Watch(uint16_t count, Bytes items);
  // The watched tensor at `index` of the list.
  Status DescribeWatch(uint16_t index, TensorInfo* info) const;

  Status Reset();

  // The stream: 0 when there is none.
  uint32_t stream() const { return stream_id_; }
  Status StartStream(uint32_t stream, bool reset, bool retain);

  // Accepts a part of the next step's input block; *complete tells that Step is due.
  Status Feed(uint32_t index, uint32_t offset, Bytes data, bool* complete);
  // Runs the step that was fed. A failure breaks the stream. `vector_unit` gets the ChunkFlags of
  // what RestoreVectorUnit found.
  Status Step(Unwritten* unwritten, uint32_t* latency_us, uint16_t* vector_unit);

  // Copies [offset, offset + out.size()) of the result block of step `index`.
  Status ReadResult(uint32_t index, uint32_t offset, MutableBytes out) const;

  // Size of the tensor; then a part of it, from the last step.
  Status TensorBytes(TensorKind kind, uint32_t index, uint32_t* bytes) const;
  Status ReadTensor(TensorKind kind, uint32_t index, uint32_t offset, MutableBytes out) const;

 private:
  static constexpr size_t kMaxPorts = espdl::kMaxPorts;
  static uint32_t Size(size_t bytes) { return static_cast<uint32_t>(bytes); }

  // One watched tensor.
  struct Watched {
    WatchMode mode = WatchMode::kValue;
    TensorKind kind = TensorKind::kNodeOutput;
    uint32_t index = 0;
    MutableBytes value;  // the tensor's bytes
    uint8_t digest[4] = {};

    Bytes record() const {
      return mode == WatchMode::kDigest ? Bytes(digest) : Bytes(value.data(), value.size());
    }
  };

  Status AllocatePorts();
  Status StatusOf(espdl::Error error) const;
  Status FindPort(TensorKind kind, std::string_view name, uint32_t* index) const;
  Status MeasureWatches(uint16_t count, Bytes items, uint64_t* values) const;
  void ClearWatches();
  void EndStream();
  void ScatterInput(uint32_t offset, Bytes data);
  void CheckCanary(Unwritten* unwritten);
  void RecordWatches();
  Bytes PortBytes(TensorKind kind, uint32_t index) const;
  Bytes ResultPart(size_t part) const;

  ModelRunner* runner_ = nullptr;
  BufferPool* pool_ = nullptr;
  uint32_t id_ = 0;      // the runner's
  uint32_t handle_ = 0;  // the protocol's
  Sha256Digest sha256_{};
  uint32_t size_ = 0;
  PoolBuffer model_;

  PoolBuffer ports_;  // memory of all graph inputs and outputs
  RunnerEngine engine_;
  espdl::Stream stream_;
  uint8_t streak_[kMaxPorts] = {};  // per short output: canary bytes in consecutive steps

  PoolBuffer watch_;  // tables and values
  Span<Watched> watched_;
  uint32_t watch_bytes_ = 0;

  uint32_t stream_id_ = 0;
  bool broken_ = false;
  bool retain_ = false;
  uint32_t next_index_ = 0;   // of the stream
  uint32_t received_ = 0;     // bytes of the next step's input block
  bool has_result_ = false;   // of this stream
  bool stepped_ = false;      // since load
  uint32_t canary_seed_ = 0;  // of the last step; differs in each
};

}  // namespace hil

#endif  // RUNNER_LOADED_MODEL_H_
