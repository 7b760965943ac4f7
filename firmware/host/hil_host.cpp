// hil_host.h over the firmware core: C callbacks to the core's interfaces.
#include "hil_host.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "runner/model_store.h"
#include "runner/session.h"

namespace {

using hil::Bytes;
using hil::Capture;
using hil::Code;
using hil::MutableBytes;
using hil::Span;
using hil::Status;
using hil::TensorInfo;
using hil::TensorKind;

constexpr size_t kReasonBytes = 512;
constexpr size_t kFactBytes = 63;  // longest string of hil_config

// What the C header says again of the protocol.
static_assert(HIL_MAX_NAME == hil::kMaxName && HIL_MAX_RANK == hil::kMaxRank);
static_assert(HIL_INPUT == static_cast<int>(TensorKind::kInput) &&
              HIL_OUTPUT == static_cast<int>(TensorKind::kOutput) &&
              HIL_NODE_OUTPUT == static_cast<int>(TensorKind::kNodeOutput));
static_assert(HIL_NO_SUCH_TENSOR == static_cast<int>(Code::kNoSuchTensor) &&
              HIL_OUT_OF_MEMORY == static_cast<int>(Code::kOutOfMemory) &&
              HIL_LOAD_FAILED == static_cast<int>(Code::kLoadFailed) &&
              HIL_RUN_FAILED == static_cast<int>(Code::kRunFailed) &&
              HIL_NOT_RETAINED == static_cast<int>(Code::kNotRetained));
static_assert(HIL_TENSOR_PER_CHANNEL == hil::kTensorPerChannel);

// Receive buffer and queue of frames to send.
class QueueStream final : public hil::ByteStream {
 public:
  explicit QueueStream(size_t capacity) : capacity_(capacity) {}

  size_t Feed(const uint8_t* data, size_t size) {
    const size_t taken = std::min(size, capacity_ - received_.size());
    received_.insert(received_.end(), data, data + taken);
    return taken;
  }

  size_t Read(MutableBytes out) override {
    const size_t size = std::min(out.size(), received_.size());
    const auto end = received_.begin() + static_cast<std::ptrdiff_t>(size);
    std::copy(received_.begin(), end, out.begin());
    received_.erase(received_.begin(), end);
    return size;
  }

  void Write(Bytes frame) override { frames_.emplace_back(frame.begin(), frame.end()); }

  size_t Drain(uint8_t* data, size_t capacity) {
    if (frames_.empty() || frames_.front().size() > capacity) {
      return 0;
    }
    const size_t size = frames_.front().size();
    std::memcpy(data, frames_.front().data(), size);
    frames_.pop_front();
    return size;
  }

 private:
  size_t capacity_;
  std::deque<uint8_t> received_;
  std::deque<std::vector<uint8_t>> frames_;
};

class HeapPool final : public hil::BufferPool {
 public:
  MutableBytes Acquire(size_t size) override {
    void* memory = ::operator new(size, kAlignment, std::nothrow);
    return memory == nullptr ? MutableBytes() : MutableBytes(static_cast<uint8_t*>(memory), size);
  }
  void Release(MutableBytes buffer) override { ::operator delete(buffer.data(), kAlignment); }

 private:
  static constexpr std::align_val_t kAlignment{16};
};

// Runs models through the callbacks.
class CallbackRunner final : public hil::ModelRunner {
 public:
  explicit CallbackRunner(const hil_runner& callbacks) : callbacks_(callbacks) {}

  Status Load(std::string_view name, Bytes model, uint32_t* id) override {
    return Check(callbacks_.load(callbacks_.context, name.data(),
                                 static_cast<uint32_t>(name.size()), model.data(),
                                 static_cast<uint32_t>(model.size()), id, Reason()));
  }

  void Unload(uint32_t id) override { callbacks_.unload(callbacks_.context, id); }

  uint32_t Count(uint32_t id, TensorKind kind) override {
    return callbacks_.count(callbacks_.context, id, static_cast<uint32_t>(kind));
  }

  Status Describe(uint32_t id, TensorKind kind, uint32_t index, TensorInfo* info) override {
    tensor_ = hil_tensor{};
    Reason();
    const Status status = Check(
        callbacks_.describe(callbacks_.context, id, static_cast<uint32_t>(kind), index, &tensor_));
    if (!status.ok()) {
      return status;
    }
    if (tensor_.name_size > hil::kMaxName || tensor_.rank > hil::kMaxRank) {
      return Status(Code::kInternal, "the runner described a tensor out of limits");
    }
    info->name = std::string_view(tensor_.name, tensor_.name_size);
    info->dtype = tensor_.dtype;
    info->exponent = tensor_.exponent;
    info->flags = tensor_.flags;
    info->bytes = tensor_.bytes;
    info->rank = tensor_.rank;
    std::copy(tensor_.dims, tensor_.dims + tensor_.rank, info->dims);
    return hil::Ok();
  }

