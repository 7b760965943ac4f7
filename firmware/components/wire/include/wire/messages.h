// The messages of protocol.md section 3. Field order is the wire's; units and meanings are there.
//
// A list is `count` and the raw bytes of its items, always last: iterate with a
// PayloadReader over `items`, or append records to a PayloadWriter.
//
// Generated from harness/espdl_hil/wire/messages.py by generate.py beside it.
#ifndef WIRE_MESSAGES_H_
#define WIRE_MESSAGES_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "wire/payload.h"
#include "wire/span.h"

namespace hil {

enum class Type : uint8_t {
  kHello = 0x01,
  kListModels = 0x02,
  kLoad = 0x03,
  kUploadBegin = 0x04,
  kUploadData = 0x05,
  kUploadEnd = 0x06,
  kDescribe = 0x07,
  kBindState = 0x08,
  kReset = 0x09,
  kWatch = 0x0A,
  kStart = 0x0B,
  kChunk = 0x0C,
  kReadResult = 0x0D,
  kReadTensor = 0x0E,
  kQueryMemory = 0x0F,
  kUnload = 0x10,
  kReboot = 0x11,
  kSetBaud = 0x12,
  kQueryUsage = 0x13,
  kBooted = 0xF0,
  kReject = 0xF1,
  kError = 0xFF,
};

inline constexpr uint8_t kReplyBit = 0x80;

inline constexpr size_t kMaxName = 512;  // bytes of a name
inline constexpr size_t kMaxRank = 8;

// What `Describe` lists.
enum class TensorKind : uint8_t { kInput = 0, kOutput = 1, kNodeOutput = 2 };

// What a watch records at each step.
enum class WatchMode : uint8_t { kValue = 0, kDigest = 1 };

// Why the device wants packets again.
enum class RejectReason : uint8_t { kGap = 1, kCorrupt = 2 };

// `HelloReply.flags`.
inline constexpr uint16_t kDeviceSimulated = 1;
inline constexpr uint16_t kDeviceMeasuresTime = 2;
inline constexpr uint16_t kDevicePulses = 4;

// `Start.flags`.
inline constexpr uint16_t kStartReset = 1;
inline constexpr uint16_t kStartRetain = 2;

// `ChunkReply.flags`.
inline constexpr uint16_t kChunkExecuted = 1;
inline constexpr uint16_t kChunkNoTiming = 2;
inline constexpr uint16_t kChunkUnwritten = 4;
inline constexpr uint16_t kChunkSuspect = 8;
inline constexpr uint16_t kChunkRoundingLost = 16;
inline constexpr uint16_t kChunkMisaligned = 32;
inline constexpr uint16_t kChunkVectorUnitLate = 64;

// `TensorInfo.flags`.
inline constexpr uint16_t kTensorPerChannel = 1;

// Of each step after the packet's first, before its result block; as in `ChunkReply`.
struct LaterStep {
  uint16_t flags = 0;
  uint32_t latency_us = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(flags, latency_us);
  }
};

// Follows a `LaterStep` whose flags say that output is unwritten; as in `ChunkReply`.
struct LaterUnwritten {
  uint16_t unwritten_tensors = 0;
  uint16_t unwritten_output = 0;
  uint32_t unwritten_offset = 0;
  uint32_t unwritten_bytes = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(unwritten_tensors, unwritten_output, unwritten_offset, unwritten_bytes);
  }
};

// Heap of the device, bytes.
struct MemoryInfo {
  uint32_t internal_free = 0;
  uint32_t internal_total = 0;
  uint32_t internal_largest = 0;
  uint32_t psram_free = 0;
  uint32_t psram_total = 0;
  uint32_t psram_largest = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(internal_free, internal_total, internal_largest, psram_free, psram_total,
            psram_largest);
  }
};

// One model of the `models` partition.
struct ModelInfo {
  uint32_t size = 0;
  Sha256Digest sha256{};
  std::string_view name;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(size, sha256, name);
  }
};

// `TensorInfo` of the protocol; `flags` is a `TensorFlag`.
struct TensorInfo {
  std::string_view name;
  uint8_t dtype = 0;
  int16_t exponent = 0;
  uint16_t flags = 0;
  uint32_t bytes = 0;
  uint8_t rank = 0;  // above kMaxRank it does not parse: bytes are left over
  uint32_t dims[kMaxRank] = {};
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(name, dtype, exponent, flags, bytes, rank);
    for (size_t axis = 0; axis < rank && axis < kMaxRank; ++axis) {
      archive(dims[axis]);
    }
  }
};

