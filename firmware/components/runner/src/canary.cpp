#include "runner/canary.h"

namespace hil {
namespace {

// Marsaglia's xorshift32, a byte at a time.
class Pattern {
 public:
  // Spreads neighbouring seeds apart; the state must not be zero.
  explicit Pattern(uint32_t seed) : state_((seed + 1) * 0x9E3779B1u | 1u) {}

  uint8_t Next() {
    if (left_ == 0) {
      state_ ^= state_ << 13;
      state_ ^= state_ >> 17;
      state_ ^= state_ << 5;
      word_ = state_;
      left_ = 4;
    }
    const uint8_t byte = static_cast<uint8_t>(word_);
    word_ >>= 8;
    --left_;
    return byte;
  }

 private:
  uint32_t state_;
  uint32_t word_ = 0;
  int left_ = 0;
};

}  // namespace

void FillCanary(uint32_t seed, MutableBytes out) {
  Pattern pattern(seed);
  for (uint8_t& byte : out) {
    byte = pattern.Next();
  }
}

CanaryScan ScanCanary(uint32_t seed, Bytes data) {
  Pattern pattern(seed);
  CanaryScan scan;
  size_t run = 0;
  size_t equal = 0;
  for (size_t index = 0; index < data.size(); ++index) {
    if (data[index] != pattern.Next()) {
      run = 0;
      continue;
    }
    ++equal;
    ++run;
    if (run == kCanaryRun) {
      if (scan.bytes == 0) {
        scan.first = static_cast<uint32_t>(index + 1 - kCanaryRun);
      }
      scan.bytes += static_cast<uint32_t>(kCanaryRun);
    } else if (run > kCanaryRun) {
      ++scan.bytes;
    }
  }
  scan.whole = !data.empty() && equal == data.size();
  return scan;
}

}  // namespace hil
