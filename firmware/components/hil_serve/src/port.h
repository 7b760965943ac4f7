// The port to the host: console text and frames on the same wire.
//
// Both go through the same driver, whose lock keeps a frame in one piece: stdout is
// switched to the driver, and a frame is one driver call. Drivers write bytes as they are, and
// stdout is told to do so too, so nothing turns LF into CR LF.
#ifndef HIL_SERVE_PORT_H_
#define HIL_SERVE_PORT_H_

#include <cstddef>
#include <cstdint>

#include "runner/platform.h"

namespace hil {

class Port : public ByteStream {
 public:
  // Waits until everything written has left the chip, at most half a second.
  virtual void WaitSent() = 0;

  // The highest rate that SetBaud takes; 0 if the port has no rate.
  virtual uint32_t MaxBaud() const = 0;

  // Sends what was written and goes on at another rate, 0: that of the boot. A rate that
  // the clock does not give changes nothing, which the host finds out.
  virtual void SetBaud(uint32_t baud) = 0;
};

// Takes over the console's port. `receive_bytes` is what the host may send while a model
// runs; `frame_bytes` the largest frame. Aborts if the driver cannot be installed: without
// the port there is nobody to tell.
Port* OpenPort(size_t receive_bytes, size_t frame_bytes);

}  // namespace hil

#endif  // HIL_SERVE_PORT_H_
