#include "espdl_stream/dl_engine.h"

#include <cstring>
#include <utility>

#include "dl_tool.hpp"
#include "esp_timer.h"
#include "sdkconfig.h"

namespace espdl {
namespace {

constexpr size_t kModeAt = 4;  // of an EDL header: 0 plain, 1 encrypted

}  // namespace

uint8_t RestoreVectorUnit() {
  uint8_t found = 0;
#if CONFIG_IDF_TARGET_ESP32P4
  constexpr uint32_t kMisalignedBits = 0x3;  // 0 stores, 1 loads: dl_esp32p4_cfg_misalign
  constexpr uint32_t kRoundAt = 4;           // bits 4 to 7: dl_esp32p4_cfg_round
  const uint32_t config = dl_esp32p4_get_cfg();
  if ((config & kMisalignedBits) != 0) {
    dl_esp32p4_cfg_misalign(FORCE_ALIGN, FORCE_ALIGN);
    found = static_cast<uint8_t>(found | kMisaligned);
  }
  if (((config >> kRoundAt) & 0xF) != ROUND_MODE_HALF_EVEN) {
    dl_esp32p4_cfg_round(ROUND_MODE_HALF_EVEN);
    found = static_cast<uint8_t>(found | kRoundingLost);
  }
#endif
  return found;
}

Error DescribeTensor(dl::TensorBase* from, Tensor* to) {
  const std::vector<int> shape = from->get_shape();
  if (shape.size() > kMaxRank) {
    return Error::kRank;
  }
  to->type = static_cast<Type>(from->get_dtype());
  to->per_channel = from->exponent.is_per_channel();
  to->exponent = static_cast<int16_t>(to->per_channel ? 0 : from->get_exponent());
  to->bytes = static_cast<uint32_t>(from->get_bytes());
  to->rank = static_cast<uint8_t>(shape.size());
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    to->dims[axis] = static_cast<uint32_t>(shape[axis]);
  }
  return Error::kNone;
}

Error DlEngine::LoadAddress(const void* espdl, size_t internal_bytes) {
  uint32_t mode = 0;
  std::memcpy(&mode, static_cast<const uint8_t*>(espdl) + kModeAt, sizeof mode);
  if (mode != 0) {
    return Error::kEncrypted;
  }
  // The location only says that the first argument is an address; PSRAM is as good.
  return Adopt(std::make_unique<dl::Model>(static_cast<const char*>(espdl),
                                           fbs::MODEL_LOCATION_IN_FLASH_RODATA,
                                           static_cast<int>(internal_bytes)));
}

Error DlEngine::LoadPartition(const char* label, const char* name, size_t internal_bytes) {
  return Adopt(std::make_unique<dl::Model>(label, name, fbs::MODEL_LOCATION_IN_FLASH_PARTITION,
                                           static_cast<int>(internal_bytes)));
}

Error DlEngine::LoadFile(const char* path, size_t internal_bytes) {
  return Adopt(std::make_unique<dl::Model>(path, fbs::MODEL_LOCATION_IN_SDCARD,
                                           static_cast<int>(internal_bytes)));
}

// Lists inputs and outputs in the file's order; ESP-DL's own maps are sorted by name.
Error DlEngine::Adopt(std::unique_ptr<dl::Model> model) {
  fbs::FbsModel* file = model->get_fbs_model();
  if (file == nullptr) {
    return Error::kNoModel;
  }
  if (model->get_outputs().empty()) {
    return Error::kUnsupported;
  }
  inputs_.clear();
  outputs_.clear();
  file->load_map();
  for (const std::string& name : file->get_graph_inputs()) {
    inputs_.push_back({name, model->get_intermediate(name)});
  }
  for (const std::string& name : file->get_graph_outputs()) {
    outputs_.push_back({name, model->get_intermediate(name)});
  }
  file->clear_map();
  ESPDL_RETURN_IF_ERROR(Check(inputs_));
  ESPDL_RETURN_IF_ERROR(Check(outputs_));
  model_ = std::move(model);
  return Error::kNone;
}

Error DlEngine::Check(const std::vector<Entry>& entries) {
  for (const Entry& entry : entries) {
    if (entry.tensor == nullptr || entry.tensor->get_element_ptr() == nullptr) {
      return Error::kNoMemory;
    }
    Tensor unused;
    ESPDL_RETURN_IF_ERROR(DescribeTensor(entry.tensor, &unused));
  }
  return Error::kNone;
}

Error DlEngine::Describe(Side side, size_t index, Tensor* tensor) {
  const Entry& entry = Of(side)[index];
  tensor->name = entry.name;
  return DescribeTensor(entry.tensor, tensor);
}

Error DlEngine::Reset() {
  model_->reset();
  return Error::kNone;
}

Error DlEngine::Run(Span<const Bytes> inputs, Span<const MutableBytes> outputs) {
  for (size_t index = 0; index < inputs.size(); ++index) {
    std::memcpy(inputs_[index].tensor->get_element_ptr(), inputs[index].data(),
                inputs[index].size());
  }
  RestoreVectorUnit();
  const int64_t start_us = esp_timer_get_time();
  model_->run(mode_);
  latency_us_ = static_cast<uint32_t>(esp_timer_get_time() - start_us);
  for (size_t index = 0; index < outputs.size(); ++index) {
    std::memcpy(outputs[index].data(), outputs_[index].tensor->get_element_ptr(),
                outputs[index].size());
  }
  return Error::kNone;
}

}  // namespace espdl
