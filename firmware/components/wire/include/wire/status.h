// What went wrong, as it goes over the wire: a code of protocol.md section 4 and a text.
#ifndef WIRE_STATUS_H_
#define WIRE_STATUS_H_

#include <string_view>

#include "wire/codes.h"

namespace hil {

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
