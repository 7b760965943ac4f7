// Packets in COBS frames between zero bytes, protocol.md section 1. Knows no message.
#ifndef WIRE_PACKET_H_
#define WIRE_PACKET_H_

#include <cstddef>
#include <cstdint>

#include "wire/cobs.h"
#include "wire/span.h"

namespace hil {

inline constexpr uint8_t kMagic = 0xF5;
inline constexpr uint8_t kProtocolVersion = 1;
inline constexpr size_t kHeaderBytes = 16;
inline constexpr size_t kCrcBytes = 4;
inline constexpr size_t kPacketOverhead = kHeaderBytes + kCrcBytes;

// Raw bytes of the longest frame around a payload of `payload` bytes, both zeros included.
constexpr size_t MaxFrameBytes(size_t payload) {
  return CobsMaxEncoded(payload + kPacketOverhead) + 2;
}

struct Packet {
  uint8_t type = 0;
  uint8_t credits = 0;
  uint32_t session = 0;
  uint32_t seq = 0;
  Bytes payload;
};

// Writes the frame of `packet` to `out`, of at least MaxFrameBytes(payload size) bytes. `scratch`,
// of at least payload size + kPacketOverhead bytes, may hold the payload at offset kHeaderBytes
// already (then nothing is copied); it overlaps neither `out` nor, else, the payload.
// Returns the size of the frame.
[[nodiscard]] size_t EncodeFrame(const Packet& packet, MutableBytes scratch, MutableBytes out);

enum class Fault : uint8_t { kCobs, kCrc, kLength, kVersion, kTruncated };

// Finds packets in a byte stream, across console text and damage.
class FrameReader {
 public:
  enum class Event : uint8_t { kNone, kPacket, kFault };

  // Bytes of the buffer that a reader of payloads up to `max_payload` needs.
  static constexpr size_t BufferBytes(size_t max_payload) {
    return CobsMaxEncoded(max_payload + kPacketOverhead);
  }

  // `buffer` holds BufferBytes(max_payload) and outlives the reader.
  FrameReader(MutableBytes buffer, uint32_t max_payload)
      : buffer_(buffer), max_payload_(max_payload) {}

  // Consumes bytes until something is complete; returns how many. Call again with the
  // rest until all are consumed.
  [[nodiscard]] size_t Feed(Bytes data, Event* event);

  // Gives up a pending candidate.
  [[nodiscard]] Event Flush();

  // The packet of the last kPacket, or of a kFault with Fault::kVersion. Its payload lies in the
  // buffer: valid until the next Feed.
  const Packet& packet() const { return packet_; }
  Fault fault() const { return fault_; }

  // Bytes so far that belong to no good packet, zeros not counted.
  uint64_t console_bytes() const { return console_bytes_; }

 private:
  enum class State : uint8_t { kOutside, kCandidate };

  Event Append(uint8_t byte);
  Event CheckStart();
  Event Close();
  Event Parse(MutableBytes raw);
  Event GiveUp();
  Event Fail(Fault fault);

  MutableBytes buffer_;
  uint32_t max_payload_;
  State state_ = State::kOutside;
  size_t size_ = 0;   // raw bytes of the candidate
  size_t limit_ = 0;  // raw bytes it may have; 0: header incomplete
  Packet packet_;
  Fault fault_ = Fault::kCobs;
  uint64_t console_bytes_ = 0;
};

}  // namespace hil

#endif  // WIRE_PACKET_H_
