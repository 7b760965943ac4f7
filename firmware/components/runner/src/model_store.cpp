// PDL1, PDL2: magic, u32 n, n rows.  PDL3: magic, char[16] version, u32 size, sha256[32] over the
// package with this field zero, u32 n, n rows.  Row: u32 data offset, u32 name offset, u32 name
// length. EDL1, EDL2: magic, u32 mode, u32 data length (EDL2: u32 0), data.
#include "runner/model_store.h"

#include <cstring>

#include "runner/sha256.h"
#include "wire/endian.h"
#include "wire/messages.h"

namespace hil {
namespace {

constexpr uint32_t kMagicBytes = 4;
constexpr uint32_t kRowBytes = 12;
constexpr uint32_t kTableV1 = 8;
constexpr uint32_t kSizeAt = 20;
constexpr uint32_t kDigestAt = 24;
constexpr uint32_t kCountAtV3 = 56;
constexpr uint32_t kTableV3 = 60;
constexpr uint32_t kHeaderEdl1 = 12;
constexpr uint32_t kHeaderEdl2 = 16;

bool HasMagic(Bytes data, const char* magic) {
  return data.size() >= kMagicBytes && std::memcmp(data.data(), magic, kMagicBytes) == 0;
}

}  // namespace

size_t EdlSize(Bytes data) {
  const uint32_t header = HasMagic(data, "EDL2") ? kHeaderEdl2 : kHeaderEdl1;
  if (!(HasMagic(data, "EDL1") || HasMagic(data, "EDL2")) || data.size() < header) {
    return 0;
  }
  const uint32_t length = LoadU32(data.data() + 8);
  return length <= data.size() - header ? header + length : 0;
}

ModelStore::ModelStore(Bytes partition, Span<const Entry> extra)
    : extra_(extra), package_(partition), status_(Open()) {
  if (!status_.ok()) {
    count_ = 0;
  }
}

Status ModelStore::Open() {
  if (package_.empty() || HasMagic(package_, "\xFF\xFF\xFF\xFF")) {
    return Ok();
  }
  if (HasMagic(package_, "PDL3")) {
    if (package_.size() < kTableV3) {
      return Status(Code::kBadPackage, "models partition: package header is cut short");
    }
    const uint32_t size = LoadU32(package_.data() + kSizeAt);
    if (size < kTableV3 || size > package_.size()) {
      return Status(Code::kBadPackage, "models partition: package size exceeds the partition");
    }
    package_ = package_.Sub(0, size);
    HIL_RETURN_IF_ERROR(CheckDigest());
    count_ = LoadU32(package_.data() + kCountAtV3);
    table_ = kTableV3;
  } else if (HasMagic(package_, "PDL1") || HasMagic(package_, "PDL2")) {
    if (package_.size() < kTableV1) {
      return Status(Code::kBadPackage, "models partition: package header is cut short");
    }
    count_ = LoadU32(package_.data() + kMagicBytes);
    table_ = kTableV1;
  } else {
    return Status(Code::kBadPackage, "models partition holds no PDL package");
  }
  if (count_ > (package_.size() - table_) / kRowBytes) {
    return Status(Code::kBadPackage, "models partition: entry table is cut short");
  }
  for (uint32_t index = 0; index < count_; ++index) {
    HIL_RETURN_IF_ERROR(CheckEntry(index));
  }
  return Ok();
}

Status ModelStore::CheckDigest() const {
  const Sha256Digest zero{};
  Sha256 hash;
  hash.Update(package_.Sub(0, kDigestAt));
  hash.Update(Bytes(zero.data(), zero.size()));
  hash.Update(package_.From(kDigestAt + zero.size()));
  const Sha256Digest digest = hash.Finish();
  if (std::memcmp(digest.data(), package_.data() + kDigestAt, digest.size()) != 0) {
    return Status(Code::kBadPackage, "models partition: package does not match its own SHA-256");
  }
  return Ok();
}

Status ModelStore::CheckEntry(uint32_t index) const {
  const uint32_t data_at = LoadU32(Row(index));
  const uint32_t name_at = LoadU32(Row(index) + 4);
  const uint32_t name_size = LoadU32(Row(index) + 8);
  if (name_at > package_.size() || name_size > package_.size() - name_at || name_size > kMaxName) {
    return Status(Code::kBadPackage, "models partition: entry name is out of range");
  }
  if (data_at > package_.size() || EdlSize(package_.From(data_at)) == 0) {
    return Status(Code::kBadPackage, "models partition: entry is no whole .espdl file");
  }
  return Ok();
}

const uint8_t* ModelStore::Row(uint32_t index) const {
  return package_.data() + table_ + size_t{kRowBytes} * index;
}

ModelStore::Entry ModelStore::At(uint32_t index) const {
  if (index < extra_.size()) {
    return extra_[index];
  }
  index -= static_cast<uint32_t>(extra_.size());
  const Bytes data = package_.From(LoadU32(Row(index)));
  const uint8_t* name = package_.data() + LoadU32(Row(index) + 4);
  return Entry{std::string_view(reinterpret_cast<const char*>(name), LoadU32(Row(index) + 8)),
               data.Sub(0, EdlSize(data))};
}

Status ModelStore::Find(std::string_view name, Entry* entry) const {
  for (uint32_t index = 0; index < count(); ++index) {
    *entry = At(index);
    if (entry->name == name) {
      return Ok();
    }
  }
  HIL_RETURN_IF_ERROR(status_);
  return Status(Code::kNoSuchModel, "no model of that name in the models partition");
}

}  // namespace hil
