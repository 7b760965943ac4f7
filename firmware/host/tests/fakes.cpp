#include "fakes.h"

namespace hil {

std::vector<uint8_t> MakeEdl(int version, uint32_t length) {
  std::vector<uint8_t> data = {'E', 'D', 'L', static_cast<uint8_t>('0' + version)};
  data.resize((version == 1 ? 12 : 16) + length);
  StoreU32(length, data.data() + 8);
  for (size_t index = data.size() - length; index < data.size(); ++index) {
    data[index] = static_cast<uint8_t>(index * 31 + length);
  }
  return data;
}

std::vector<uint8_t> MakePackage(int version, const NamedModels& models) {
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

MutableBytes FakePool::Acquire(size_t size) {
  if (size > largest) {
    return MutableBytes();
  }
  auto memory = std::make_unique<uint8_t[]>(size);
  const MutableBytes bytes(memory.get(), size);
  held_[memory.get()] = std::move(memory);
  return bytes;
}

void FakePool::Release(MutableBytes buffer) { CHECK_EQ(held_.erase(buffer.data()), 1u); }

size_t FakeStream::Read(MutableBytes out) {
  const size_t size = std::min(out.size(), to_device.size());
  std::copy_n(to_device.begin(), size, out.begin());
  to_device.erase(to_device.begin(), to_device.begin() + static_cast<std::ptrdiff_t>(size));
  return size;
}

void FakeStream::Write(Bytes frame) {
  if (!deaf) {
    to_host.insert(to_host.end(), frame.begin(), frame.end());
  }
}

Status FakeRunner::Load(std::string_view name, Bytes model, uint32_t* id) {
  if (!load_status.ok()) {
    return load_status;
  }
  loaded_name = std::string(name);
  loaded_bytes.assign(model.begin(), model.end());
  *id = static_cast<uint32_t>(++loads);
  cache_[*id].assign(4, 0);
  return Ok();
}

void FakeRunner::Unload(uint32_t id) {
  ++unloads;
  CHECK_EQ(cache_.erase(id), 1u);
}

Status FakeRunner::Describe(uint32_t, TensorKind kind, uint32_t index, TensorInfo* info) {
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

Status FakeRunner::Find(uint32_t, std::string_view name, uint32_t* index) {
  for (*index = 0; *index < nodes.size(); ++*index) {
    if (nodes[*index].name == name) {
      return Ok();
    }
  }
  return Status(Code::kNoSuchTensor, "no node output of that name");
}

Status FakeRunner::Reset(uint32_t id) {
  ++resets;
  cache_[id].assign(4, 0);
  return Ok();
}

Status FakeRunner::Run(uint32_t id, Span<const Bytes> in, Span<const MutableBytes> out,
                       Span<const Capture> captures, uint32_t* latency) {
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

Status FakeRunner::Read(uint32_t, uint32_t index, uint32_t offset, MutableBytes out) {
  if (!retained || index != 0) {
    return Status(Code::kNotRetained, "start with retain");
  }
  std::copy_n(mid_ + offset, out.size(), out.begin());
  return Ok();
}

std::vector<Answer> Bench::Run() {
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

DeviceFacts Bench::Facts() {
  DeviceFacts facts;
  facts.target = "esp32s3";
  facts.idf_version = "v5.5";
  facts.espdl_version = "3.3.9";
  facts.app_version = "1";
  facts.boot_nonce = 0x1122334455667788;
  facts.max_baud = 2000000;
  facts.flags = kDeviceSimulated | kDeviceMeasuresTime;
  return facts;
}

Answer Bench::Bind(uint32_t handle, const std::vector<StatePair>& pairs) {
  std::vector<uint8_t> memory(900);
  PayloadWriter items(MutableBytes(memory.data(), memory.size()));
  for (const StatePair& pair : pairs) {
    CHECK(items.Append(pair));
  }
  return Ask(Type::kBindState, BindState{handle, static_cast<uint16_t>(pairs.size()),
                                         Bytes(memory.data(), items.size())});
}

Answer Bench::SetWatch(uint32_t handle, const std::vector<WatchItem>& watches) {
  std::vector<uint8_t> memory(900);
  PayloadWriter items(MutableBytes(memory.data(), memory.size()));
  for (const WatchItem& watch : watches) {
    CHECK(items.Append(watch));
  }
  return Ask(Type::kWatch, Watch{handle, static_cast<uint16_t>(watches.size()),
                                 Bytes(memory.data(), items.size())});
}

std::vector<uint8_t> Bench::FrameOf(uint32_t seq, Type type, Bytes payload) const {
  Packet packet;
  packet.type = static_cast<uint8_t>(type);
  packet.session = session;
  packet.seq = seq;
  packet.payload = payload;
  std::vector<uint8_t> scratch(payload.size() + kPacketOverhead);
  std::vector<uint8_t> out(MaxFrameBytes(payload.size()));
  out.resize(EncodeFrame(packet, MutableBytes(scratch.data(), scratch.size()),
                         MutableBytes(out.data(), out.size())));
  return out;
}

Answer Bench::AskFrame(const std::vector<uint8_t>& frame) {
  Feed(frame);
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

}  // namespace hil
