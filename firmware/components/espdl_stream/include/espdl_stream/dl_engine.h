// Runs a model with ESP-DL. ESP-IDF only; the rest of this component compiles anywhere.
#ifndef ESPDL_STREAM_DL_ENGINE_H_
#define ESPDL_STREAM_DL_ENGINE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dl_model_base.hpp"
#include "espdl_stream/engine.h"

namespace espdl {

// What RestoreVectorUnit found changed.
inline constexpr uint8_t kRoundingLost = 1;
inline constexpr uint8_t kMisaligned = 2;

// Puts back what the vector unit's kernels rely on and other code of this core may have changed
// (esp-nn and esp-dsp leave the P4's CFG as their own kernels want it, and FreeRTOS does not save
// it). Returns what it found; 0 on chips without such a mode.
uint8_t RestoreVectorUnit();

// A model loaded once. Internal memory is a limit in bytes for tensors, faster than PSRAM; results
// are the same.
class DlEngine final : public Engine {
 public:
  // From .espdl bytes aligned to 16 that stay where they are, such as an embedded file.
  Error LoadAddress(const void* espdl, size_t internal_bytes = 0);
  // From a package in a flash partition.
  Error LoadPartition(const char* label, const char* name, size_t internal_bytes = 0);
  // From a file of a mounted file system.
  Error LoadFile(const char* path, size_t internal_bytes = 0);

  // Whether both cores run the operators that can be split; off at first.
  void set_dual_core(bool on) {
    mode_ = on ? dl::RUNTIME_MODE_MULTI_CORE : dl::RUNTIME_MODE_SINGLE_CORE;
  }

  size_t Count(Side side) override { return Of(side).size(); }
  Error Describe(Side side, size_t index, Tensor* tensor) override;
  Error Reset() override;
  // Allocates nothing besides what ESP-DL's own operators do.
  Error Run(Span<const Bytes> inputs, Span<const MutableBytes> outputs) override;

  // Of the last step's inference alone.
  uint32_t latency_us() const { return latency_us_; }

  // For who wants more of ESP-DL than this class gives; null before a model is loaded.
  dl::Model* model() const { return model_.get(); }
  dl::runtime_mode_t mode() const { return mode_; }
  const std::string& name(Side side, size_t index) const { return Of(side)[index].name; }
  dl::TensorBase* tensor(Side side, size_t index) const { return Of(side)[index].tensor; }

 private:
  // ESP-DL owns the tensor.
  struct Entry {
    std::string name;
    dl::TensorBase* tensor = nullptr;
  };

  Error Adopt(std::unique_ptr<dl::Model> model);
  static Error Check(const std::vector<Entry>& entries);
  const std::vector<Entry>& Of(Side side) const {
    return side == Side::kInput ? inputs_ : outputs_;
  }

  std::unique_ptr<dl::Model> model_;
  std::vector<Entry> inputs_;
  std::vector<Entry> outputs_;
  dl::runtime_mode_t mode_ = dl::RUNTIME_MODE_SINGLE_CORE;
  uint32_t latency_us_ = 0;
};

// A tensor of ESP-DL, described; fails on more dimensions than kMaxRank.
Error DescribeTensor(dl::TensorBase* from, Tensor* to);

}  // namespace espdl

#endif  // ESPDL_STREAM_DL_ENGINE_H_
