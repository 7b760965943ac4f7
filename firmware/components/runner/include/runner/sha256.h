// SHA-256 (FIPS 180-4), so that every platform computes the hashes it reports with the same code.
#ifndef RUNNER_SHA256_H_
#define RUNNER_SHA256_H_

#include <cstddef>
#include <cstdint>

#include "wire/payload.h"
#include "wire/span.h"

namespace hil {

class Sha256 {
 public:
  void Update(Bytes data);
  // The digest of everything; the object is used up.
  [[nodiscard]] Sha256Digest Finish();

  [[nodiscard]] static Sha256Digest Of(Bytes data);

 private:
  static constexpr size_t kBlock = 64;

  void Compress(const uint8_t* block);

  uint32_t state_[8] = {0x6A09E667u, 0xBB67AE85u, 0x3C6EF372u, 0xA54FF53Au,
                        0x510E527Fu, 0x9B05688Cu, 0x1F83D9ABu, 0x5BE0CD19u};
  uint8_t block_[kBlock] = {};
  uint64_t total_ = 0;  // bytes so far
};

}  // namespace hil

#endif  // RUNNER_SHA256_H_
