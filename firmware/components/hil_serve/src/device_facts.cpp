#include "device_facts.h"

#include <algorithm>
#include <cstddef>

#include "esp_app_desc.h"
#include "esp_chip_info.h"
#include "esp_err.h"
#include "esp_heap_caps.h"
#include "esp_idf_version.h"
#include "esp_random.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "sdkconfig.h"

namespace hil {

DeviceFacts ReadDeviceFacts() {
  const esp_app_desc_t* app = esp_app_get_description();
  esp_chip_info_t chip;
  esp_chip_info(&chip);
  DeviceFacts facts;
  facts.target = CONFIG_IDF_TARGET;
  facts.idf_version = esp_get_idf_version();
  facts.espdl_version = HIL_ESPDL_VERSION;
  facts.app_version = app->version;
  std::copy(std::begin(app->app_elf_sha256), std::end(app->app_elf_sha256),
            facts.app_sha256.begin());
  esp_fill_random(&facts.boot_nonce, sizeof facts.boot_nonce);
  facts.chip_revision = chip.revision;
  facts.cpu_mhz = CONFIG_ESP_DEFAULT_CPU_FREQ_MHZ;
  facts.flags = kDeviceMeasuresTime | kDevicePulses;
  return facts;
}

MemoryInfo ReadMemory() {
  MemoryInfo memory;
  memory.internal_free = static_cast<uint32_t>(heap_caps_get_free_size(MALLOC_CAP_INTERNAL));
  memory.internal_total = static_cast<uint32_t>(heap_caps_get_total_size(MALLOC_CAP_INTERNAL));
  memory.internal_largest =
      static_cast<uint32_t>(heap_caps_get_largest_free_block(MALLOC_CAP_INTERNAL));
  memory.psram_free = static_cast<uint32_t>(heap_caps_get_free_size(MALLOC_CAP_SPIRAM));
  memory.psram_total = static_cast<uint32_t>(heap_caps_get_total_size(MALLOC_CAP_SPIRAM));
  memory.psram_largest = static_cast<uint32_t>(heap_caps_get_largest_free_block(MALLOC_CAP_SPIRAM));
  return memory;
}

void WatchLeastHeap() {
#if ESP_IDF_VERSION >= ESP_IDF_VERSION_VAL(5, 4, 0)
  static bool is_watching = false;
  if (is_watching) {
    heap_caps_monitor_local_minimum_free_size_stop();
  }
  is_watching = heap_caps_monitor_local_minimum_free_size_start() == ESP_OK;
#endif
}

QueryUsageReply ReadLeast() {
  QueryUsageReply least;
  least.internal_least =
      static_cast<uint32_t>(heap_caps_get_minimum_free_size(MALLOC_CAP_INTERNAL));
  least.psram_least = static_cast<uint32_t>(heap_caps_get_minimum_free_size(MALLOC_CAP_SPIRAM));
  least.stack_least = static_cast<uint32_t>(uxTaskGetStackHighWaterMark(nullptr));
  return least;
}

}  // namespace hil
