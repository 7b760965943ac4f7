#include "espdl_runner.h"

#include <cstring>
#include <utility>

#include "device_facts.h"
#include "dl_model_base.hpp"
#include "dl_tool.hpp"
#include "esp_timer.h"
#include "sdkconfig.h"
#include "wire/endian.h"

namespace hil {
namespace {

constexpr uint32_t kModeAt = 4;  // of an EDL header: 0 plain, 1 encrypted
#if CONFIG_HIL_DUAL_CORE
constexpr dl::runtime_mode_t kMode = dl::RUNTIME_MODE_MULTI_CORE;
#else
constexpr dl::runtime_mode_t kMode = dl::RUNTIME_MODE_SINGLE_CORE;
#endif

// A tensor over memory that is not its own, described like `like`.
std::unique_ptr<dl::TensorBase> View(dl::TensorBase* like, const uint8_t* data) {
  return std::make_unique<dl::TensorBase>(like->get_shape(), data, like->get_exponent(),
                                          like->get_dtype(), false);
}

uint32_t BytesOf(dl::TensorBase* tensor) { return static_cast<uint32_t>(tensor->get_bytes()); }

}  // namespace

struct EspDlRunner::Loaded {
  std::unique_ptr<dl::Model> model;
  std::vector<Tensor> inputs;
  std::vector<Tensor> outputs;
  std::vector<Tensor> nodes;
  std::vector<PoolBuffer> retained;  // one per node output, or none

  std::vector<Tensor>& Of(TensorKind kind) {
    return kind == TensorKind::kInput ? inputs : kind == TensorKind::kOutput ? outputs : nodes;
  }
};

// The unit's modes at reset are not ESP-DL's, which is nothing to report.
EspDlRunner::EspDlRunner(BufferPool* pool) : pool_(pool) { RestoreVectorUnit(); }

EspDlRunner::~EspDlRunner() = default;

Status EspDlRunner::Load(std::string_view, Bytes model, uint32_t* id) {
  if (LoadU32(model.data() + kModeAt) != 0) {
    return Status(Code::kLoadFailed, "the model is encrypted; flash or upload it in plain");
  }
  auto loaded = std::make_unique<Loaded>();
  // The location only says that the first argument is an address; PSRAM is as good.
  loaded->model = std::make_unique<dl::Model>(reinterpret_cast<const char*>(model.data()),
                                              fbs::MODEL_LOCATION_IN_FLASH_RODATA,
                                              CONFIG_HIL_INTERNAL_KB * 1024);
  HIL_RETURN_IF_ERROR(Collect(loaded.get()));
  *id = ++last_id_;
  loaded_[*id] = std::move(loaded);
  return Ok();
}

// Lists the tensors in the file's order; ESP-DL's own maps are sorted by name.
Status EspDlRunner::Collect(Loaded* loaded) {
  dl::Model& model = *loaded->model;
  fbs::FbsModel* file = model.get_fbs_model();
  if (file == nullptr) {
    return Status(Code::kLoadFailed, "ESP-DL found no model in these bytes; see the console");
  }
  if (model.get_outputs().empty()) {
    return Status(Code::kLoadFailed, "ESP-DL does not support an operator; see the console");
  }
  file->load_map();
  for (const std::string& name : file->get_graph_inputs()) {
    loaded->inputs.push_back({name, model.get_intermediate(name)});
  }
  for (const std::string& name : file->get_graph_outputs()) {
    loaded->outputs.push_back({name, model.get_intermediate(name)});
  }
  std::vector<std::string> node_inputs;
  std::vector<std::string> node_outputs;
  for (const std::string& node : file->topological_sort()) {
    file->get_operation_inputs_and_outputs(node, node_inputs, node_outputs);
    for (const std::string& name : node_outputs) {
      if (!name.empty()) {
        loaded->nodes.push_back({name, model.get_intermediate(name)});
      }
    }
  }
  file->clear_map();
  for (const TensorKind kind : {TensorKind::kInput, TensorKind::kOutput, TensorKind::kNodeOutput}) {
    for (const Tensor& tensor : loaded->Of(kind)) {
      if (tensor.tensor == nullptr || tensor.tensor->get_element_ptr() == nullptr) {
        return Status(Code::kOutOfMemory, "ESP-DL had no memory for the model's tensors");
      }
      if (tensor.tensor->get_shape().size() > kMaxRank) {
        return Status(Code::kLoadFailed, "a tensor has more than 8 dimensions");
      }
    }
  }
  return Ok();
}

void EspDlRunner::Unload(uint32_t id) { loaded_.erase(id); }

uint32_t EspDlRunner::Count(uint32_t id, TensorKind kind) {
  return static_cast<uint32_t>(loaded_[id]->Of(kind).size());
}

Status EspDlRunner::Describe(uint32_t id, TensorKind kind, uint32_t index, TensorInfo* info) {
  const Tensor& entry = loaded_[id]->Of(kind)[index];
  const std::vector<int> shape = entry.tensor->get_shape();
  const bool per_channel = entry.tensor->exponent.is_per_channel();
  info->name = entry.name;
  info->dtype = static_cast<uint8_t>(entry.tensor->get_dtype());
  info->exponent = static_cast<int16_t>(per_channel ? 0 : entry.tensor->get_exponent());
  info->flags = per_channel ? kTensorPerChannel : uint16_t{0};
  info->bytes = BytesOf(entry.tensor);
  info->rank = static_cast<uint8_t>(shape.size());
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    info->dims[axis] = static_cast<uint32_t>(shape[axis]);
  }
  return Ok();
}

