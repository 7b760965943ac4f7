// The C ABI, used as a C program would.
#include <cstring>
#include <string>
#include <vector>

#include "check.h"
#include "fakes.h"
#include "hil_host.h"

namespace hil {
namespace {

// A runner of one model with input x[2] and output y[2] = x + 1, node output y.
struct Context {
  int unloads = 0;
  int reboots = 0;
  uint32_t baud = 0;
  uint64_t now_us = 0;
};

int32_t LoadModel(void*, const char* name, uint32_t size, const uint8_t*, uint32_t, uint32_t* model,
                  hil_reason reason) {
  if (std::string(name, size) == "bad") {
    std::snprintf(reason.text, reason.capacity, "bad on purpose");
    return 13;
  }
  *model = 7;
  return HIL_OK;
}
void UnloadModel(void* context, uint32_t) { ++static_cast<Context*>(context)->unloads; }
uint32_t CountTensors(void*, uint32_t, uint32_t) { return 1; }
int32_t DescribeTensor(void*, uint32_t, uint32_t kind, uint32_t, hil_tensor* info) {
  info->name[0] = kind == HIL_INPUT ? 'x' : 'y';
  info->name_size = 1;
  info->dtype = 3;
  info->rank = 1;
  info->bytes = 2;
  info->dims[0] = 2;
  return HIL_OK;
}
int32_t FindTensor(void*, uint32_t, const char*, uint32_t, uint32_t*) { return 7; }
int32_t ResetModel(void*, uint32_t, hil_reason) { return HIL_OK; }
int32_t RetainModel(void*, uint32_t, uint32_t, hil_reason) { return HIL_OK; }
int32_t RunModel(void* context, uint32_t model, const hil_bytes* inputs, uint32_t input_count,
                 const hil_buffer* outputs, uint32_t output_count, const hil_capture*, uint32_t,
                 hil_reason) {
  CHECK_EQ(model, 7u);
  CHECK_EQ(input_count, 1u);
  CHECK_EQ(output_count, 1u);
  for (uint32_t index = 0; index < outputs[0].size; ++index) {
    outputs[0].data[index] = static_cast<uint8_t>(inputs[0].data[index] + 1);
  }
  static_cast<Context*>(context)->now_us += 250;
  return inputs[0].data[0] == 99 ? 1000 : HIL_OK;
}
int32_t ReadTensorBytes(void*, uint32_t, uint32_t, uint32_t, uint8_t*, uint32_t) { return 20; }
void QueryMemory(void*, hil_memory* memory) { memory->psram_total = 8u << 20; }
uint64_t NowUs(void* context) { return static_cast<Context*>(context)->now_us; }
uint32_t RestoreVectorUnit(void*) { return HIL_ROUNDING_LOST | 1u; }  // 1 is no such flag
void RebootDevice(void* context) { ++static_cast<Context*>(context)->reboots; }
void SetLineBaud(void* context, uint32_t baud) { static_cast<Context*>(context)->baud = baud; }

class Host {
 public:
  Host() : package(MakePackage(3, {{"m", MakeEdl(2, 16)}, {"bad", MakeEdl(2, 16)}})) {
    config.abi_version = HIL_ABI_VERSION;
    config.flags = HIL_FLAG_SIMULATED;
    config.target = "esp32p4";
    config.idf_version = "v5.5";
    config.espdl_version = "3.3.9";
    config.app_version = "1";
    config.boot_nonce = 42;
    config.models = package.data();
    config.models_size = package.size();
    config.max_payload = 1024;
    config.window = 4;
    config.max_models = 2;
    config.max_watch = 8;
    config.max_upload = 4096;
    config.max_baud = 921600;
    runner = hil_runner{&context,    LoadModel,  UnloadModel,  CountTensors, DescribeTensor,
                        FindTensor,  ResetModel, RetainModel,  RunModel,     ReadTensorBytes,
                        QueryMemory, NowUs,      RebootDevice, SetLineBaud,  RestoreVectorUnit};
  }

  std::string Refusal() {
    char text[100] = "";
    hil_core* core = hil_core_create(&config, &runner, hil_reason{text, sizeof text});
    CHECK_EQ(core == nullptr, text[0] != '\0');
    hil_core_destroy(core);
    return text;
  }

  std::vector<uint8_t> package;
  Context context;
  hil_config config{};
  hil_runner runner{};
};

// Talks to a core in frames; borrows Bench for the framing.
class Line {
 public:
  explicit Line(Host* host)
      : core_(hil_core_create(&host->config, &host->runner, hil_reason{nullptr, 0})) {}
  ~Line() { hil_core_destroy(core_); }

  std::vector<Answer> Drain() {
    while (hil_core_poll(core_) != 0) {
    }
    std::vector<uint8_t> frame(hil_core_max_frame(core_));
    size_t size = 0;
    while ((size = hil_core_drain(core_, frame.data(), frame.size())) != 0) {
      CHECK(frame[0] == 0 && frame[size - 1] == 0);
      CHECK(std::count(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(size), 0) == 2);
      codec_.stream.to_host.insert(codec_.stream.to_host.end(), frame.begin(),
                                   frame.begin() + static_cast<std::ptrdiff_t>(size));
    }
    return codec_.Run();
  }

  template <typename Message>
  Answer Ask(Type type, const Message& message) {
    const std::vector<uint8_t> frame = codec_.Frame(codec_.next_seq++, type, message);
    CHECK_EQ(hil_core_feed(core_, frame.data(), frame.size()), frame.size());
    const std::vector<Answer> answers = Drain();
    CHECK_EQ(answers.size(), 1u);
    return answers.empty() ? Answer() : answers[0];
  }

  hil_core* core() { return core_; }

