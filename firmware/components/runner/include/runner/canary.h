// Canary bytes in output memory: what a model did not write is still there afterwards.
#ifndef RUNNER_CANARY_H_
#define RUNNER_CANARY_H_

#include <cstddef>
#include <cstdint>

#include "wire/span.h"

namespace hil {

// Consecutive canary bytes that cannot be legitimate data: one chance in 2^128.
inline constexpr size_t kCanaryRun = 16;

struct CanaryScan {
  uint32_t first = 0;  // offset of the first run of kCanaryRun or more
  uint32_t bytes = 0;  // bytes in all such runs
  bool whole = false;  // every byte is the canary's
};

// Fills `out` with bytes that depend on seed and position.
void FillCanary(uint32_t seed, MutableBytes out);

// Looks for what is left of it.
[[nodiscard]] CanaryScan ScanCanary(uint32_t seed, Bytes data);

}  // namespace hil

#endif  // RUNNER_CANARY_H_
