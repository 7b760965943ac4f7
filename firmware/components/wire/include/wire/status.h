// What went wrong, as it goes over the wire: a code of protocol.md section 4 and a text.
#ifndef WIRE_STATUS_H_
#define WIRE_STATUS_H_

#include <cstdint>
#include <string_view>

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

// The text is static, or owned by the object that returned the status and
// valid until that object's next call.
class [[nodiscard]] Status {
 public:
  constexpr Status() = default;
  constexpr Status(Code code, std::string_view text) : code_(code), text_(text) {}

  constexpr bool ok() const { return code_ == Code::kOk; }
  constexpr Code code() const { return code_; }
  constexpr std::string_view text() const { return text_; }

 private:
  Code code_ = Code::kOk;
  std::string_view text_;
};

constexpr Status Ok() { return Status(); }

}  // namespace hil

// Returns from the enclosing function when `expression` is not ok.
#define HIL_RETURN_IF_ERROR(expression)             \
  do {                                              \
    const ::hil::Status hil_status_ = (expression); \
    if (!hil_status_.ok()) {                        \
      return hil_status_;                           \
    }                                               \
  } while (false)

#endif  // WIRE_STATUS_H_
