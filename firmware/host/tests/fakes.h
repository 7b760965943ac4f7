// Fakes of everything around the core, and a client that talks to it in frames.
#ifndef TESTS_FAKES_H_
#define TESTS_FAKES_H_

#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "runner/model_runner.h"
#include "runner/platform.h"
#include "runner/session.h"
#include "runner/sha256.h"
#include "wire/endian.h"
#include "wire/packet.h"

namespace hil {

std::vector<uint8_t> MakeEdl(int version, uint32_t length);

using NamedModels = std::vector<std::pair<std::string, std::vector<uint8_t>>>;

std::vector<uint8_t> MakePackage(int version, const NamedModels& models);

class FakePool final : public BufferPool {
 public:
  MutableBytes Acquire(size_t size) override;
  void Release(MutableBytes buffer) override;

  size_t held() const { return held_.size(); }
  size_t largest = SIZE_MAX;  // larger requests fail

 private:
  std::map<uint8_t*, std::unique_ptr<uint8_t[]>> held_;
};

class FakeStream final : public ByteStream {
 public:
  size_t Read(MutableBytes out) override;
  void Write(Bytes frame) override;
  std::deque<uint8_t> to_device;
  std::vector<uint8_t> to_host;
  bool deaf = false;  // what the device sends is lost
};

class FakeSystem final : public System {
 public:
  void Reboot() override { ++reboots; }
  void SetBaud(uint32_t baud) override { bauds.push_back(baud); }
  uint32_t NowMs() override { return now_ms; }
  int reboots = 0;
  std::vector<uint32_t> bauds;
  uint32_t now_ms = 0xFFFFFF00;  // wraps soon
};

struct FakeTensor {
  std::string name;
  uint32_t elements;  // int8
  int16_t exponent = -7;
};

// A model with inputs x[4], h[4], outputs y[4], hn[4], big[20], and node outputs mid[4], y.
// A step computes mid = x + h, y = mid + cache, hn = mid, big = 20 times the step's number, cache
// := x.
class FakeRunner final : public ModelRunner {
 public:
  std::vector<FakeTensor> inputs = {{"x", 4}, {"h", 4}};
  std::vector<FakeTensor> outputs = {{"y", 4}, {"hn", 4}, {"big", 20}};
  std::vector<FakeTensor> nodes = {{"mid", 4}, {"y", 4}};
  // Replaces the step; returns what it should.
  std::function<Status(Span<const Bytes>, Span<const MutableBytes>)> step;
  Status load_status, retain_status;
  uint32_t latency_us = 321;
  std::deque<uint16_t> vector_unit;  // found by each look, before and after a step; then 0

  int loads = 0, unloads = 0, resets = 0, runs = 0;
  bool retained = false;
  std::string loaded_name;
  std::vector<uint8_t> loaded_bytes;

  Status Load(std::string_view name, Bytes model, uint32_t* id) override;
  void Unload(uint32_t id) override;
  uint32_t Count(uint32_t, TensorKind kind) override {
    return static_cast<uint32_t>(Table(kind).size());
  }
  Status Describe(uint32_t, TensorKind kind, uint32_t index, TensorInfo* info) override;
  Status Find(uint32_t, std::string_view name, uint32_t* index) override;
  Status Reset(uint32_t id) override;
  Status Retain(uint32_t, bool on) override {
    if (retain_status.ok()) {
      retained = on;
    }
    return retain_status;
  }
  Status Run(uint32_t id, Span<const Bytes> in, Span<const MutableBytes> out,
             Span<const Capture> captures, uint32_t* latency) override;
  Status Read(uint32_t, uint32_t index, uint32_t offset, MutableBytes out) override;
  uint16_t RestoreVectorUnit() override {
    if (vector_unit.empty()) {
      return 0;
    }
    const uint16_t found = vector_unit.front();
    vector_unit.pop_front();
    return found;
  }
  QueryUsageReply Usage() override { return QueryUsageReply{81000, 1, 2, 3}; }
  MemoryInfo Memory() override {
    MemoryInfo info;
    info.psram_free = 1000000 - 5000 * static_cast<uint32_t>(cache_.size());
    return info;
  }