  Status Find(uint32_t id, std::string_view name, uint32_t* index) override {
    Reason();
    return Check(callbacks_.find(callbacks_.context, id, name.data(),
                                 static_cast<uint32_t>(name.size()), index));
  }

  Status Reset(uint32_t id) override {
    return Check(callbacks_.reset(callbacks_.context, id, Reason()));
  }

  Status Retain(uint32_t id, bool on) override {
    return Check(callbacks_.retain(callbacks_.context, id, on ? 1 : 0, Reason()));
  }

  Status Run(uint32_t id, Span<const Bytes> inputs, Span<const MutableBytes> outputs,
             Span<const Capture> captures, uint32_t* latency_us) override {
    inputs_.clear();
    for (const Bytes& input : inputs) {
      inputs_.push_back({input.data(), static_cast<uint32_t>(input.size())});
    }
    outputs_.clear();
    for (const MutableBytes& output : outputs) {
      outputs_.push_back({output.data(), static_cast<uint32_t>(output.size())});
    }
    captures_.clear();
    for (const Capture& capture : captures) {
      captures_.push_back(
          {capture.index, {capture.data.data(), static_cast<uint32_t>(capture.data.size())}});
    }
    const uint64_t start_us = NowUs();
    const int32_t code = callbacks_.run(callbacks_.context, id, inputs_.data(),
                                        static_cast<uint32_t>(inputs_.size()), outputs_.data(),
                                        static_cast<uint32_t>(outputs_.size()), captures_.data(),
                                        static_cast<uint32_t>(captures_.size()), Reason());
    *latency_us = static_cast<uint32_t>(NowUs() - start_us);
    return Check(code);
  }

  uint16_t RestoreVectorUnit() override {
    static_assert(HIL_ROUNDING_LOST == hil::kChunkRoundingLost);
    static_assert(HIL_MISALIGNED == hil::kChunkMisaligned);
    if (callbacks_.restore_vector_unit == nullptr) {
      return 0;
    }
    return static_cast<uint16_t>(callbacks_.restore_vector_unit(callbacks_.context) &
                                 (HIL_ROUNDING_LOST | HIL_MISALIGNED));
  }

  Status Read(uint32_t id, uint32_t index, uint32_t offset, MutableBytes out) override {
    Reason();
    return Check(callbacks_.read(callbacks_.context, id, index, offset, out.data(),
                                 static_cast<uint32_t>(out.size())));
  }

  hil::MemoryInfo Memory() override {
    hil_memory memory{};
    callbacks_.memory(callbacks_.context, &memory);
    hil::MemoryInfo info;
    info.internal_free = memory.internal_free;
    info.internal_total = memory.internal_total;
    info.internal_largest = memory.internal_largest;
    info.psram_free = memory.psram_free;
    info.psram_total = memory.psram_total;
    info.psram_largest = memory.psram_largest;
    return info;
  }

 private:
  uint64_t NowUs() const {
    return callbacks_.now_us == nullptr ? 0 : callbacks_.now_us(callbacks_.context);
  }

  // An empty reason for the next callback to fill.
  hil_reason Reason() {
    reason_[0] = '\0';
    return hil_reason{reason_, sizeof reason_};
  }

  Status Check(int32_t code) {
    if (code == HIL_OK) {
      return hil::Ok();
    }
    reason_[sizeof reason_ - 1] = '\0';
    const bool known = code > 0 && code <= static_cast<int32_t>(Code::kInternal);
    const std::string_view text = reason_[0] != '\0' ? reason_ : "the model runner failed";
    return Status(known ? static_cast<Code>(code) : Code::kInternal, text);
  }

  hil_runner callbacks_;
  hil_tensor tensor_{};
  char reason_[kReasonBytes] = {};
  std::vector<hil_bytes> inputs_;
  std::vector<hil_buffer> outputs_;
  std::vector<hil_capture> captures_;
};

class CallbackSystem final : public hil::System {
 public:
  explicit CallbackSystem(const hil_runner& callbacks) : callbacks_(callbacks) {}
  void Reboot() override {
    if (callbacks_.reboot != nullptr) {
      callbacks_.reboot(callbacks_.context);
    }
  }
  void SetBaud(uint32_t baud) override { callbacks_.set_baud(callbacks_.context, baud); }
  uint32_t NowMs() override {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return static_cast<uint32_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
  }

