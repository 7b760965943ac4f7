// What HELLO tells about this device, asked from ESP-IDF once at boot.
#ifndef HIL_SERVE_DEVICE_FACTS_H_
#define HIL_SERVE_DEVICE_FACTS_H_

#include "runner/session.h"

namespace hil {

// The strings are static.
DeviceFacts ReadDeviceFacts();

MemoryInfo ReadMemory();

// Least free heap from here on; ESP-IDF 5.3 only knows the least since boot.
void WatchLeastHeap();

// That, and the least free stack of this task.
QueryUsageReply ReadLeast();

}  // namespace hil

#endif  // HIL_SERVE_DEVICE_FACTS_H_
