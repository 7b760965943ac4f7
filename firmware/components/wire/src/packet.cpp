#include "wire/packet.h"

#include <cstring>

#include "wire/crc32.h"
#include "wire/endian.h"

namespace hil {

size_t EncodeFrame(const Packet& packet, MutableBytes scratch, MutableBytes out) {
  uint8_t* body = scratch.data();
  const size_t length = packet.payload.size();
  body[0] = kMagic;
  body[1] = kProtocolVersion;
  body[2] = packet.type;
  body[3] = packet.credits;
  StoreU32(packet.session, body + 4);
  StoreU32(packet.seq, body + 8);
  StoreU32(static_cast<uint32_t>(length), body + 12);
  if (length != 0 && packet.payload.data() != body + kHeaderBytes) {
    std::memcpy(body + kHeaderBytes, packet.payload.data(), length);
  }
  const size_t crc_at = kHeaderBytes + length;
  StoreU32(Crc32(Bytes(body, crc_at)), body + crc_at);
  out[0] = 0;
  const size_t encoded = CobsEncode(Bytes(body, crc_at + kCrcBytes), out.From(1));
  out[1 + encoded] = 0;
  return encoded + 2;
}

size_t FrameReader::Feed(Bytes data, Event* event) {
  *event = Event::kNone;
  size_t used = 0;
  while (used < data.size() && *event == Event::kNone) {
    const uint8_t byte = data[used++];
    if (byte == 0) {
      *event = Close();
    } else if (state_ == State::kOutside) {
      ++console_bytes_;
    } else {
      *event = Append(byte);
    }
  }
  return used;
}

FrameReader::Event FrameReader::Flush() {
  if (state_ == State::kOutside || size_ == 0) {
    return Event::kNone;
  }
  return size_ > 1 ? Fail(Fault::kTruncated) : GiveUp();
}

FrameReader::Event FrameReader::Append(uint8_t byte) {
  if (limit_ != 0 && size_ == limit_) {  // too long for the length its header announced
    ++console_bytes_;
    return Fail(Fault::kLength);
  }
  buffer_[size_++] = byte;
  return limit_ == 0 ? CheckStart() : Event::kNone;
}

// Looks at the first decoded bytes: a magic, then a header with an acceptable length.
FrameReader::Event FrameReader::CheckStart() {
  if (buffer_[0] == 1 || (size_ > 1 && buffer_[1] != kMagic)) {
    return GiveUp();
  }
  if (size_ < kHeaderBytes + 1) {
    return Event::kNone;
  }
  uint8_t header[kHeaderBytes];
  CobsDecodePrefix(Bytes(buffer_.data(), size_), header);
  const uint32_t length = LoadU32(header + 12);
  if (length > max_payload_) {
    return Fail(Fault::kLength);
  }
  limit_ = CobsMaxEncoded(length + kPacketOverhead);
  return Event::kNone;
}

FrameReader::Event FrameReader::Close() {
  Event event = Event::kNone;
  if (state_ == State::kCandidate && size_ != 0) {
    event = size_ == 1 ? GiveUp() : Parse(buffer_.Sub(0, size_));
  }
  state_ = State::kCandidate;
  size_ = 0;
  limit_ = 0;
  return event;
}

FrameReader::Event FrameReader::Parse(MutableBytes raw) {
  size_t size = 0;
  if (!CobsDecode(raw, &size)) {
    return Fail(Fault::kCobs);
  }
  if (size < kPacketOverhead) {
    return Fail(Fault::kTruncated);
  }
  const uint8_t* body = raw.data();
  const uint32_t length = LoadU32(body + 12);
  if (size != length + kPacketOverhead) {
    return Fail(size < length + kPacketOverhead ? Fault::kTruncated : Fault::kLength);
  }
  if (Crc32(Bytes(body, size - kCrcBytes)) != LoadU32(body + size - kCrcBytes)) {
    return Fail(Fault::kCrc);
  }
  packet_.type = body[2];
  packet_.credits = body[3];
  packet_.session = LoadU32(body + 4);
  packet_.seq = LoadU32(body + 8);
  packet_.payload = Bytes(body + kHeaderBytes, length);
  return body[1] == kProtocolVersion ? Event::kPacket : Fail(Fault::kVersion);
}

FrameReader::Event FrameReader::GiveUp() {
  console_bytes_ += size_;
  state_ = State::kOutside;
  size_ = 0;
  limit_ = 0;
  return Event::kNone;
}

FrameReader::Event FrameReader::Fail(Fault fault) {
  GiveUp();
  fault_ = fault;
  return Event::kFault;
}

}  // namespace hil