 private:
  hil_runner callbacks_;
};

// Why a configuration is refused; null when it is fine.
const char* Refuse(const hil_config& config, const hil_runner& runner) {
  if (config.abi_version != HIL_ABI_VERSION) {
    return "abi_version is not that of this library";
  }
  for (const char* text :
       {config.target, config.idf_version, config.espdl_version, config.app_version}) {
    if (text == nullptr || std::strlen(text) > kFactBytes) {
      return "a string is missing or longer than 63 bytes";
    }
  }
  if (config.max_payload < hil::kMinPayload || config.max_payload > hil::kMaxPayload) {
    return "max_payload is outside 1024..65536";
  }
  if (config.window < 1 || config.window > hil::kMaxWindow) {
    return "window is outside 1..64";
  }
  if (config.max_models < 1 || config.max_models > hil::kMaxModels) {
    return "max_models is outside 1..8";
  }
  if (config.max_watch < 1 || config.max_watch > hil::kMaxWatch) {
    return "max_watch is outside 1..256";
  }
  if ((config.models == nullptr) != (config.models_size == 0)) {
    return "models and models_size disagree";
  }
  const bool complete =
      runner.load != nullptr && runner.unload != nullptr && runner.count != nullptr &&
      runner.describe != nullptr && runner.find != nullptr && runner.reset != nullptr &&
      runner.retain != nullptr && runner.run != nullptr && runner.read != nullptr &&
      runner.memory != nullptr && (runner.set_baud != nullptr || config.max_baud == 0);
  return complete ? nullptr : "a required callback is missing";
}

hil::Limits MakeLimits(const hil_config& config) {
  hil::Limits limits;
  limits.max_payload = config.max_payload;
  limits.max_upload = config.max_upload;
  limits.max_watch = static_cast<uint16_t>(config.max_watch);
  limits.window = static_cast<uint8_t>(config.window);
  limits.max_models = static_cast<uint8_t>(config.max_models);
  return limits;
}

}  // namespace

struct hil_core {
  hil_core(const hil_config& config, const hil_runner& callbacks)
      : target(config.target),
        idf_version(config.idf_version),
        espdl_version(config.espdl_version),
        app_version(config.app_version),
        limits(MakeLimits(config)),
        stream(hil::Session::ReceiveBytes(limits)),
        runner(callbacks),
        system(callbacks),
        store(Bytes(config.models, config.models_size)),
        store_error(store.status().text()),
        arena(hil::Session::ArenaBytes(limits)),
        session(Facts(config, callbacks), limits,
                hil::Platform{&stream, &runner, &pool, &system, &store},
                MutableBytes(arena.data(), arena.size())) {}

  hil::DeviceFacts Facts(const hil_config& config, const hil_runner& callbacks) const {
    hil::DeviceFacts facts;
    facts.target = target;
    facts.idf_version = idf_version;
    facts.espdl_version = espdl_version;
    facts.app_version = app_version;
    std::copy(std::begin(config.app_sha256), std::end(config.app_sha256), facts.app_sha256.begin());
    facts.boot_nonce = config.boot_nonce;
    facts.chip_revision = config.chip_revision;
    facts.cpu_mhz = config.cpu_mhz;
    facts.max_baud = config.max_baud;
    facts.flags = (config.flags & HIL_FLAG_SIMULATED) != 0 ? hil::kDeviceSimulated : uint16_t{0};
    if ((config.flags & HIL_FLAG_PULSES) != 0) {
      facts.flags = static_cast<uint16_t>(facts.flags | hil::kDevicePulses);
    }
    if (callbacks.now_us != nullptr) {
      facts.flags = static_cast<uint16_t>(facts.flags | hil::kDeviceMeasuresTime);
    }
    return facts;
  }

  std::string target, idf_version, espdl_version, app_version;
  hil::Limits limits;
  QueueStream stream;
  CallbackRunner runner;
  CallbackSystem system;
  HeapPool pool;
  hil::ModelStore store;
  std::string store_error;
  std::vector<uint8_t> arena;
  hil::Session session;  // last: its models are unloaded before what they use goes
};

uint32_t hil_abi_version(void) { return HIL_ABI_VERSION; }

hil_core* hil_core_create(const hil_config* config, const hil_runner* runner, hil_reason reason) {
  const char* refused = Refuse(*config, *runner);
  if (refused != nullptr) {
    if (reason.text != nullptr && reason.capacity != 0) {
      std::snprintf(reason.text, reason.capacity, "%s", refused);
    }
    return nullptr;
  }
  auto core = std::make_unique<hil_core>(*config, *runner);
  core->session.Start();
  return core.release();
}

void hil_core_destroy(hil_core* core) { delete core; }

size_t hil_core_feed(hil_core* core, const uint8_t* data, size_t size) {
  return core->stream.Feed(data, size);
}

int32_t hil_core_poll(hil_core* core) { return core->session.Poll() ? 1 : 0; }

size_t hil_core_drain(hil_core* core, uint8_t* data, size_t capacity) {
  return core->stream.Drain(data, capacity);
}

size_t hil_core_max_frame(const hil_core* core) {
  return hil::MaxFrameBytes(core->limits.max_payload);
}

const char* hil_core_store_error(const hil_core* core) { return core->store_error.c_str(); }

void hil_core_stats(const hil_core* core, hil_stats* stats) {
  const hil::Session::Stats& counted = core->session.stats();
  stats->packets = counted.packets;
  stats->faults = counted.faults;
  stats->duplicates = counted.duplicates;
  stats->gaps = counted.gaps;
  stats->steps = counted.steps;
}
