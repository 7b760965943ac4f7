// The error codes of protocol.md section 4.
//
// Generated from harness/espdl_hil/wire/messages.py by generate.py beside it.
#ifndef WIRE_CODES_H_
#define WIRE_CODES_H_

#include <cstdint>

namespace hil {

enum class Code : uint16_t {
  kOk = 0,
  kBadRequest = 1,
  kUnknownType = 2,
  kNoSession = 3,
  kStaleSequence = 4,
  kTooLarge = 5,
  kNoSuchModel = 6,
  kNoSuchTensor = 7,
  kBadHandle = 8,
  kNoSlot = 9,
  kOutOfMemory = 10,
  kHashMismatch = 11,
  kBadPackage = 12,
  kLoadFailed = 13,
  kUploadState = 14,
  kStateBinding = 15,
  kNoStream = 16,
  kChunkOrder = 17,
  kStreamBroken = 18,
  kRunFailed = 19,
  kNotRetained = 20,
  kNotAvailable = 21,
  kVersion = 22,
  kInternal = 23,
};

}  // namespace hil

#endif  // WIRE_CODES_H_
