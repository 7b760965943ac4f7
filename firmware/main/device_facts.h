// What HELLO tells about this device, asked from ESP-IDF once at boot.
#ifndef MAIN_DEVICE_FACTS_H_
#define MAIN_DEVICE_FACTS_H_

#include "runner/session.h"

namespace hil {

// The strings are static.
DeviceFacts ReadDeviceFacts();

MemoryInfo ReadMemory();

}  // namespace hil

#endif  // MAIN_DEVICE_FACTS_H_
