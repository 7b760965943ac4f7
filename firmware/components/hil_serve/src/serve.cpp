// Wires the core to this chip and runs it.
#include "hil_serve/serve.h"

#if CONFIG_HIL_SERVE
#include <cinttypes>
#include <cstdlib>

#include "device_facts.h"
#include "esp_err.h"
#include "esp_heap_caps.h"
#include "esp_log.h"
#include "esp_partition.h"
#include "esp_system.h"
#include "esp_timer.h"
#include "espdl_runner.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "port.h"
#include "runner/session.h"

namespace hil {
namespace {

constexpr char kTag[] = "hil";
constexpr char kModelsPartition[] = "models";
constexpr TickType_t kPulseTicks = pdMS_TO_TICKS(1000);
constexpr uint32_t kPulseStackBytes = 2048;
constexpr int64_t kPauseEveryUs = 1000000;

constexpr hil::Limits MakeLimits() {
  hil::Limits limits;
  limits.max_payload = CONFIG_HIL_MAX_PAYLOAD;
  limits.max_upload = CONFIG_HIL_MAX_UPLOAD_KB * 1024u;
  limits.window = CONFIG_HIL_WINDOW;
  limits.max_models = CONFIG_HIL_MAX_MODELS;
  return limits;
}

constexpr hil::Limits kLimits = MakeLimits();
static_assert(kLimits.max_payload >= hil::kMinPayload && kLimits.max_payload <= hil::kMaxPayload);
static_assert(kLimits.window <= hil::kMaxWindow && kLimits.max_models <= hil::kMaxModels);

// PSRAM where there is any, aligned for SIMD loads.
class HeapPool final : public hil::BufferPool {
 public:
  hil::MutableBytes Acquire(size_t size) override {
    void* memory = heap_caps_aligned_alloc(kAlignment, size, MALLOC_CAP_SPIRAM | MALLOC_CAP_8BIT);
    if (memory == nullptr) {
      memory = heap_caps_aligned_alloc(kAlignment, size, MALLOC_CAP_8BIT);
    }
    return memory == nullptr ? hil::MutableBytes()
                             : hil::MutableBytes(static_cast<uint8_t*>(memory), size);
  }
  void Release(hil::MutableBytes buffer) override { heap_caps_free(buffer.data()); }

 private:
  static constexpr size_t kAlignment = 16;
};

class ChipSystem final : public hil::System {
 public:
  explicit ChipSystem(hil::Port* port) : port_(port) {}
  void Reboot() override {
    port_->WaitSent();
    esp_restart();
  }
  void SetBaud(uint32_t baud) override { port_->SetBaud(baud); }
  uint32_t NowMs() override { return static_cast<uint32_t>(esp_timer_get_time() / 1000); }

 private:
  hil::Port* port_;
};

// Tells the host each second that the chip is there, though a step may take long: a zero byte
// is no console text, and part of no frame.
void Pulse(void* port) {
  const uint8_t zero = 0;
  for (;;) {
    vTaskDelay(kPulseTicks);
    static_cast<hil::Port*>(port)->Write(hil::Bytes(&zero, sizeof zero));
  }
}

// The models partition, mapped for as long as the app runs; empty if there is none.
hil::Bytes MapModels() {
  const esp_partition_t* partition = esp_partition_find_first(
      ESP_PARTITION_TYPE_DATA, ESP_PARTITION_SUBTYPE_ANY, kModelsPartition);
  if (partition == nullptr) {
    ESP_LOGI(kTag, "no partition is named \"%s\": models are uploaded", kModelsPartition);
    return hil::Bytes();
  }
  const void* address = nullptr;
  esp_partition_mmap_handle_t handle;  // never unmapped
  const esp_err_t error =
      esp_partition_mmap(partition, 0, partition->size, ESP_PARTITION_MMAP_DATA, &address, &handle);
  if (error != ESP_OK) {
    ESP_LOGE(kTag, "the models partition cannot be mapped: %s", esp_err_to_name(error));
    return hil::Bytes();
  }
  return hil::Bytes(static_cast<const uint8_t*>(address), partition->size);
}

}  // namespace

void Serve(Span<const ModelStore::Entry> models) {
  hil::Port* port =
      hil::OpenPort(hil::Session::ReceiveBytes(kLimits), hil::MaxFrameBytes(kLimits.max_payload));
  // Above this task, which a step keeps busy; failing is only for want of memory.
  if (xTaskCreate(Pulse, "hil pulse", kPulseStackBytes, port, uxTaskPriorityGet(nullptr) + 1,
                  nullptr) != pdPASS) {
    ESP_LOGE(kTag, "no memory for the pulse");
    abort();
  }
  static HeapPool pool;
  static ChipSystem system(port);
  static hil::EspDlRunner runner(&pool);
  static const hil::ModelStore store(MapModels(), models);
  if (store.status().ok()) {
    ESP_LOGI(kTag, "%" PRIu32 " models in flash", store.count());
  } else {
    ESP_LOGE(kTag, "%.*s", static_cast<int>(store.status().text().size()),
             store.status().text().data());
  }

  const hil::MutableBytes arena = pool.Acquire(hil::Session::ArenaBytes(kLimits));
  if (arena.empty()) {
    ESP_LOGE(kTag, "no memory for the session");
    abort();
  }
  hil::DeviceFacts facts = hil::ReadDeviceFacts();
  facts.max_baud = port->MaxBaud();
  static hil::Session session(facts, kLimits, hil::Platform{port, &runner, &pool, &system, &store},
                              arena);
  session.Start();
  int64_t paused_us = esp_timer_get_time();
  for (;;) {
    session.Poll();  // waits for bytes inside, so other tasks run
    // A host that never lets it wait would starve the idle task, and wake that task's watchdog.
    if (esp_timer_get_time() - paused_us >= kPauseEveryUs) {
      vTaskDelay(1);
      paused_us = esp_timer_get_time();
    }
  }
}

}  // namespace hil

#endif  // CONFIG_HIL_SERVE
