// Checks for the generated vectors: what Python wrote, C++ reads and writes byte for byte.
#ifndef TESTS_VECTORS_H_
#define TESTS_VECTORS_H_

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "check.h"
#include "wire/messages.h"
#include "wire/packet.h"

namespace hil {

inline Bytes AsBytes(const char* data, size_t size) {
  return Bytes(reinterpret_cast<const uint8_t*>(data), size);
}

inline std::string ToString(Bytes bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

inline Sha256Digest Digest(const char* bytes) {
  Sha256Digest digest;
  std::memcpy(digest.data(), bytes, digest.size());
  return digest;
}

// Frame -> packet -> message -> the same payload, and `want` -> the same payload and frame.
template <typename Message>
void CheckMessage(const Message& want, uint8_t type, uint32_t session, uint32_t seq,
                  uint8_t credits, Bytes frame) {
  constexpr uint32_t kLimit = 2048;
  std::vector<uint8_t> buffer(FrameReader::BufferBytes(kLimit));
  FrameReader reader(MutableBytes(buffer.data(), buffer.size()), kLimit);
  FrameReader::Event event;
  CHECK_EQ(reader.Feed(frame, &event), frame.size());
  CHECK_EQ(event, FrameReader::Event::kPacket);
  const Packet packet = reader.packet();
  CHECK_EQ(packet.type, type);
  CHECK_EQ(packet.session, session);
  CHECK_EQ(packet.seq, seq);
  CHECK_EQ(packet.credits, credits);

  Message got;
  CHECK(ReadPayload(packet.payload, &got));
  std::vector<uint8_t> memory(kLimit);
  PayloadWriter got_writer(MutableBytes(memory.data(), memory.size()));
  got_writer(got);
  CHECK_EQ(ToString(Bytes(memory.data(), got_writer.size())), ToString(packet.payload));
  PayloadWriter want_writer(MutableBytes(memory.data(), memory.size()));
  want_writer(want);
  CHECK_EQ(ToString(Bytes(memory.data(), want_writer.size())), ToString(packet.payload));

  std::vector<uint8_t> scratch(kLimit + kPacketOverhead);
  std::vector<uint8_t> out(MaxFrameBytes(kLimit));
  const size_t size = EncodeFrame(packet, MutableBytes(scratch.data(), scratch.size()),
                                  MutableBytes(out.data(), out.size()));
  CHECK_EQ(ToString(Bytes(out.data(), size)), ToString(frame));
}

struct ExpectedPacket {
  uint8_t type;
  uint32_t seq;
  std::string payload;
};

struct ExpectedStream {
  std::vector<ExpectedPacket> packets;
  std::vector<Fault> faults;
  uint64_t console_bytes = 0;
};

inline void CheckStream(const ExpectedStream& want, uint32_t max_length, Bytes data) {
  for (const size_t step : {size_t{1}, size_t{7}, size_t{10000}}) {
    std::vector<uint8_t> buffer(FrameReader::BufferBytes(max_length));
    FrameReader reader(MutableBytes(buffer.data(), buffer.size()), max_length);
    std::vector<Fault> faults;
    size_t packets = 0;
    const auto take = [&](FrameReader::Event event) {
      if (event == FrameReader::Event::kFault) {
        faults.push_back(reader.fault());
      } else if (event == FrameReader::Event::kPacket && packets < want.packets.size()) {
        CHECK_EQ(reader.packet().type, want.packets[packets].type);
        CHECK_EQ(reader.packet().seq, want.packets[packets].seq);
        CHECK_EQ(ToString(reader.packet().payload), want.packets[packets].payload);
      }
      packets += event == FrameReader::Event::kPacket ? 1u : 0u;
    };
    Bytes rest = data;
    while (!rest.empty()) {
      FrameReader::Event event;
      const size_t part = rest.size() < step ? rest.size() : step;
      rest = rest.From(reader.Feed(rest.Sub(0, part), &event));
      take(event);
    }
    take(reader.Flush());
    CHECK_EQ(packets, want.packets.size());
    CHECK(faults == want.faults);
    CHECK_EQ(reader.console_bytes(), want.console_bytes);
  }
}

}  // namespace hil

#endif  // TESTS_VECTORS_H_
