// What runs a model: ESP-DL on a chip, anything else on a host.
#ifndef ESPDL_STREAM_ENGINE_H_
#define ESPDL_STREAM_ENGINE_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "espdl_stream/error.h"
#include "espdl_stream/span.h"

namespace espdl {

inline constexpr size_t kMaxRank = 8;

// Numbers as in ESP-DL's dtype_t and in the file.
enum class Type : uint8_t {
  kFloat = 1,
  kUint8 = 2,
  kInt8 = 3,
  kUint16 = 4,
  kInt16 = 5,
  kInt32 = 6
};

enum class Side : uint8_t { kInput, kOutput };

// One graph input or output: real = q * 2^exponent.
struct Tensor {
  std::string_view name;
  Type type = Type::kInt8;
  int16_t exponent = 0;
  bool per_channel = false;  // one exponent a channel; then `exponent` is 0
  uint8_t rank = 0;
  uint32_t bytes = 0;
  uint32_t dims[kMaxRank] = {};
};

// The order of inputs and of outputs is the file's.
class Engine {
 public:
  virtual ~Engine() = default;

  virtual size_t Count(Side side) = 0;
  // The name is valid while the model is loaded.
  virtual Error Describe(Side side, size_t index, Tensor* tensor) = 0;

  // Zeroes the model's caches.
  virtual Error Reset() = 0;

  // One step over all graph inputs, into all graph outputs.
  virtual Error Run(Span<const Bytes> inputs, Span<const MutableBytes> outputs) = 0;
};

}  // namespace espdl

#endif  // ESPDL_STREAM_ENGINE_H_
