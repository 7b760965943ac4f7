// The models partition: ESP-DL's package of .espdl files (PDL1, PDL2, PDL3), read in place.
#ifndef RUNNER_MODEL_STORE_H_
#define RUNNER_MODEL_STORE_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "wire/span.h"
#include "wire/status.h"

namespace hil {

// Size of the .espdl file (EDL1, EDL2) that `data` begins with; 0 if it is none or cut short.
[[nodiscard]] size_t EdlSize(Bytes data);

class ModelStore {
 public:
  struct Entry {
    std::string_view name;
    Bytes model;  // EDL header and data, no padding
  };

  // Reads and checks the package at the start of `partition`, which outlives the store. Erased
  // flash or an empty span is a store without models. A PDL3 package must match its own SHA-256.
  // `extra` are models beside it, which come first and outlive the store, too.
  explicit ModelStore(Bytes partition, Span<const Entry> extra = Span<const Entry>());

  // kBadPackage when the partition holds something else; then it gives no entries.
  const Status& status() const { return status_; }
  uint32_t count() const { return static_cast<uint32_t>(extra_.size()) + count_; }
  // index < count()
  Entry At(uint32_t index) const;
  Status Find(std::string_view name, Entry* entry) const;

 private:
  Status Open();
  Status CheckDigest() const;
  Status CheckEntry(uint32_t index) const;
  const uint8_t* Row(uint32_t index) const;

  Span<const Entry> extra_;
  Bytes package_;
  uint32_t table_ = 0;  // offset of the first entry
  uint32_t count_ = 0;
  Status status_;  // last: Open() sets the members above
};

}  // namespace hil

#endif  // RUNNER_MODEL_STORE_H_
