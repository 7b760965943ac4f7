// Runs models with ESP-DL.
#ifndef HIL_SERVE_ESPDL_RUNNER_H_
#define HIL_SERVE_ESPDL_RUNNER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runner/model_runner.h"
#include "runner/platform.h"

namespace dl {
class TensorBase;
}  // namespace dl

namespace hil {

// Latencies are those of the inference alone; while tensors are captured they include the copying.
class EspDlRunner final : public ModelRunner {
 public:
  explicit EspDlRunner(BufferPool* pool);
  ~EspDlRunner() override;

  Status Load(std::string_view name, Bytes model, uint32_t* id) override;
  void Unload(uint32_t id) override;
  uint32_t Count(uint32_t id, TensorKind kind) override;
  Status Describe(uint32_t id, TensorKind kind, uint32_t index, TensorInfo* info) override;
  Status Find(uint32_t id, std::string_view name, uint32_t* index) override;
  Status Reset(uint32_t id) override;
  Status Retain(uint32_t id, bool on) override;
  Status Run(uint32_t id, Span<const Bytes> inputs, Span<const MutableBytes> outputs,
             Span<const Capture> captures, uint32_t* latency_us) override;
  Status Read(uint32_t id, uint32_t index, uint32_t offset, MutableBytes out) override;
  MemoryInfo Memory() override;
  QueryUsageReply Usage() override;
  uint16_t RestoreVectorUnit() override;

 private:
  // A node's output in the built model; ESP-DL owns it.
  struct Tensor {
    std::string name;
    dl::TensorBase* tensor = nullptr;
  };
  struct Loaded;

  Status CollectNodes(Loaded* loaded);
  static void* OutputOf(const Loaded& loaded, size_t index);
  void RunCapturing(Loaded* loaded, Span<const Bytes> inputs, Span<const Capture> captures,
                    uint32_t* latency_us);

  BufferPool* pool_;
  uint32_t last_id_ = 0;
  uint32_t load_us_ = 0;  // of the model that was loaded last
  std::map<uint32_t, std::unique_ptr<Loaded>> loaded_;
};

}  // namespace hil

#endif  // HIL_SERVE_ESPDL_RUNNER_H_
