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

inline std::vector<uint8_t> MakeEdl(int version, uint32_t length) {
  std::vector<uint8_t> data = {'E', 'D', 'L', static_cast<uint8_t>('0' + version)};
  data.resize((version == 1 ? 12 : 16) + length);
  StoreU32(length, data.data() + 8);
  for (size_t index = data.size() - length; index < data.size(); ++index) {
    data[index] = static_cast<uint8_t>(index * 31 + length);
  }
  return data;
}

using NamedModels = std::vector<std::pair<std::string, std::vector<uint8_t>>>;

inline std::vector<uint8_t> MakePackage(int version, const NamedModels& models) {
  std::vector<uint8_t> out = {'P', 'D', 'L', static_cast<uint8_t>('0' + version)};
  const size_t table = version == 3 ? 60 : 8;
  out.resize(table + 12 * models.size());
  StoreU32(static_cast<uint32_t>(models.size()), out.data() + table - 4);
  for (size_t index = 0; index < models.size(); ++index) {
    const std::string& name = models[index].first;
    StoreU32(static_cast<uint32_t>(out.size()), out.data() + table + 12 * index + 4);
    StoreU32(static_cast<uint32_t>(name.size()), out.data() + table + 12 * index + 8);
    out.insert(out.end(), name.begin(), name.end());
  }
  for (size_t index = 0; index < models.size(); ++index) {
    const std::vector<uint8_t>& model = models[index].second;
    out.resize((out.size() + 15) / 16 * 16);
    StoreU32(static_cast<uint32_t>(out.size()), out.data() + table + 12 * index);
    out.insert(out.end(), model.begin(), model.end());
  }
  if (version == 3) {
    StoreU32(static_cast<uint32_t>(out.size()), out.data() + 20);
    const Sha256Digest digest = Sha256::Of(Bytes(out.data(), out.size()));
    std::copy(digest.begin(), digest.end(), out.begin() + 24);
  }
  return out;
}

class FakePool final : public BufferPool {
 public:
  MutableBytes Acquire(size_t size) override {
    if (size > largest) {
      return MutableBytes();
    }
    auto memory = std::make_unique<uint8_t[]>(size);
    const MutableBytes bytes(memory.get(), size);
    held_[memory.get()] = std::move(memory);
    return bytes;
  }
  void Release(MutableBytes buffer) override { CHECK_EQ(held_.erase(buffer.data()), 1u); }

  size_t held() const { return held_.size(); }
  size_t largest = SIZE_MAX;  // larger requests fail

 private:
  std::map<uint8_t*, std::unique_ptr<uint8_t[]>> held_;
};

class FakeStream final : public ByteStream {
 public:
  size_t Read(MutableBytes out) override {
    const size_t size = std::min(out.size(), to_device.size());
    std::copy_n(to_device.begin(), size, out.begin());
    to_device.erase(to_device.begin(), to_device.begin() + static_cast<std::ptrdiff_t>(size));
    return size;
  }
  void Write(Bytes frame) override {
    if (!deaf) {
      to_host.insert(to_host.end(), frame.begin(), frame.end());
    }
  }
  std::deque<uint8_t> to_device;
  std::vector<uint8_t> to_host;
  bool deaf = false;  // what the device sends is lost
};

class FakeSystem final : public System {
 public:
  void Reboot() override { ++reboots; }
  int reboots = 0;
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

  int loads = 0, unloads = 0, resets = 0, runs = 0;
  bool retained = false;
  std::string loaded_name;
  std::vector<uint8_t> loaded_bytes;

  Status Load(std::string_view name, Bytes model, uint32_t* id) override {
    if (!load_status.ok()) {
      return load_status;
    }
    loaded_name = std::string(name);
    loaded_bytes.assign(model.begin(), model.end());
    *id = static_cast<uint32_t>(++loads);
    cache_[*id].assign(4, 0);
    return Ok();
  }
  void Unload(uint32_t id) override {
    ++unloads;
    CHECK_EQ(cache_.erase(id), 1u);
  }
  uint32_t Count(uint32_t, TensorKind kind) override {
    return static_cast<uint32_t>(Table(kind).size());
  }
  Status Describe(uint32_t, TensorKind kind, uint32_t index, TensorInfo* info) override {
    const FakeTensor& tensor = Table(kind)[index];
    name_ = tensor.name;  // one buffer, as real runners have: the last view dies
    info->name = name_;
    info->dtype = 3;
    info->exponent = tensor.exponent;
    info->bytes = tensor.elements;
    info->rank = 2;
    info->dims[0] = 1;
    info->dims[1] = tensor.elements;
    return Ok();
  }
  Status Find(uint32_t, std::string_view name, uint32_t* index) override {
    for (*index = 0; *index < nodes.size(); ++*index) {
      if (nodes[*index].name == name) {
        return Ok();
      }
    }
    return Status(Code::kNoSuchTensor, "no node output of that name");
  }
  Status Reset(uint32_t id) override {
    ++resets;
    cache_[id].assign(4, 0);
    return Ok();
  }
  Status Retain(uint32_t, bool on) override {
    if (retain_status.ok()) {
      retained = on;
    }
    return retain_status;
  }
  Status Run(uint32_t id, Span<const Bytes> in, Span<const MutableBytes> out,
             Span<const Capture> captures, uint32_t* latency) override {
    ++runs;
    *latency = latency_us;
    if (step) {
      return step(in, out);
    }
    std::vector<uint8_t>& cache = cache_[id];
    for (size_t element = 0; element < 4; ++element) {
      const uint8_t mid = static_cast<uint8_t>(in[0][element] + in[1][element]);
      mid_[element] = mid;
      out[0][element] = static_cast<uint8_t>(mid + cache[element]);
      out[1][element] = mid;
    }
    std::fill(out[2].begin(), out[2].end(), static_cast<uint8_t>(runs));
    for (const Capture& capture : captures) {
      const uint8_t* from = capture.index == 0 ? mid_ : out[0].data();
      std::copy_n(from, capture.data.size(), capture.data.begin());
    }
    cache.assign(in[0].begin(), in[0].end());
    return Ok();
  }
  Status Read(uint32_t, uint32_t index, uint32_t offset, MutableBytes out) override {
    if (!retained || index != 0) {
      return Status(Code::kNotRetained, "start with retain");
    }
    std::copy_n(mid_ + offset, out.size(), out.begin());
    return Ok();
  }
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
  static DeviceFacts Facts() {
    DeviceFacts facts;
    facts.target = "esp32s3";
    facts.idf_version = "v5.5";
    facts.espdl_version = "3.3.9";
    facts.app_version = "1";
    facts.boot_nonce = 0x1122334455667788;
    facts.flags = kDeviceSimulated | kDeviceMeasuresTime;
    return facts;
  }

