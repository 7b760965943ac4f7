// What the core needs from the platform that it runs on. The core itself never allocates,
// reads the clock only while a rate of the line is on trial, and knows no port.
#ifndef RUNNER_PLATFORM_H_
#define RUNNER_PLATFORM_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "wire/span.h"

namespace hil {

// The byte stream to the host.
class ByteStream {
 public:
  virtual ~ByteStream() = default;

  // Reads what is there, at most out.size() bytes; may wait a few milliseconds for the first.
  // Returns the number read.
  virtual size_t Read(MutableBytes out) = 0;

  // Sends one frame, not torn apart by console text. A frame that cannot be sent in a
  // finite time is dropped: the host asks again.
  virtual void Write(Bytes frame) = 0;
};

// Memory for models, their tensors and uploads; used when a model is loaded, watched
// or unloaded, never in a step.
class BufferPool {
 public:
  virtual ~BufferPool() = default;

  // `size` bytes aligned to 16, or an empty span.
  virtual MutableBytes Acquire(size_t size) = 0;
  virtual void Release(MutableBytes buffer) = 0;
};

class System {
 public:
  virtual ~System() = default;

  // Restarts the device; what was written before is sent first. May return (on a host).
  virtual void Reboot() = 0;

  // Goes on at another rate of the port, once what was written before is sent; 0 is the rate of
  // the boot. Never called where DeviceFacts::max_baud is 0.
  virtual void SetBaud(uint32_t baud) = 0;

  // Milliseconds of a monotonic clock; wraps.
  virtual uint32_t NowMs() = 0;
};

// Owns one buffer of a pool.
class PoolBuffer {
 public:
  PoolBuffer() = default;
  PoolBuffer(BufferPool* pool, size_t size) : pool_(pool), bytes_(pool->Acquire(size)) {}
  ~PoolBuffer() { Release(); }
  PoolBuffer(PoolBuffer&& other) noexcept { *this = std::move(other); }
  PoolBuffer& operator=(PoolBuffer&& other) noexcept {
    if (this != &other) {
      Release();
      pool_ = std::exchange(other.pool_, nullptr);
      bytes_ = std::exchange(other.bytes_, MutableBytes());
    }
    return *this;
  }
  PoolBuffer(const PoolBuffer&) = delete;
  PoolBuffer& operator=(const PoolBuffer&) = delete;

  // Empty if the pool had no room.
  MutableBytes bytes() const { return bytes_; }

  void Release() {
    if (!bytes_.empty()) {
      pool_->Release(bytes_);
      bytes_ = MutableBytes();
    }
  }

 private:
  BufferPool* pool_ = nullptr;
  MutableBytes bytes_;
};

}  // namespace hil

#endif  // RUNNER_PLATFORM_H_
