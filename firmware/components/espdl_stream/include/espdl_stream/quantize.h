// Real numbers to a tensor's integers and back: real = q * 2^exponent, rounded as the target does.
#ifndef ESPDL_STREAM_QUANTIZE_H_
#define ESPDL_STREAM_QUANTIZE_H_

#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>

#include "espdl_stream/span.h"

#ifdef ESP_PLATFORM
#include "sdkconfig.h"
#endif

namespace espdl {

enum class Rounding { kHalfUp, kHalfEven };

// What dl::quantize does on this chip.
#if CONFIG_IDF_TARGET_ESP32P4 || CONFIG_IDF_TARGET_ESP32S31
inline constexpr Rounding kRounding = Rounding::kHalfEven;
#else
inline constexpr Rounding kRounding = Rounding::kHalfUp;
#endif

// Saturates; what is not a number becomes 0.
template <typename Int>
Int Quantize(float real, int exponent, Rounding rounding = kRounding) {
  static_assert(std::is_integral_v<Int> && sizeof(Int) <= 2, "int8_t or int16_t");
  const double scaled = std::ldexp(static_cast<double>(real), -exponent);
  if (std::isnan(scaled)) {
    return 0;
  }
  const double rounded =
      rounding == Rounding::kHalfEven ? std::nearbyint(scaled) : std::floor(scaled + 0.5);
  constexpr double kLeast = std::numeric_limits<Int>::min();
  constexpr double kMost = std::numeric_limits<Int>::max();
  return static_cast<Int>(rounded < kLeast ? kLeast : rounded > kMost ? kMost : rounded);
}

template <typename Int>
float Dequantize(Int value, int exponent) {
  return std::ldexp(static_cast<float>(value), exponent);
}

// `out` is as long as `real`.
template <typename Int>
void Quantize(Span<const float> real, int exponent, Span<Int> out, Rounding rounding = kRounding) {
  for (size_t index = 0; index < real.size(); ++index) {
    out[index] = Quantize<Int>(real[index], exponent, rounding);
  }
}

template <typename Int>
void Dequantize(Span<const Int> values, int exponent, Span<float> out) {
  for (size_t index = 0; index < values.size(); ++index) {
    out[index] = Dequantize(values[index], exponent);
  }
}

}  // namespace espdl

#endif  // ESPDL_STREAM_QUANTIZE_H_
