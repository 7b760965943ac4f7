// The device's end of the protocol: sequence numbers, repeats, and the requests.
//
//   bytes -> FrameReader -> Session::HandlePacket -> (request executed once) -> reply kept and sent
//
// session.cpp holds the sequence rules of protocol.md section 2, session_requests.cpp the requests
// of section 3.
#ifndef RUNNER_SESSION_H_
#define RUNNER_SESSION_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "runner/loaded_model.h"
#include "runner/model_runner.h"
#include "runner/model_store.h"
#include "runner/platform.h"
#include "runner/sha256.h"
#include "wire/messages.h"
#include "wire/packet.h"
#include "wire/status.h"

namespace hil {

struct Limits {
  uint32_t max_payload = 4096;
  uint32_t max_upload = 0;
  uint16_t max_watch = 64;
  uint8_t window = 8;
  uint8_t max_models = 4;
};
inline constexpr uint32_t kMinPayload = 1024;  // holds every message but data
inline constexpr uint32_t kMaxPayload = 65536;
inline constexpr uint8_t kMaxWindow = 64;
inline constexpr uint8_t kMaxModels = 8;
inline constexpr uint16_t kMaxWatch = 256;
inline constexpr uint32_t kMinBaud = 9600;
inline constexpr uint16_t kBaudTrialMs = 500;
inline constexpr uint8_t kBaudTrialRequests = 2;

// Strings outlive the session.
struct DeviceFacts {
  std::string_view target;
  std::string_view idf_version;
  std::string_view espdl_version;
  std::string_view app_version;
  Sha256Digest app_sha256{};
  uint64_t boot_nonce = 0;
  uint16_t chip_revision = 0;  // major * 100 + minor
  uint16_t cpu_mhz = 0;
  uint16_t flags = 0;     // kDevice...
  uint32_t max_baud = 0;  // of the port; 0: it has no rate
};

// All outlive the session.
struct Platform {
  ByteStream* stream = nullptr;
  ModelRunner* runner = nullptr;
  BufferPool* pool = nullptr;
  System* system = nullptr;
  const ModelStore* store = nullptr;
};

class Session {
 public:
  struct Stats {
    uint64_t packets = 0;     // good packets received
    uint64_t faults = 0;      // frames received damaged
    uint64_t duplicates = 0;  // requests answered from the cache
    uint64_t gaps = 0;        // requests dropped because an earlier one is missing
    uint64_t steps = 0;       // model steps executed
  };

  // Bytes of working memory that a session with these limits needs.
  static constexpr size_t ArenaBytes(const Limits& limits) {
    return FrameReader::BufferBytes(limits.max_payload) + MaxFrameBytes(limits.max_payload) +
           (size_t{limits.window} + 1) * BodyBytes(limits);
  }

  // The least receive buffer of a port, raw bytes: a window of the largest frames.
  static constexpr size_t ReceiveBytes(const Limits& limits) {
    return size_t{limits.window} * MaxFrameBytes(limits.max_payload);
  }

  // `arena` holds ArenaBytes(limits) and outlives the session. Limits are within the constants
  // above.
  Session(const DeviceFacts& facts, const Limits& limits, const Platform& platform,
          MutableBytes arena);

  // Announces the boot. Call once, before Poll.
  void Start();

  // Reads what the stream has and executes at most one request. False when
  // there was nothing to do.
  bool Poll();

  const Stats& stats() const { return stats_; }

 private:
  // A packet's body, as EncodeFrame wants it, kept for repeats.
  struct Reply {
    bool used = false;
    uint8_t type = 0;
    uint32_t session = 0;
    uint32_t seq = 0;
    size_t length = 0;  // of the payload
    MutableBytes body;
  };

  static constexpr size_t BodyBytes(const Limits& limits) {
    return limits.max_payload + kPacketOverhead;
  }

  // Sequence rules, session.cpp.
  void HandlePacket(const Packet& packet);
  void HandleFault();
  void OpenSession(const Packet& hello);
  void Execute(const Packet& packet);
  void Repeat(const Packet& packet);
  void EndBaudTrial();
  void SendReject(RejectReason reason);
  void SendError(const Packet& packet, const Status& status);
  void Send(const Reply& reply);
  template <typename Message>
  void SendUnkept(Type type, uint32_t session, uint32_t seq, const Message& message);
  MutableBytes PayloadOf(const Reply& reply) const;

  // Requests, session_requests.cpp.
  Status Dispatch(const Packet& packet, PayloadWriter* reply);
  Status OnHello(PayloadWriter* reply);
  Status OnListModels(Bytes payload, PayloadWriter* reply);
  Status OnLoad(Bytes payload, PayloadWriter* reply);
  Status OnUploadBegin(Bytes payload, PayloadWriter* reply);
  Status OnUploadData(Bytes payload, PayloadWriter* reply);
  Status OnUploadEnd(PayloadWriter* reply);
  Status OnDescribe(Bytes payload, PayloadWriter* reply);
  Status OnBindState(Bytes payload, PayloadWriter* reply);
  Status OnReset(Bytes payload, PayloadWriter* reply);
  Status OnWatch(Bytes payload, PayloadWriter* reply);
  Status OnStart(Bytes payload, PayloadWriter* reply);
  Status OnChunk(Bytes payload, PayloadWriter* reply);
  Status RunStep(LoadedModel* model, uint32_t stream, uint32_t index, bool is_first,
                 PayloadWriter* reply);
  Status CheckSteps(const LoadedModel& model, size_t data_bytes, size_t* count) const;
  Status OnReadResult(Bytes payload, PayloadWriter* reply);
  Status OnReadTensor(Bytes payload, PayloadWriter* reply);
  Status OnUnload(Bytes payload, PayloadWriter* reply);
  Status OnSetBaud(Bytes payload, PayloadWriter* reply);
  Status LoadInto(std::string_view name, Bytes bytes, PoolBuffer owned, PayloadWriter* reply);
  Status FindModel(uint32_t handle, LoadedModel** model);
  Status FindStream(uint32_t stream, LoadedModel** model);
  void DropUpload();

  DeviceFacts facts_;
  Limits limits_;
  Platform platform_;

  FrameReader reader_;
  uint8_t received_[512];
  Bytes unread_;  // part of received_ not yet fed to reader_
  MutableBytes frame_;
  Reply replies_[kMaxWindow];  // of the last `window` requests; replies_[next_reply_] is the oldest
  uint8_t next_reply_ = 0;
  Reply unkept_;  // for errors and events that are not kept
  uint32_t session_ = 0;
  uint32_t expected_ = 0;
  bool gap_rejected_ = false;  // REJECT(GAP, expected_) was sent
  bool reboot_ = false;
  uint16_t steps_done_ = 0;     // of the packet
  uint32_t next_baud_ = 0;      // to go on at when the reply has left; 0: as before
  uint8_t trial_requests_ = 0;  // until the rate of the line is no longer on trial
  uint32_t trial_end_ms_ = 0;

  LoadedModel models_[kMaxModels];
  uint32_t last_handle_ = 0;
  uint32_t last_stream_ = 0;

  // The open upload: memory, what was announced, what arrived.
  PoolBuffer upload_;
  UploadBegin announced_;
  char upload_name_[kMaxName] = {};
  uint32_t uploaded_ = 0;

  Stats stats_;
};

}  // namespace hil

#endif  // RUNNER_SESSION_H_