  // The frame of a request.
  template <typename Message>
  std::vector<uint8_t> Frame(uint32_t seq, Type type, const Message& message) const {
    std::vector<uint8_t> scratch(limits.max_payload + kPacketOverhead);
    PayloadWriter writer(MutableBytes(scratch.data() + kHeaderBytes, limits.max_payload));
    writer(message);
    CHECK(writer.ok());
    Packet packet;
    packet.type = static_cast<uint8_t>(type);
    packet.session = session;
    packet.seq = seq;
    packet.payload = Bytes(scratch.data() + kHeaderBytes, writer.size());
    std::vector<uint8_t> out(MaxFrameBytes(limits.max_payload));
    out.resize(EncodeFrame(packet, MutableBytes(scratch.data(), scratch.size()),
                           MutableBytes(out.data(), out.size())));
    return out;
  }

  void Feed(const std::vector<uint8_t>& bytes) {
    stream.to_device.insert(stream.to_device.end(), bytes.begin(), bytes.end());
  }

  // Lets the device work; returns what it sent.
  std::vector<Answer> Run() {
    while (device->Poll()) {
    }
    std::vector<uint8_t> buffer(FrameReader::BufferBytes(kMaxPayload));
    FrameReader reader(MutableBytes(buffer.data(), buffer.size()), kMaxPayload);
    std::vector<Answer> answers;
    Bytes rest(stream.to_host.data(), stream.to_host.size());
    while (!rest.empty()) {
      FrameReader::Event event;
      rest = rest.From(reader.Feed(rest, &event));
      CHECK(event != FrameReader::Event::kFault);
      if (event == FrameReader::Event::kPacket) {
        const Packet& packet = reader.packet();
        kept_.emplace_back(packet.payload.begin(), packet.payload.end());
        answers.push_back({packet.type, packet.credits, packet.session, packet.seq,
                           Bytes(kept_.back().data(), kept_.back().size())});
      }
    }
    stream.to_host.clear();
    return answers;
  }

  // Sends one request with the next number; returns its only answer.
  template <typename Message>
  Answer Ask(Type type, const Message& message) {
    Feed(Frame(next_seq, type, message));
    const std::vector<Answer> answers = Run();
    CHECK_EQ(answers.size(), 1u);
    if (answers.empty()) {
      return Answer();
    }
    CHECK_EQ(answers[0].seq, next_seq);
    CHECK_EQ(answers[0].session, session);
    ++next_seq;
    return answers[0];
  }

  Answer Hello() { return Ask(Type::kHello, Empty()); }
  uint32_t LoadModel(std::string_view name = "tcn") {
    return Ask(Type::kLoad, Load{name}).ReplyTo<LoadedReply>(Type::kLoad).handle;
  }
  uint32_t StartStream(uint32_t handle, uint16_t flags = kStartReset) {
    return Ask(Type::kStart, Start{handle, flags}).ReplyTo<StartReply>(Type::kStart).stream;
  }
  Answer Send(uint32_t stream_id, uint32_t index, const std::vector<uint8_t>& data,
              uint32_t offset = 0) {
    return Ask(Type::kChunk, Chunk{stream_id, index, offset, Bytes(data.data(), data.size())});
  }
  Answer Bind(uint32_t handle, const std::vector<StatePair>& pairs) {
    std::vector<uint8_t> memory(900);
    PayloadWriter items(MutableBytes(memory.data(), memory.size()));
    for (const StatePair& pair : pairs) {
      CHECK(items.Append(pair));
    }
    return Ask(Type::kBindState, BindState{handle, static_cast<uint16_t>(pairs.size()),
                                           Bytes(memory.data(), items.size())});
  }
  Answer SetWatch(uint32_t handle, const std::vector<WatchItem>& watches) {
    std::vector<uint8_t> memory(900);
    PayloadWriter items(MutableBytes(memory.data(), memory.size()));
    for (const WatchItem& watch : watches) {
      CHECK(items.Append(watch));
    }
    return Ask(Type::kWatch, Watch{handle, static_cast<uint16_t>(watches.size()),
                                   Bytes(memory.data(), items.size())});
  }

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
