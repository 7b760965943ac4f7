#include "espdl_runner.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "device_facts.h"
#include "dl_model_base.hpp"
#include "esp_timer.h"
#include "espdl_stream/dl_engine.h"
#include "sdkconfig.h"

namespace hil {
namespace {

#if CONFIG_HIL_DUAL_CORE
constexpr bool kDualCore = true;
#else
constexpr bool kDualCore = false;
#endif

// A tensor over memory that is not its own, described like `like`.
std::unique_ptr<dl::TensorBase> View(dl::TensorBase* like, const uint8_t* data) {
  return std::make_unique<dl::TensorBase>(like->get_shape(), data, like->get_exponent(),
                                          like->get_dtype(), false);
}

uint32_t BytesOf(dl::TensorBase* tensor) { return static_cast<uint32_t>(tensor->get_bytes()); }

// Of Load; a step cannot fail.
Status StatusOf(espdl::Error error) {
  if (error == espdl::Error::kNone) {
    return Ok();
  }
  const bool memory = error == espdl::Error::kNoMemory;
  return Status(memory ? Code::kOutOfMemory : Code::kLoadFailed, Text(error));
}

constexpr espdl::Side SideOf(TensorKind kind) {
  return kind == TensorKind::kInput ? espdl::Side::kInput : espdl::Side::kOutput;
}

}  // namespace

struct EspDlRunner::Loaded {
  espdl::DlEngine engine;  // what a product runs, too
  std::vector<Tensor> nodes;
  std::vector<PoolBuffer> retained;  // one per node output, or none
};

// The unit's modes at reset are not ESP-DL's, which is nothing to report.
EspDlRunner::EspDlRunner(BufferPool* pool) : pool_(pool) { espdl::RestoreVectorUnit(); }

EspDlRunner::~EspDlRunner() = default;

Status EspDlRunner::Load(std::string_view, Bytes model, uint32_t* id) {
  WatchLeastHeap();
  const int64_t start_us = esp_timer_get_time();
  auto loaded = std::make_unique<Loaded>();
  loaded->engine.set_dual_core(kDualCore);
  HIL_RETURN_IF_ERROR(
      StatusOf(loaded->engine.LoadAddress(model.data(), CONFIG_HIL_INTERNAL_KB * 1024)));
  load_us_ = static_cast<uint32_t>(esp_timer_get_time() - start_us);
  HIL_RETURN_IF_ERROR(CollectNodes(loaded.get()));
  *id = ++last_id_;
  loaded_[*id] = std::move(loaded);
  return Ok();
}

// Lists the node outputs in the file's order.
Status EspDlRunner::CollectNodes(Loaded* loaded) {
  dl::Model& model = *loaded->engine.model();
  fbs::FbsModel* file = model.get_fbs_model();
  file->load_map();
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
  for (const Tensor& node : loaded->nodes) {
    if (node.tensor == nullptr || node.tensor->get_element_ptr() == nullptr) {
      return StatusOf(espdl::Error::kNoMemory);
    }
    espdl::Tensor unused;
    HIL_RETURN_IF_ERROR(StatusOf(espdl::DescribeTensor(node.tensor, &unused)));
  }
  return Ok();
}

void EspDlRunner::Unload(uint32_t id) { loaded_.erase(id); }

uint32_t EspDlRunner::Count(uint32_t id, TensorKind kind) {
  Loaded& loaded = *loaded_[id];
  return static_cast<uint32_t>(kind == TensorKind::kNodeOutput ? loaded.nodes.size()
                                                               : loaded.engine.Count(SideOf(kind)));
}

Status EspDlRunner::Describe(uint32_t id, TensorKind kind, uint32_t index, TensorInfo* info) {
  Loaded& loaded = *loaded_[id];
  espdl::Tensor tensor;
  if (kind == TensorKind::kNodeOutput) {
    tensor.name = loaded.nodes[index].name;
    HIL_RETURN_IF_ERROR(StatusOf(espdl::DescribeTensor(loaded.nodes[index].tensor, &tensor)));
  } else {
    HIL_RETURN_IF_ERROR(StatusOf(loaded.engine.Describe(SideOf(kind), index, &tensor)));
  }
  info->name = tensor.name;
  info->dtype = static_cast<uint8_t>(tensor.type);
  info->exponent = tensor.exponent;
  info->flags = tensor.per_channel ? kTensorPerChannel : uint16_t{0};
  info->bytes = tensor.bytes;
  info->rank = tensor.rank;
  std::copy(tensor.dims, tensor.dims + tensor.rank, info->dims);
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

Status EspDlRunner::Reset(uint32_t id) { return StatusOf(loaded_[id]->engine.Reset()); }

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
    std::memcpy(OutputOf(loaded, index), outputs[index].data(), outputs[index].size());
  }
  if (captures.empty() && loaded.retained.empty()) {
    HIL_RETURN_IF_ERROR(StatusOf(loaded.engine.Run(inputs, outputs)));
    *latency_us = loaded.engine.latency_us();
    return Ok();
  }
  RunCapturing(&loaded, inputs, captures, latency_us);
  for (size_t index = 0; index < outputs.size(); ++index) {
    std::memcpy(outputs[index].data(), OutputOf(loaded, index), outputs[index].size());
  }
  return Ok();
}

void* EspDlRunner::OutputOf(const Loaded& loaded, size_t index) {
  return loaded.engine.tensor(espdl::Side::kOutput, index)->get_element_ptr();
}

// ESP-DL reuses a node's memory in the same step, so it copies the wanted tensors out as they
// appear.
void EspDlRunner::RunCapturing(Loaded* loaded, Span<const Bytes> inputs,
                               Span<const Capture> captures, uint32_t* latency_us) {
  std::vector<std::unique_ptr<dl::TensorBase>> views;
  const auto view = [&views](dl::TensorBase* like, const uint8_t* data) {
    views.push_back(View(like, data));
    return views.back().get();
  };
  const espdl::DlEngine& engine = loaded->engine;
  std::map<std::string, dl::TensorBase*> given;
  for (size_t index = 0; index < inputs.size(); ++index) {
    given[engine.name(espdl::Side::kInput, index)] =
        view(engine.tensor(espdl::Side::kInput, index), inputs[index].data());
  }
  // A name is copied once; whoever else wants it copies it from there.
  std::map<std::string, dl::TensorBase*> wanted;
  for (size_t index = 0; index < loaded->retained.size(); ++index) {
    const Tensor& node = loaded->nodes[index];
    wanted[node.name] = view(node.tensor, loaded->retained[index].bytes().data());
  }
  for (const Capture& capture : captures) {
    const Tensor& node = loaded->nodes[capture.index];
    if (wanted.count(node.name) == 0) {
      wanted[node.name] = view(node.tensor, capture.data.data());
    }
  }
  const int64_t start_us = esp_timer_get_time();
  engine.model()->run(given, engine.mode(), wanted);
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

QueryUsageReply EspDlRunner::Usage() {
  QueryUsageReply usage = ReadLeast();
  usage.load_us = load_us_;
  return usage;
}

// This is the core of the task that runs models; the other one, which a dual-core build uses
// besides, cannot be reached from here.
uint16_t EspDlRunner::RestoreVectorUnit() {
  const uint8_t found = espdl::RestoreVectorUnit();
  return static_cast<uint16_t>(((found & espdl::kMisaligned) != 0 ? kChunkMisaligned : 0) |
                               ((found & espdl::kRoundingLost) != 0 ? kChunkRoundingLost : 0));
}

}  // namespace hil