// A graph output that feeds a graph input at the next step.
struct StatePair {
  std::string_view output;
  std::string_view input;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(output, input);
  }
};

// One tensor to record at each step; `mode` is a `WatchMode`.
struct WatchItem {
  uint8_t mode = 0;
  std::string_view name;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(mode, name);
  }
};

// Open a session.
struct Hello {
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive();
  }
};

// What the device is.
struct HelloReply {
  uint64_t boot_nonce = 0;
  Sha256Digest app_sha256{};
  uint16_t chip_revision = 0;
  uint16_t cpu_mhz = 0;
  uint16_t flags = 0;
  uint8_t window = 0;
  uint8_t max_models = 0;
  uint32_t max_payload = 0;
  uint32_t max_upload = 0;
  uint32_t max_baud = 0;
  uint16_t max_watch = 0;
  uint16_t max_name = 0;
  MemoryInfo memory;
  std::string_view target;
  std::string_view idf_version;
  std::string_view espdl_version;
  std::string_view app_version;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(boot_nonce, app_sha256, chip_revision, cpu_mhz, flags, window, max_models, max_payload,
            max_upload, max_baud, max_watch, max_name, memory, target, idf_version, espdl_version,
            app_version);
  }
};

// List the `models` partition from entry `first`.
struct ListModels {
  uint32_t first = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(first);
  }
};

// As many entries as fit a packet.
struct ListModelsReply {
  uint32_t total = 0;
  uint32_t first = 0;
  uint16_t count = 0;
  Bytes items;  // ModelInfo
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(total, first, count, items);
  }
};

// Load a model of the `models` partition.
struct Load {
  std::string_view name;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(name);
  }
};

// The model is loaded.
struct LoadReply {
  uint32_t handle = 0;
  Sha256Digest sha256{};
  uint32_t size = 0;
  uint16_t inputs = 0;
  uint16_t outputs = 0;
  uint32_t intermediates = 0;
  uint32_t internal_bytes = 0;
  uint32_t psram_bytes = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(handle, sha256, size, inputs, outputs, intermediates, internal_bytes, psram_bytes);
  }
};

// Announce a model of `size` bytes.
struct UploadBegin {
  uint32_t size = 0;
  Sha256Digest sha256{};
  std::string_view name;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(size, sha256, name);
  }
};

// There is room for `size` bytes.
struct UploadBeginReply {
  uint32_t size = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(size);
  }
};

// A part of the model; `offset` is where the previous part ended.
struct UploadData {
  uint32_t offset = 0;
  Bytes data;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(offset, data);
  }
};

// The offset expected next.
struct UploadDataReply {
  uint32_t next_offset = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(next_offset);
  }
};

// Verify and load what was uploaded.
struct UploadEnd {
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive();
  }
};

// The uploaded model is loaded.
struct UploadEndReply {
  uint32_t handle = 0;
  Sha256Digest sha256{};
  uint32_t size = 0;
  uint16_t inputs = 0;
  uint16_t outputs = 0;
  uint32_t intermediates = 0;
  uint32_t internal_bytes = 0;
  uint32_t psram_bytes = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(handle, sha256, size, inputs, outputs, intermediates, internal_bytes, psram_bytes);
  }
};

// List tensors of one `TensorKind` from `first`.
struct Describe {
  uint32_t handle = 0;
  uint8_t kind = 0;
  uint32_t first = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(handle, kind, first);
  }
};

// As many tensors as fit a packet.
struct DescribeReply {
  uint32_t handle = 0;
  uint8_t kind = 0;
  uint32_t total = 0;
  uint32_t first = 0;
  uint16_t count = 0;
  Bytes items;  // TensorInfo
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(handle, kind, total, first, count, items);
  }
};

// Replace all state bindings of a model.
struct BindState {
  uint32_t handle = 0;
  uint16_t count = 0;
  Bytes items;  // StatePair
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(handle, count, items);
  }
};

// Bytes of state, and of the step input block that remains.
struct BindStateReply {
  uint32_t handle = 0;
  uint32_t state_bytes = 0;
  uint32_t input_bytes = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(handle, state_bytes, input_bytes);
  }
};

// Zero caches and bound state.
struct Reset {
  uint32_t handle = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(handle);
  }
};

// State is zero.
struct ResetReply {
  uint32_t handle = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(handle);
  }
};

// Replace the list of tensors recorded at each step.
struct Watch {
  uint32_t handle = 0;
  uint16_t count = 0;
  Bytes items;  // WatchItem
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(handle, count, items);
  }
};

