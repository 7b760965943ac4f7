// Random and mutated bytes against the packet reader and the whole session. The sanitizers are the
// judges; besides, a session must still answer after whatever it was fed.
//
// Usage: fuzz [rounds] [seed]
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "check.h"
#include "fakes.h"

namespace hil {
namespace {

using Data = std::vector<uint8_t>;

class Fuzzer {
 public:
  explicit Fuzzer(uint32_t seed) : random_(seed) {}

  uint32_t Below(uint32_t bound) { return static_cast<uint32_t>(random_() % bound); }
  uint8_t Byte() { return static_cast<uint8_t>(random_()); }

  Data Random(size_t size) {
    Data data(size);
    for (uint8_t& byte : data) {
      byte = Below(4) == 0 ? uint8_t{0} : Byte();
    }
    return data;
  }

  // Flips, overwrites, inserts, deletes or duplicates a few times.
  void Mutate(Data* data) {
    for (uint32_t count = 1 + Below(4); count != 0 && !data->empty(); --count) {
      const auto at = data->begin() + Below(static_cast<uint32_t>(data->size()));
      switch (Below(5)) {
        case 0:
          *at ^= static_cast<uint8_t>(1u << Below(8));
          break;
        case 1:
          *at = Byte();
          break;
        case 2:
          data->insert(at, Byte());
          break;
        case 3:
          data->erase(at, std::min(data->end(), at + 1 + Below(8)));
          break;
        default:
          data->insert(data->end(), at, data->end());
          data->resize(std::min<size_t>(data->size(), 900));
          break;
      }
    }
  }

