// What can go wrong with a streaming model. No exceptions: every call that can fail returns one.
#ifndef ESPDL_STREAM_ERROR_H_
#define ESPDL_STREAM_ERROR_H_

#include <cstdint>

namespace espdl {

enum class [[nodiscard]] Error : uint8_t {
  kNone,
  kNoModel,
  kEncrypted,
  kUnsupported,
  kNoMemory,
  kTooManyPorts,
  kTooLarge,
  kRank,
  kMismatch,
  kNoSuchPort,
  kBoundTwice,
  kLayout,
  kSize,
  kVectors,
  kDiffers,
  kEngine,
};

constexpr const char* Text(Error error) {
  switch (error) {
    case Error::kNone:
      return "no error";
    case Error::kNoModel:
      return "ESP-DL found no model in these bytes; see the console";
    case Error::kEncrypted:
      return "the model is encrypted; flash or upload it in plain";
    case Error::kUnsupported:
      return "ESP-DL does not support an operator; see the console";
    case Error::kNoMemory:
      return "ESP-DL had no memory for the model's tensors";
    case Error::kTooManyPorts:
      return "the model has more than 64 inputs or outputs";
    case Error::kTooLarge:
      return "the model's inputs and outputs exceed 2 GiB";
    case Error::kRank:
      return "a tensor has more than 8 dimensions";
    case Error::kMismatch:
      return "the model is not the one that its header describes: export both again";
    case Error::kNoSuchPort:
      return "the model has no such input or output";
    case Error::kBoundTwice:
      return "an input is bound twice";
    case Error::kLayout:
      return "output and input of a state differ in dtype, exponent or shape";
    case Error::kSize:
      return "the data is not of the size that the model takes";
    case Error::kVectors:
      return "the test vectors are damaged or of another model";
    case Error::kDiffers:
      return "the model does not give what was proven";
    case Error::kEngine:
      return "the step failed";
  }
  return "unknown error";
}

}  // namespace espdl

// Returns from the enclosing function when `expression` is an error.
#define ESPDL_RETURN_IF_ERROR(expression)             \
  do {                                                \
    const ::espdl::Error espdl_error_ = (expression); \
    if (espdl_error_ != ::espdl::Error::kNone) {      \
      return espdl_error_;                            \
    }                                                 \
  } while (false)

#endif  // ESPDL_STREAM_ERROR_H_
