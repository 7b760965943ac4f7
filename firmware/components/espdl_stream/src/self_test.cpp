#include "espdl_stream/self_test.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

namespace espdl {
namespace {

constexpr size_t kHeaderBytes = 48;
constexpr size_t kDigestAt = 16;
constexpr size_t kDigestBytes = 32;
// A chip's expf and a desktop's are not one function.
constexpr float kFloatRelative = 1e-6f;

uint32_t LoadU32(const uint8_t* at) {
  return static_cast<uint32_t>(at[0]) | static_cast<uint32_t>(at[1]) << 8 |
         static_cast<uint32_t>(at[2]) << 16 | static_cast<uint32_t>(at[3]) << 24;
}

template <typename T>
T At(Bytes data, size_t index) {
  T value;
  std::memcpy(&value, data.data() + index * sizeof(T), sizeof(T));
  return value;
}

template <typename Int>
uint32_t IntegerLsb(Bytes expected, Bytes observed, size_t index) {
  return static_cast<uint32_t>(std::llabs(static_cast<int64_t>(At<Int>(expected, index)) -
                                          static_cast<int64_t>(At<Int>(observed, index))));
}

size_t ElementBytes(Type type) {
  return type == Type::kInt8 || type == Type::kUint8     ? 1
         : type == Type::kInt16 || type == Type::kUint16 ? 2
                                                         : 4;
}

// Difference of one element; a float that differs by more than is allowed is past any tolerance.
uint32_t Lsb(Type type, Bytes expected, Bytes observed, size_t index) {
  switch (type) {
    case Type::kInt8:
      return IntegerLsb<int8_t>(expected, observed, index);
    case Type::kUint8:
      return IntegerLsb<uint8_t>(expected, observed, index);
    case Type::kInt16:
      return IntegerLsb<int16_t>(expected, observed, index);
    case Type::kUint16:
      return IntegerLsb<uint16_t>(expected, observed, index);
    case Type::kInt32:
      return IntegerLsb<int32_t>(expected, observed, index);
    case Type::kFloat:
      break;
  }
  const float want = At<float>(expected, index);
  const float seen = At<float>(observed, index);
  return std::fabs(want - seen) <= kFloatRelative * std::fabs(want) ? 0 : UINT32_MAX;
}

bool IsOf(const Spec& spec, const uint8_t* digest) {
  constexpr char kHex[] = "0123456789abcdef";
  if (spec.sha256.size() != 2 * kDigestBytes) {
    return false;
  }
  for (size_t index = 0; index < kDigestBytes; ++index) {
    if (spec.sha256[2 * index] != kHex[digest[index] >> 4] ||
        spec.sha256[2 * index + 1] != kHex[digest[index] & 15]) {
      return false;
    }
  }
  return true;
}

void CompareStep(const Stream& stream, const Spec& spec, Bytes expected, uint32_t step,
                 SelfTestResult* result) {
  for (size_t output = 0; output < stream.output_count(); ++output) {
    const Bytes observed = stream.output(output);
    const Type type = spec.outputs[output].tensor.type;
    const size_t elements = observed.size() / ElementBytes(type);
    for (size_t element = 0; element < elements; ++element) {
      const uint32_t lsb = Lsb(type, expected, observed, element);
      if (lsb != UINT32_MAX) {
        result->max_lsb = std::max(result->max_lsb, lsb);
      }
      if (lsb > spec.tolerance_lsb && result->differing++ == 0) {
        result->step = step;
        result->output = static_cast<uint32_t>(output);
        result->element = static_cast<uint32_t>(element);
      }
    }
    result->elements += static_cast<uint32_t>(elements);
    expected = expected.From(observed.size());
  }
}

}  // namespace

Error SelfTest(Stream* stream, const Spec& spec, Bytes vectors, SelfTestResult* result) {
  *result = SelfTestResult();
  if (vectors.size() < kHeaderBytes || std::memcmp(vectors.data(), "ESV1", 4) != 0) {
    return Error::kVectors;
  }
  const uint32_t steps = LoadU32(vectors.data() + 4);
  const size_t step_bytes = stream->input_bytes() + stream->output_bytes();
  if (steps == 0 || LoadU32(vectors.data() + 8) != stream->input_bytes() ||
      LoadU32(vectors.data() + 12) != stream->output_bytes() ||
      vectors.size() != kHeaderBytes + uint64_t{steps} * step_bytes ||
      !IsOf(spec, vectors.data() + kDigestAt) || spec.outputs.size() != stream->output_count()) {
    return Error::kVectors;
  }
  ESPDL_RETURN_IF_ERROR(stream->Reset());
  Bytes rest = vectors.From(kHeaderBytes);
  for (uint32_t step = 0; step < steps; ++step) {
    for (size_t index = 0; index < stream->input_count(); ++index) {
      const MutableBytes input = stream->input(index);
      if (!stream->is_bound(index) && !input.empty()) {
        std::memcpy(input.data(), rest.data(), input.size());
        rest = rest.From(input.size());
      }
    }
    ESPDL_RETURN_IF_ERROR(stream->Run());
    stream->Advance();
    CompareStep(*stream, spec, rest.Sub(0, stream->output_bytes()), step, result);
    rest = rest.From(stream->output_bytes());
    ++result->steps;
  }
  ESPDL_RETURN_IF_ERROR(stream->Reset());
  return result->differing == 0 ? Error::kNone : Error::kDiffers;
}

}  // namespace espdl
