#include "runner/session.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace hil {
namespace {

// Hands out parts of one block of memory.
class Carver {
 public:
  explicit Carver(MutableBytes arena) : arena_(arena) {}
  MutableBytes Take(size_t size) {
    const MutableBytes part = arena_.Sub(0, size);
    arena_ = arena_.From(size);
    return part;
  }

 private:
  MutableBytes arena_;
};

}  // namespace

Session::Session(const DeviceFacts& facts, const Limits& limits, const Platform& platform,
                 MutableBytes arena)
    : facts_(facts),
      limits_(limits),
      platform_(platform),
      reader_(arena.Sub(0, FrameReader::BufferBytes(limits.max_payload)), limits.max_payload) {
  Carver carver(arena.From(FrameReader::BufferBytes(limits.max_payload)));
  frame_ = carver.Take(MaxFrameBytes(limits.max_payload));
  unkept_.body = carver.Take(BodyBytes(limits));
  for (size_t index = 0; index < limits.window; ++index) {
    replies_[index].body = carver.Take(BodyBytes(limits));
  }
}

void Session::Start() { SendUnkept(Type::kBooted, 0, 0, Booted{facts_.boot_nonce}); }

bool Session::Poll() {
  EndBaudTrial();
  if (unread_.empty()) {
    unread_ = Bytes(received_, platform_.stream->Read(received_));
    if (unread_.empty()) {
      return false;
    }
  }
  FrameReader::Event event = FrameReader::Event::kNone;
  unread_ = unread_.From(reader_.Feed(unread_, &event));
  if (event == FrameReader::Event::kPacket) {
    ++stats_.packets;
    HandlePacket(reader_.packet());
  } else if (event == FrameReader::Event::kFault) {
    ++stats_.faults;
    HandleFault();
  }
  return true;
}

void Session::HandleFault() {
  if (reader_.fault() == Fault::kVersion) {
    SendError(reader_.packet(), Status(Code::kVersion, "this device speaks protocol version 1"));
  } else if (session_ != 0) {
    SendReject(RejectReason::kCorrupt);
  }
}

void Session::HandlePacket(const Packet& packet) {
  if ((packet.type & kReplyBit) != 0) {
    return;  // an echo of our own
  }
  if (packet.session != session_ || session_ == 0) {
    if (packet.type != static_cast<uint8_t>(Type::kHello) || packet.session == 0) {
      SendError(packet, Status(Code::kNoSession, "say HELLO first, with a session that is not 0"));
      return;
    }
    OpenSession(packet);
  }
  // Modulo 2^32: ahead or behind by less than half the numbers.
  const uint32_t ahead = packet.seq - expected_;
  if (ahead == 0) {
    Execute(packet);
  } else if (ahead < 0x80000000u) {
    ++stats_.gaps;
    if (!gap_rejected_) {
      gap_rejected_ = true;
      SendReject(RejectReason::kGap);
    }
  } else {
    Repeat(packet);
  }
}

void Session::OpenSession(const Packet& hello) {
  session_ = hello.session;
  expected_ = hello.seq;
  gap_rejected_ = false;
  for (Reply& reply : replies_) {
    reply.used = false;
  }
  next_reply_ = 0;
  DropUpload();
  for (LoadedModel& model : models_) {
    model.Unload();
  }
}

void Session::Execute(const Packet& packet) {
  Reply& reply = replies_[next_reply_];
  next_reply_ = static_cast<uint8_t>((next_reply_ + 1) % limits_.window);
  ++expected_;
  gap_rejected_ = false;

  PayloadWriter writer(PayloadOf(reply));
  steps_done_ = 0;
  Status status = Dispatch(packet, &writer);
  if (status.ok() && !writer.ok()) {
    status = Status(Code::kTooLarge, "the reply does not fit a packet");
  }
  reply.type = static_cast<uint8_t>(packet.type | kReplyBit);
  if (!status.ok()) {
    reply.type = static_cast<uint8_t>(Type::kError);
    writer.Clear();
    writer(
        ErrorReply{static_cast<uint16_t>(status.code()), packet.type, steps_done_, status.text()});
  }
  reply.used = true;
  reply.session = packet.session;
  reply.seq = packet.seq;
  reply.length = writer.size();
  Send(reply);
  if (reboot_) {
    reboot_ = false;
    platform_.system->Reboot();
  }
  if (trial_requests_ != 0) {
    --trial_requests_;
  }
  if (next_baud_ != 0) {
    platform_.system->SetBaud(std::exchange(next_baud_, 0));
    trial_requests_ = kBaudTrialRequests;
    trial_end_ms_ = platform_.system->NowMs() + kBaudTrialMs;
  }
}

// Without an end, a host that cannot be heard at the new rate could not be heard at the old one.
void Session::EndBaudTrial() {
  if (trial_requests_ != 0 && platform_.system->NowMs() - trial_end_ms_ < 0x80000000u) {
    trial_requests_ = 0;
    platform_.system->SetBaud(0);
  }
}

void Session::Repeat(const Packet& packet) {
  const Reply* end = replies_ + limits_.window;
  const Reply* found = std::find_if(std::cbegin(replies_), end, [&packet](const Reply& reply) {
    return reply.used && reply.seq == packet.seq;
  });
  if (found != end) {
    ++stats_.duplicates;
    Send(*found);
    return;
  }
  SendError(packet, Status(Code::kStaleSequence, "older than the kept replies"));
}

void Session::SendReject(RejectReason reason) {
  SendUnkept(Type::kReject, session_, 0, Reject{static_cast<uint8_t>(reason), expected_});
}

void Session::SendError(const Packet& packet, const Status& status) {
  SendUnkept(Type::kError, packet.session, packet.seq,
             ErrorReply{static_cast<uint16_t>(status.code()), packet.type, 0, status.text()});
}

template <typename Message>
void Session::SendUnkept(Type type, uint32_t session, uint32_t seq, const Message& message) {
  PayloadWriter writer(PayloadOf(unkept_));
  writer(message);
  unkept_.type = static_cast<uint8_t>(type);
  unkept_.session = session;
  unkept_.seq = seq;
  unkept_.length = writer.size();
  Send(unkept_);
}

void Session::Send(const Reply& reply) {
  Packet packet;
  packet.type = reply.type;
  packet.credits = limits_.window;
  packet.session = reply.session;
  packet.seq = reply.seq;
  packet.payload = PayloadOf(reply).Sub(0, reply.length);
  const size_t size = EncodeFrame(packet, reply.body, frame_);
  platform_.stream->Write(frame_.Sub(0, size));
}

MutableBytes Session::PayloadOf(const Reply& reply) const {
  return reply.body.Sub(kHeaderBytes, limits_.max_payload);
}

}  // namespace hil
