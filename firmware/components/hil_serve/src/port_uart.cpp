// The port on the console's UART.
#include <algorithm>

#include "driver/uart.h"
#include "driver/uart_vfs.h"
#include "esp_err.h"
#include "freertos/FreeRTOS.h"
#include "port.h"
#include "sdkconfig.h"

#if CONFIG_HIL_SERVE && CONFIG_ESP_CONSOLE_UART_NUM < 0
#error "hil_serve talks on the console: set ESP_CONSOLE_UART_* or ESP_CONSOLE_USB_SERIAL_JTAG"
#endif

namespace hil {
namespace {

constexpr uart_port_t kUart = static_cast<uart_port_t>(CONFIG_ESP_CONSOLE_UART_NUM);
constexpr TickType_t kReadTicks = pdMS_TO_TICKS(20);
constexpr TickType_t kSentTicks = pdMS_TO_TICKS(500);
constexpr uint32_t kMaxBaud = 5000000;  // of all chips

class UartPort final : public Port {
 public:
  // uart_read_bytes waits until it has all that was asked for: ask for one byte, then for
  // what has come in the meantime.
  size_t Read(MutableBytes out) override {
    if (uart_read_bytes(kUart, out.data(), 1, kReadTicks) != 1) {
      return 0;
    }
    size_t waiting = 0;
    if (uart_get_buffered_data_len(kUart, &waiting) != ESP_OK) {
      return 1;
    }
    const size_t more = std::min(waiting, out.size() - 1);
    const int read = more == 0 ? 0 : uart_read_bytes(kUart, out.data() + 1, more, 0);
    return 1 + static_cast<size_t>(std::max(read, 0));
  }

  // Without flow control the UART always drains, so this ends.
  void Write(Bytes frame) override { uart_write_bytes(kUart, frame.data(), frame.size()); }

  void WaitSent() override { uart_wait_tx_done(kUart, kSentTicks); }

  uint32_t MaxBaud() const override { return kMaxBaud; }

  void SetBaud(uint32_t baud) override {
    WaitSent();
    uart_set_baudrate(kUart, baud == 0 ? CONFIG_ESP_CONSOLE_UART_BAUDRATE : baud);
  }
};

}  // namespace

Port* OpenPort(size_t receive_bytes, size_t frame_bytes) {
  static UartPort port;
  (void)frame_bytes;
  // A transmit ring would make the driver spin when it is full: none.
  ESP_ERROR_CHECK(uart_driver_install(kUart, static_cast<int>(receive_bytes), 0, 0, nullptr, 0));
  uart_vfs_dev_use_driver(kUart);
  uart_vfs_dev_port_set_rx_line_endings(kUart, ESP_LINE_ENDINGS_LF);
  uart_vfs_dev_port_set_tx_line_endings(kUart, ESP_LINE_ENDINGS_LF);
  return &port;
}

}  // namespace hil
