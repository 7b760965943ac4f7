// The port on USB-Serial-JTAG.
#include "driver/usb_serial_jtag.h"
#include "driver/usb_serial_jtag_vfs.h"
#include "esp_err.h"
#include "esp_idf_version.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "port.h"

namespace hil {
namespace {

constexpr TickType_t kReadTicks = pdMS_TO_TICKS(20);
// A host that has the port open takes a frame in milliseconds; one that has not, never.
constexpr TickType_t kWriteTicks = pdMS_TO_TICKS(200);
constexpr TickType_t kSentTicks = pdMS_TO_TICKS(500);
constexpr size_t kTextBytes = 1024;  // room for console text beside a frame

class UsbPort final : public Port {
 public:
  size_t Read(MutableBytes out) override {
    const int read = usb_serial_jtag_read_bytes(out.data(), out.size(), kReadTicks);
    return read > 0 ? static_cast<size_t>(read) : 0;
  }

  // All or nothing: a frame that does not fit in time is dropped, and asked for again.
  void Write(Bytes frame) override {
    usb_serial_jtag_write_bytes(frame.data(), frame.size(), kWriteTicks);
  }

  void WaitSent() override {
#if ESP_IDF_VERSION >= ESP_IDF_VERSION_VAL(5, 4, 0)
    usb_serial_jtag_wait_tx_done(kSentTicks);
#else
    vTaskDelay(kSentTicks);  // 5.3 cannot tell when the ring is empty
#endif
  }

  uint32_t MaxBaud() const override { return 0; }

  void SetBaud(uint32_t) override {}
};

}  // namespace

Port* OpenPort(size_t receive_bytes, size_t frame_bytes) {
  static UsbPort port;
  // A receive ring that is full drops up to 64 bytes without a word: it holds a whole window. The
  // transmit ring must hold a frame, or every write of one fails.
  usb_serial_jtag_driver_config_t config = USB_SERIAL_JTAG_DRIVER_CONFIG_DEFAULT();
  config.rx_buffer_size = receive_bytes;
  config.tx_buffer_size = frame_bytes + kTextBytes;
  ESP_ERROR_CHECK(usb_serial_jtag_driver_install(&config));
  usb_serial_jtag_vfs_use_driver();
  usb_serial_jtag_vfs_set_rx_line_endings(ESP_LINE_ENDINGS_LF);
  usb_serial_jtag_vfs_set_tx_line_endings(ESP_LINE_ENDINGS_LF);
  return &port;
}

}  // namespace hil
