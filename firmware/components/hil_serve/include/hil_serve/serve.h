// The device's end of the harness inside any app: its models run with the app's own partitions,
// settings and tasks around them.
#ifndef HIL_SERVE_SERVE_H_
#define HIL_SERVE_SERVE_H_

#include "runner/model_store.h"
#include "sdkconfig.h"
#include "wire/span.h"

namespace hil {

// Answers the harness on the console's port, in this task, for ever; the console's text goes on
// beside it. `models` are such as the app holds itself, beside those of the partition "models";
// they outlive the call. Nobody else may install a driver for the port. The task wants
// 16 KB of stack. Without CONFIG_HIL_SERVE it returns at once.
#if CONFIG_HIL_SERVE
void Serve(Span<const ModelStore::Entry> models = Span<const ModelStore::Entry>());
#else
inline void Serve(Span<const ModelStore::Entry> = Span<const ModelStore::Entry>()) {}
#endif

}  // namespace hil

#endif  // HIL_SERVE_SERVE_H_