 private:
  const std::vector<FakeTensor>& Table(TensorKind kind) const {
    return kind == TensorKind::kInput ? inputs : kind == TensorKind::kOutput ? outputs : nodes;
  }
  std::map<uint32_t, std::vector<uint8_t>> cache_;
  uint8_t mid_[4] = {};
  std::string name_;
};

inline bool Same(Bytes left, Bytes right) {
  return std::equal(left.begin(), left.end(), right.begin(), right.end());
}

// One packet that came back.
struct Answer {
  uint8_t type = 0;
  uint8_t credits = 0;
  uint32_t session = 0;
  uint32_t seq = 0;
  Bytes payload;  // kept by its Bench
  template <typename Message>
  Message As(Type want) const {
    CHECK_EQ(type, static_cast<uint8_t>(want));
    Message message;
    CHECK(ReadPayload(payload, &message));
    return message;
  }
  // The reply to a request of this type.
  template <typename Message>
  Message ReplyTo(Type request) const {
    return As<Message>(static_cast<Type>(static_cast<uint8_t>(request) | kReplyBit));
  }
  Code Error() const {
    if (type != static_cast<uint8_t>(Type::kError)) {
      return Code::kOk;
    }
    return static_cast<Code>(As<ErrorReply>(Type::kError).code);
  }
};

// A device with a fake runner, and the host's end of the line.
class Bench {
 public:
  explicit Bench(Limits limits_in = DefaultLimits(),
                 std::vector<uint8_t> package = DefaultPackage())
      : limits(limits_in),
        partition(std::move(package)),
        store(Bytes(partition.data(), partition.size())),
        arena(Session::ArenaBytes(limits)),
        device(std::make_unique<Session>(Facts(), limits,
                                         Platform{&stream, &runner, &pool, &system, &store},
                                         MutableBytes(arena.data(), arena.size()))) {}

  static Limits DefaultLimits() {
    Limits limits;
    limits.max_payload = kMinPayload;
    limits.max_upload = 100000;
    limits.window = 4;
    limits.max_models = 2;
    limits.max_watch = 8;
    return limits;
  }
  static std::vector<uint8_t> DefaultPackage() {
    return MakePackage(3, {{"tcn", MakeEdl(2, 64)}, {"gru", MakeEdl(2, 80)}});
  }
  static DeviceFacts Facts();

  // The frame of a request.
  template <typename Message>
  std::vector<uint8_t> Frame(uint32_t seq, Type type, const Message& message) const {
    std::vector<uint8_t> payload(limits.max_payload);
    PayloadWriter writer(MutableBytes(payload.data(), payload.size()));
    writer(message);
    CHECK(writer.ok());
    return FrameOf(seq, type, Bytes(payload.data(), writer.size()));
  }
  std::vector<uint8_t> FrameOf(uint32_t seq, Type type, Bytes payload) const;

  void Feed(const std::vector<uint8_t>& bytes) {
    stream.to_device.insert(stream.to_device.end(), bytes.begin(), bytes.end());
  }

  // Lets the device work; returns what it sent.
  std::vector<Answer> Run();

  // Sends one request with the next number; returns its only answer.
  template <typename Message>
  Answer Ask(Type type, const Message& message) {
    return AskFrame(Frame(next_seq, type, message));
  }
  Answer AskFrame(const std::vector<uint8_t>& frame);

  Answer Hello() { return Ask(Type::kHello, hil::Hello()); }
  uint32_t LoadModel(std::string_view name = "tcn") {
    return Ask(Type::kLoad, Load{name}).ReplyTo<LoadReply>(Type::kLoad).handle;
  }
  uint32_t StartStream(uint32_t handle, uint16_t flags = kStartReset) {
    return Ask(Type::kStart, Start{handle, flags}).ReplyTo<StartReply>(Type::kStart).stream;
  }
  Answer Send(uint32_t stream_id, uint32_t index, const std::vector<uint8_t>& data,
              uint32_t offset = 0) {
    return Ask(Type::kChunk, Chunk{stream_id, index, offset, Bytes(data.data(), data.size())});
  }
  Answer Bind(uint32_t handle, const std::vector<StatePair>& pairs);
  Answer SetWatch(uint32_t handle, const std::vector<WatchItem>& watches);

  Limits limits;
  std::vector<uint8_t> partition;
  ModelStore store;
  FakeStream stream;
  FakeRunner runner;
  FakePool pool;
  FakeSystem system;
  std::vector<uint8_t> arena;
  std::unique_ptr<Session> device;
  uint32_t session = 0xABCD;
  uint32_t next_seq = 1;

 private:
  std::deque<std::vector<uint8_t>> kept_;  // payloads of all answers: replies are views into them
};

}  // namespace hil

#endif  // TESTS_FAKES_H_
