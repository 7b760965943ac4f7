// Little-endian integers at any address.
#ifndef WIRE_ENDIAN_H_
#define WIRE_ENDIAN_H_

#include <cstdint>

namespace hil {

inline uint16_t LoadU16(const uint8_t* bytes) {
  return static_cast<uint16_t>(bytes[0] | (bytes[1] << 8));
}

inline uint32_t LoadU32(const uint8_t* bytes) {
  return static_cast<uint32_t>(bytes[0]) | (static_cast<uint32_t>(bytes[1]) << 8) |
         (static_cast<uint32_t>(bytes[2]) << 16) | (static_cast<uint32_t>(bytes[3]) << 24);
}

inline uint64_t LoadU64(const uint8_t* bytes) {
  return LoadU32(bytes) | (static_cast<uint64_t>(LoadU32(bytes + 4)) << 32);
}

inline void StoreU16(uint16_t value, uint8_t* bytes) {
  bytes[0] = static_cast<uint8_t>(value);
  bytes[1] = static_cast<uint8_t>(value >> 8);
}

inline void StoreU32(uint32_t value, uint8_t* bytes) {
  StoreU16(static_cast<uint16_t>(value), bytes);
  StoreU16(static_cast<uint16_t>(value >> 16), bytes + 2);
}

inline void StoreU64(uint64_t value, uint8_t* bytes) {
  StoreU32(static_cast<uint32_t>(value), bytes);
  StoreU32(static_cast<uint32_t>(value >> 32), bytes + 4);
}

}  // namespace hil

#endif  // WIRE_ENDIAN_H_
