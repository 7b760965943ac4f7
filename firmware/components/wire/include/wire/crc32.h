// CRC-32 of IEEE 802.3, the one of zlib.
#ifndef WIRE_CRC32_H_
#define WIRE_CRC32_H_

#include <cstdint>

#include "wire/span.h"

namespace hil {

// CRC-32 of `data`; `previous` is the CRC of what came before it, 0 at the start.
[[nodiscard]] uint32_t Crc32(Bytes data, uint32_t previous = 0);

}  // namespace hil

#endif  // WIRE_CRC32_H_