 private:
  hil_core* core_;
  Bench codec_;
};

TEST(AbiVersionIsTheHeaders) { CHECK_EQ(hil_abi_version(), HIL_ABI_VERSION); }

TEST(ACoreRunsAModelThroughCallbacks) {
  Host host;
  {
    Line line(&host);
    CHECK_EQ(line.Drain()[0].As<Booted>(Type::kBooted).boot_nonce, 42u);
    const Answer answer = line.Ask(Type::kHello, Hello());
    const HelloReply hello = answer.ReplyTo<HelloReply>(Type::kHello);
    CHECK_EQ(hello.target, "esp32p4");
    CHECK_EQ(hello.flags, kDeviceSimulated | kDeviceMeasuresTime);
    CHECK_EQ(hello.memory.psram_total, 8u << 20);
    const uint32_t handle = line.Ask(Type::kLoad, Load{"m"}).ReplyTo<LoadReply>(Type::kLoad).handle;
    const uint32_t stream =
        line.Ask(Type::kStart, Start{handle, 1}).ReplyTo<StartReply>(Type::kStart).stream;
    const uint8_t input[] = {5, 6};
    const Answer chunk = line.Ask(Type::kChunk, Chunk{stream, 0, 0, input});
    const ChunkReply fields = chunk.ReplyTo<ChunkReply>(Type::kChunk);
    CHECK_EQ(fields.latency_us, 250u);
    CHECK_EQ(fields.data[0], 6u);
    CHECK_EQ(fields.data[1], 7u);
    const uint8_t poison[] = {99, 0};
    CHECK_EQ(line.Ask(Type::kChunk, Chunk{stream, 1, 0, poison}).Error(), Code::kInternal);
    CHECK_EQ(line.Ask(Type::kReadTensor, ReadTensor{handle, 0, 1, "z"}).Error(),
             Code::kNoSuchTensor);
    const Answer bad = line.Ask(Type::kLoad, Load{"bad"});
    CHECK_EQ(bad.Error(), Code::kLoadFailed);
    CHECK_EQ(bad.As<ErrorReply>(Type::kError).text, "bad on purpose");
    line.Ask(Type::kReboot, Reboot());
    CHECK_EQ(host.context.reboots, 1);
    hil_stats stats;
    hil_core_stats(line.core(), &stats);
    CHECK_EQ(stats.packets, 8u);
    CHECK_EQ(stats.steps, 1u);
    CHECK_EQ(host.context.unloads, 0);
  }
  CHECK_EQ(host.context.unloads, 1);  // destroy unloads
}

TEST(WithoutAClockThereIsNoTiming) {
  Host host;
  host.runner.now_us = nullptr;
  Line line(&host);
  line.Drain();
  const Answer answer = line.Ask(Type::kHello, Hello());
  CHECK_EQ(answer.ReplyTo<HelloReply>(Type::kHello).flags, kDeviceSimulated);
}

TEST(TheRateIsHandedOver) {
  Host host;
  Line line(&host);
  line.Drain();
  line.Ask(Type::kHello, Hello());
  line.Ask(Type::kSetBaud, SetBaud{460800});
  CHECK_EQ(host.context.baud, 460800u);
}

TEST(FeedTakesNoMoreThanAWindow) {
  Host host;
  Line line(&host);
  const std::vector<uint8_t> noise(100000, 'x');
  const size_t taken = hil_core_feed(line.core(), noise.data(), noise.size());
  CHECK_EQ(taken, 4 * hil_core_max_frame(line.core()));
  CHECK_EQ(hil_core_feed(line.core(), noise.data(), 1), 0u);
  line.Drain();
  CHECK_EQ(hil_core_feed(line.core(), noise.data(), 1), 1u);
}

TEST(DrainNeverTearsAFrame) {
  Host host;
  Line line(&host);
  uint8_t small[8];
  CHECK_EQ(hil_core_drain(line.core(), small, sizeof small), 0u);
  CHECK_EQ(line.Drain().size(), 1u);  // BOOTED was still there
}

TEST(StoreErrorsAreTold) {
  Host host;
  {
    Line line(&host);
    CHECK_EQ(std::string(hil_core_store_error(line.core())), "");
  }
  host.package[30] ^= 1;
  Line line(&host);
  CHECK_EQ(std::string(hil_core_store_error(line.core())),
           "models partition: package does not match its own SHA-256");
}

TEST(ConfigurationsOutOfRangeAreRefused) {
  CHECK_EQ(Host().Refusal(), "");
  const auto refusal = [](const std::function<void(Host*)>& change) {
    Host host;
    change(&host);
    return host.Refusal();
  };
  CHECK_EQ(refusal([](Host* host) { ++host->config.abi_version; }),
           "abi_version is not that of this library");
  CHECK_EQ(refusal([](Host* host) { host->config.target = nullptr; }),
           "a string is missing or longer than 63 bytes");
  CHECK_EQ(refusal([](Host* host) { host->config.max_payload = 1023; }),
           "max_payload is outside 1024..65536");
  CHECK_EQ(refusal([](Host* host) { host->config.window = 65; }), "window is outside 1..64");
  CHECK_EQ(refusal([](Host* host) { host->config.max_models = 0; }), "max_models is outside 1..8");
  CHECK_EQ(refusal([](Host* host) { host->config.max_watch = 257; }),
           "max_watch is outside 1..256");
  CHECK_EQ(refusal([](Host* host) { host->config.models = nullptr; }),
           "models and models_size disagree");
  CHECK_EQ(refusal([](Host* host) { host->runner.run = nullptr; }),
           "a required callback is missing");
  CHECK_EQ(refusal([](Host* host) { host->runner.set_baud = nullptr; }),
           "a required callback is missing");
}

}  // namespace
}  // namespace hil
