// Consistent Overhead Byte Stuffing: any bytes to bytes without zeros, and back.
#ifndef WIRE_COBS_H_
#define WIRE_COBS_H_

#include <cstddef>

#include "wire/span.h"

namespace hil {

inline constexpr size_t kCobsBlock = 254;  // data bytes of the longest block

// Longest encoding of `size` bytes.
constexpr size_t CobsMaxEncoded(size_t size) { return size + size / kCobsBlock + 1; }

// Encodes `data` into `out`, which holds at least CobsMaxEncoded(data.size()) bytes
// and does not overlap it. Returns the encoded size.
[[nodiscard]] size_t CobsEncode(Bytes data, MutableBytes out);

// Decodes in place. Returns false if `data` is no COBS encoding; then its bytes are unchanged.
[[nodiscard]] bool CobsDecode(MutableBytes data, size_t* decoded_size);

// Decodes the first out.size() bytes, fewer than kCobsBlock; `data` holds at least one
// byte more than that and no zero.
void CobsDecodePrefix(Bytes data, MutableBytes out);

}  // namespace hil

#endif  // WIRE_COBS_H_
