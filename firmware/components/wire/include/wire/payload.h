// Payload fields: bounds-checked reading and writing. Knows no message.
//
// A message describes its fields once, in Serialize(archive), and an archive
// either reads or writes them: integers little endian, strings and bytes as protocol.md section 3
// says.
#ifndef WIRE_PAYLOAD_H_
#define WIRE_PAYLOAD_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "wire/endian.h"
#include "wire/span.h"

namespace hil {

using Sha256Digest = std::array<uint8_t, 32>;

// Strings, spans and lists that it reads are views into the payload.
class PayloadReader {
 public:
  explicit PayloadReader(Bytes data) : data_(data) {}

  template <typename... Fields>
  void operator()(Fields&... fields) {
    (Read(fields), ...);
  }

  // False once a field did not fit; then all fields read since are zero or empty.
  bool ok() const { return ok_; }
  // Nothing failed and nothing is left.
  bool done() const { return ok_ && data_.empty(); }

 private:
  // The next `size` bytes, or null.
  const uint8_t* Take(size_t size) {
    if (!ok_ || data_.size() < size) {
      ok_ = false;
      return nullptr;
    }
    const uint8_t* bytes = data_.data();
    data_ = data_.From(size);
    return bytes;
  }

  void Read(uint8_t& field) {
    const uint8_t* bytes = Take(1);
    field = bytes != nullptr ? bytes[0] : uint8_t{0};
  }
  void Read(uint16_t& field) {
    const uint8_t* bytes = Take(2);
    field = bytes != nullptr ? LoadU16(bytes) : uint16_t{0};
  }
  void Read(int16_t& field) {
    uint16_t bits = 0;
    Read(bits);
    field = static_cast<int16_t>(bits);
  }
  void Read(uint32_t& field) {
    const uint8_t* bytes = Take(4);
    field = bytes != nullptr ? LoadU32(bytes) : 0u;
  }
  void Read(uint64_t& field) {
    const uint8_t* bytes = Take(8);
    field = bytes != nullptr ? LoadU64(bytes) : 0u;
  }
  void Read(Sha256Digest& field) {
    const uint8_t* bytes = Take(field.size());
    if (bytes != nullptr) {
      std::memcpy(field.data(), bytes, field.size());
    } else {
      field.fill(0);
    }
  }
  void Read(std::string_view& field) {
    uint16_t size = 0;
    Read(size);
    const uint8_t* bytes = Take(size);
    field = bytes != nullptr ? std::string_view(reinterpret_cast<const char*>(bytes), size)
                             : std::string_view();
  }
  // The rest of the payload.
  void Read(Bytes& field) {
    field = data_;
    data_ = Bytes();
  }
  template <typename Record>
  auto Read(Record& record) -> decltype(record.Serialize(*this)) {
    record.Serialize(*this);
  }

  Bytes data_;
  bool ok_ = true;
};

class PayloadWriter {
 public:
  explicit PayloadWriter(MutableBytes out) : out_(out) {}

  template <typename... Fields>
  void operator()(const Fields&... fields) {
    (Write(fields), ...);
  }

  // Appends `record` whole, or nothing if it does not fit.
  template <typename Record>
  [[nodiscard]] bool Append(const Record& record) {
    const size_t before = size_;
    Write(record);
    if (ok_) {
      return true;
    }
    size_ = before;
    ok_ = true;
    return false;
  }

  // Room for a u16 that is known later; see Patch.
  size_t Reserve() {
    const size_t at = size_;
    Write(uint16_t{0});
    return at;
  }
  void Patch(size_t at, uint16_t value) { StoreU16(value, out_.data() + at); }

  // Appends `size` bytes that the caller fills in; null if they do not fit.
  uint8_t* Extend(size_t size) {
    if (!ok_ || left() < size) {
      ok_ = false;
      return nullptr;
    }
    uint8_t* bytes = out_.data() + size_;
    size_ += size;
    return bytes;
  }

  // False once a field did not fit.
  bool ok() const { return ok_; }
  size_t size() const { return size_; }
  size_t left() const { return out_.size() - size_; }
  void Clear() {
    size_ = 0;
    ok_ = true;
  }

 private:
  void Write(uint8_t field) {
    uint8_t* bytes = Extend(1);
    if (bytes != nullptr) {
      bytes[0] = field;
    }
  }
  void Write(uint16_t field) {
    uint8_t* bytes = Extend(2);
    if (bytes != nullptr) {
      StoreU16(field, bytes);
    }
  }
  void Write(int16_t field) { Write(static_cast<uint16_t>(field)); }
  void Write(uint32_t field) {
    uint8_t* bytes = Extend(4);
    if (bytes != nullptr) {
      StoreU32(field, bytes);
    }
  }
  void Write(uint64_t field) {
    uint8_t* bytes = Extend(8);
    if (bytes != nullptr) {
      StoreU64(field, bytes);
    }
  }
  void Write(const Sha256Digest& field) { Write(Bytes(field.data(), field.size())); }
  void Write(std::string_view field) {
    if (field.size() > UINT16_MAX) {
      ok_ = false;
      return;
    }
    Write(static_cast<uint16_t>(field.size()));
    Write(Bytes(reinterpret_cast<const uint8_t*>(field.data()), field.size()));
  }
  void Write(Bytes field) {
    uint8_t* bytes = Extend(field.size());
    if (bytes != nullptr && !field.empty()) {
      std::memcpy(bytes, field.data(), field.size());
    }
  }
  // Serialize is one function for both directions, so it cannot be const; writing changes nothing.
  template <typename Record>
  auto Write(const Record& record) -> decltype(const_cast<Record&>(record).Serialize(*this)) {
    const_cast<Record&>(record).Serialize(*this);
  }

  MutableBytes out_;
  size_t size_ = 0;
  bool ok_ = true;
};

// Reads `message` from a payload; false unless it is exactly that message.
template <typename Message>
[[nodiscard]] bool ReadPayload(Bytes payload, Message* message) {
  PayloadReader reader(payload);
  reader(*message);
  return reader.done();
}

}  // namespace hil

#endif  // WIRE_PAYLOAD_H_