 private:
  std::mt19937 random_;
};

// A payload as it is.
struct Raw {
  Bytes data;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(data);
  }
};

// Reads `stream` in random pieces; the buffer is exactly as large as promised.
void FuzzReader(Fuzzer* fuzzer, const Data& stream) {
  constexpr uint32_t kLimit = 64;
  const size_t size = FrameReader::BufferBytes(kLimit);
  const std::unique_ptr<uint8_t[]> buffer(new uint8_t[size]);
  FrameReader reader(MutableBytes(buffer.get(), size), kLimit);
  size_t at = 0;
  size_t taken = 0;  // payload bytes touched, so that the sanitizer sees them
  while (at < stream.size()) {
    const size_t part = std::min<size_t>(1 + fuzzer->Below(40), stream.size() - at);
    FrameReader::Event event;
    at += reader.Feed(Bytes(stream.data() + at, part), &event);
    if (event == FrameReader::Event::kPacket) {
      for (const uint8_t byte : reader.packet().payload) {
        taken += byte;
      }
      CHECK(reader.packet().payload.size() <= kLimit);
    }
  }
  const auto zeros = std::count(stream.begin(), stream.end(), uint8_t{0});
  CHECK(reader.console_bytes() + static_cast<uint64_t>(zeros) <= stream.size());
  CHECK(taken <= 255 * stream.size());
}

// A plausible request: the right kind of payload, most of the time.
Data MakePayload(Fuzzer* fuzzer, uint8_t type) {
  Data memory(900);
  PayloadWriter writer(MutableBytes(memory.data(), memory.size()));
  const uint32_t id = fuzzer->Below(4);
  uint8_t names[200];
  PayloadWriter list(names);
  const uint16_t count = static_cast<uint16_t>(fuzzer->Below(4));
  const std::string_view pool[] = {"mid", "y", "h", "x", "hn", "big", "tcn", "gru", ""};
  const auto name = [&] { return pool[fuzzer->Below(9)]; };
  const Data data = fuzzer->Random(fuzzer->Below(2) == 0 ? 8 : fuzzer->Below(40));
  const Bytes bytes(data.data(), data.size());
  for (uint16_t index = 0; index < count; ++index) {
    if (static_cast<Type>(type) == Type::kBindState) {
      CHECK(list.Append(StatePair{name(), name()}));
    } else {
      CHECK(list.Append(WatchItem{static_cast<uint8_t>(fuzzer->Below(2)), name()}));
    }
  }
  const Bytes items(names, list.size());
  switch (static_cast<Type>(type)) {
    case Type::kLoad:
      writer(Load{name()});
      break;
    case Type::kUploadBegin:
      writer(UploadBegin{fuzzer->Below(60), {}, name()});
      break;
    case Type::kUploadData:
      writer(UploadData{fuzzer->Below(2) * 8, bytes});
      break;
    case Type::kDescribe:
      writer(Describe{id, static_cast<uint8_t>(fuzzer->Below(3)), fuzzer->Below(3)});
      break;
    case Type::kBindState:
      writer(BindState{id, count, items});
      break;
    case Type::kWatch:
      writer(Watch{id, count, items});
      break;
    case Type::kStart:
      writer(Start{id, static_cast<uint16_t>(fuzzer->Below(4))});
      break;
    case Type::kChunk:
      writer(Chunk{1 + fuzzer->Below(6), fuzzer->Below(3), 0, bytes});
      break;
    case Type::kReadResult:
      writer(ReadResult{1 + fuzzer->Below(6), fuzzer->Below(2), fuzzer->Below(30), 100});
      break;
    case Type::kReadTensor:
      writer(ReadTensor{id, fuzzer->Below(6), 100, name()});
      break;
    default:
      writer(Reset{id});
      break;
  }
  memory.resize(writer.size());
  return memory;
}

// A session fed with requests of which some are malformed behind a good CRC, and some torn on the
// line.
void FuzzSession(Fuzzer* fuzzer) {
  Bench bench;
  bench.Hello();
  for (int request = 0; request < 40; ++request) {
    uint8_t type = static_cast<uint8_t>(2 + fuzzer->Below(0x13));
    if (type == static_cast<uint8_t>(Type::kUnload) && fuzzer->Below(4) != 0) {
      type = static_cast<uint8_t>(Type::kStart);
    }
    Data payload = MakePayload(fuzzer, type);
    if (fuzzer->Below(3) == 0) {
      fuzzer->Mutate(&payload);
    }
    Data frame = bench.Frame(bench.next_seq, static_cast<Type>(type),
                             Raw{Bytes(payload.data(), payload.size())});
    if (fuzzer->Below(8) == 0) {
      fuzzer->Mutate(&frame);
      bench.Feed(frame);
      bench.Feed(Data{0});
      for (const Answer& answer : bench.Run()) {
        bench.next_seq += answer.seq == bench.next_seq ? 1u : 0u;
      }
      continue;
    }
    bench.Feed(frame);
    CHECK_EQ(bench.Run().size(), 1u);
    ++bench.next_seq;
  }
  bench.session ^= 0x55;
  CHECK_EQ(bench.Hello().Error(), Code::kOk);
  CHECK_EQ(bench.pool.held(), 0u);
}

Data MakeStream(Fuzzer* fuzzer, const Bench& bench) {
  Data stream = fuzzer->Random(fuzzer->Below(60));
  for (uint32_t count = fuzzer->Below(4); count != 0; --count) {
    const Data payload = fuzzer->Random(fuzzer->Below(70));
    Data frame = bench.Frame(fuzzer->Below(9), Type::kChunk,
                             UploadData{0, Bytes(payload.data(), payload.size())});
    if (fuzzer->Below(2) == 0) {
      fuzzer->Mutate(&frame);
    }
    stream.insert(stream.end(), frame.begin(), frame.end());
  }
  return stream;
}

}  // namespace
}  // namespace hil

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 1000;
  hil::Fuzzer fuzzer(argc > 2 ? static_cast<uint32_t>(std::atoi(argv[2])) : 1u);
  const hil::Bench frames;
  for (int round = 0; round < rounds; ++round) {
    hil::FuzzReader(&fuzzer, hil::MakeStream(&fuzzer, frames));
    if (round % 4 == 0) {
      hil::FuzzSession(&fuzzer);
    }
  }
  std::cout << rounds << " rounds, " << check::Failures() << " failures\n";
  return check::Failures() == 0 ? 0 : 1;
}