Status EspDlRunner::Find(uint32_t id, std::string_view name, uint32_t* index) {
  const std::vector<Tensor>& nodes = loaded_[id]->nodes;
  for (*index = 0; *index < nodes.size(); ++*index) {
    if (nodes[*index].name == name) {
      return Ok();
    }
  }
  return Status(Code::kNoSuchTensor, "the model has no tensor of that name");
}

Status EspDlRunner::Reset(uint32_t id) {
  loaded_[id]->model->reset();
  return Ok();
}

Status EspDlRunner::Retain(uint32_t id, bool on) {
  Loaded& loaded = *loaded_[id];
  loaded.retained.clear();
  if (!on) {
    return Ok();
  }
  for (const Tensor& node : loaded.nodes) {
    loaded.retained.emplace_back(pool_, BytesOf(node.tensor));
    if (loaded.retained.back().bytes().empty()) {
      loaded.retained.clear();
      return Status(Code::kOutOfMemory, "no memory to retain every node output");
    }
  }
  return Ok();
}

Status EspDlRunner::Run(uint32_t id, Span<const Bytes> inputs, Span<const MutableBytes> outputs,
                        Span<const Capture> captures, uint32_t* latency_us) {
  Loaded& loaded = *loaded_[id];
  // Canary first: an output may share its memory with an input.
  for (size_t index = 0; index < outputs.size(); ++index) {
    std::memcpy(loaded.outputs[index].tensor->get_element_ptr(), outputs[index].data(),
                outputs[index].size());
  }
  if (captures.empty() && loaded.retained.empty()) {
    for (size_t index = 0; index < inputs.size(); ++index) {
      std::memcpy(loaded.inputs[index].tensor->get_element_ptr(), inputs[index].data(),
                  inputs[index].size());
    }
    const int64_t start_us = esp_timer_get_time();
    loaded.model->run(kMode);
    *latency_us = static_cast<uint32_t>(esp_timer_get_time() - start_us);
  } else {
    RunCapturing(&loaded, inputs, captures, latency_us);
  }
  for (size_t index = 0; index < outputs.size(); ++index) {
    std::memcpy(outputs[index].data(), loaded.outputs[index].tensor->get_element_ptr(),
                outputs[index].size());
  }
  return Ok();
}

// ESP-DL reuses a node's memory in the same step, so it copies the wanted tensors out as they
// appear.
void EspDlRunner::RunCapturing(Loaded* loaded, Span<const Bytes> inputs,
                               Span<const Capture> captures, uint32_t* latency_us) {
  std::vector<std::unique_ptr<dl::TensorBase>> views;
  const auto view = [&views](const Tensor& entry, const uint8_t* data) {
    views.push_back(View(entry.tensor, data));
    return views.back().get();
  };
  std::map<std::string, dl::TensorBase*> given;
  for (size_t index = 0; index < inputs.size(); ++index) {
    given[loaded->inputs[index].name] = view(loaded->inputs[index], inputs[index].data());
  }
  // A name is copied once; whoever else wants it copies it from there.
  std::map<std::string, dl::TensorBase*> wanted;
  for (size_t index = 0; index < loaded->retained.size(); ++index) {
    const Tensor& node = loaded->nodes[index];
    wanted[node.name] = view(node, loaded->retained[index].bytes().data());
  }
  for (const Capture& capture : captures) {
    const Tensor& node = loaded->nodes[capture.index];
    if (wanted.count(node.name) == 0) {
      wanted[node.name] = view(node, capture.data.data());
    }
  }
  const int64_t start_us = esp_timer_get_time();
  loaded->model->run(given, kMode, wanted);
  *latency_us = static_cast<uint32_t>(esp_timer_get_time() - start_us);
  for (const Capture& capture : captures) {
    const void* source = wanted[loaded->nodes[capture.index].name]->get_element_ptr();
    if (source != capture.data.data()) {
      std::memcpy(capture.data.data(), source, capture.data.size());
    }
  }
}

Status EspDlRunner::Read(uint32_t id, uint32_t index, uint32_t offset, MutableBytes out) {
  const Loaded& loaded = *loaded_[id];
  if (loaded.retained.empty()) {
    return Status(Code::kNotRetained, "watch the tensor, or start the stream with retain");
  }
  std::memcpy(out.data(), loaded.retained[index].bytes().data() + offset, out.size());
  return Ok();
}

MemoryInfo EspDlRunner::Memory() { return ReadMemory(); }

// The P4's CFG belongs to a core, not to a task: FreeRTOS neither saves nor restores it, and esp-nn
// and esp-dsp leave it as their kernels want it. This is the core of the task that runs models; the
// other one, which a dual-core build uses besides, cannot be reached from here.
uint16_t EspDlRunner::RestoreVectorUnit() {
  uint16_t found = 0;
#if CONFIG_IDF_TARGET_ESP32P4
  constexpr uint32_t kMisaligned = 0x3;  // bit 0 stores, bit 1 loads: dl_esp32p4_cfg_misalign
  constexpr uint32_t kRoundAt = 4;       // bits 4 to 7: dl_esp32p4_cfg_round
  const uint32_t config = dl_esp32p4_get_cfg();
  if ((config & kMisaligned) != 0) {
    dl_esp32p4_cfg_misalign(FORCE_ALIGN, FORCE_ALIGN);
    found |= kChunkMisaligned;
  }
  if (((config >> kRoundAt) & 0xF) != ROUND_MODE_HALF_EVEN) {
    dl_esp32p4_cfg_round(ROUND_MODE_HALF_EVEN);
    found |= kChunkRoundingLost;
  }
#endif
  return found;
}

}  // namespace hil