// Size of all records, and the tensors in request order, nameless.
struct WatchReply {
  uint32_t handle = 0;
  uint32_t watch_bytes = 0;
  uint16_t count = 0;
  Bytes items;  // TensorInfo
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(handle, watch_bytes, count, items);
  }
};

// Start a stream of chunks; `flags` is a `StartFlag`.
struct Start {
  uint32_t handle = 0;
  uint16_t flags = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(handle, flags);
  }
};

// The stream, what it runs on, and the size of its blocks in bytes.
struct StartReply {
  uint32_t handle = 0;
  uint32_t stream = 0;
  Sha256Digest model_sha256{};
  uint64_t boot_nonce = 0;
  uint32_t input_bytes = 0;
  uint32_t output_bytes = 0;
  uint32_t result_bytes = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(handle, stream, model_sha256, boot_nonce, input_bytes, output_bytes, result_bytes);
  }
};

// The input blocks of steps from `index` on, or a fragment of one.
struct Chunk {
  uint32_t stream = 0;
  uint32_t index = 0;
  uint32_t offset = 0;
  Bytes data;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(stream, index, offset, data);
  }
};

// The result block, or its start, then those of later steps; `flags` is a `ChunkFlag`.
struct ChunkReply {
  uint32_t stream = 0;
  uint32_t index = 0;
  uint16_t flags = 0;
  uint16_t unwritten_tensors = 0;
  uint16_t unwritten_output = 0;
  uint32_t unwritten_offset = 0;
  uint32_t unwritten_bytes = 0;
  uint32_t latency_us = 0;
  uint32_t result_bytes = 0;
  Bytes data;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(stream, index, flags, unwritten_tensors, unwritten_output, unwritten_offset,
            unwritten_bytes, latency_us, result_bytes, data);
  }
};

// Read a part of the result block of the stream's last step.
struct ReadResult {
  uint32_t stream = 0;
  uint32_t index = 0;
  uint32_t offset = 0;
  uint32_t length = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(stream, index, offset, length);
  }
};

// At most `length` bytes from `offset`.
struct ReadResultReply {
  uint32_t offset = 0;
  Bytes data;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(offset, data);
  }
};

// Read a part of a tensor of the model's last step.
struct ReadTensor {
  uint32_t handle = 0;
  uint32_t offset = 0;
  uint32_t length = 0;
  std::string_view name;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(handle, offset, length, name);
  }
};

// Bytes from `offset` of a tensor of `total` bytes.
struct ReadTensorReply {
  uint32_t total = 0;
  uint32_t offset = 0;
  Bytes data;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(total, offset, data);
  }
};

// `MEMORY`.
struct QueryMemory {
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive();
  }
};

// The heap now.
struct QueryMemoryReply {
  MemoryInfo memory;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(memory);
  }
};

// Free a model.
struct Unload {
  uint32_t handle = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(handle);
  }
};

// The model is gone.
struct UnloadReply {
  uint32_t handle = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(handle);
  }
};

// Restart the device.
struct Reboot {
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive();
  }
};

// The device restarts now.
struct RebootReply {
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive();
  }
};

// Go on at another rate of the line.
struct SetBaud {
  uint32_t baud = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(baud);
  }
};

// The last packet at the old rate; the new one is on trial for so long.
struct SetBaudReply {
  uint32_t baud = 0;
  uint16_t trial_ms = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(baud, trial_ms);
  }
};

// `USAGE`.
struct QueryUsage {
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive();
  }
};

// What the model that was loaded last has cost so far; 0 for what is not known.
struct QueryUsageReply {
  uint32_t load_us = 0;
  uint32_t internal_least = 0;
  uint32_t psram_least = 0;
  uint32_t stack_least = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(load_us, internal_least, psram_least, stack_least);
  }
};

// Event: the app is up.
struct Booted {
  uint64_t boot_nonce = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(boot_nonce);
  }
};

// Event: send everything from `expected` on again; `reason` is a `RejectReason`.
struct Reject {
  uint8_t reason = 0;
  uint32_t expected = 0;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(reason, expected);
  }
};

// The request failed after `done` of its steps; `code` is an `ErrorCode`.
struct ErrorReply {
  uint16_t code = 0;
  uint8_t request = 0;
  uint16_t done = 0;
  std::string_view text;
  template <typename Archive>
  void Serialize(Archive& archive) {
    archive(code, request, done, text);
  }
};

}  // namespace hil

#endif  // WIRE_MESSAGES_H_
