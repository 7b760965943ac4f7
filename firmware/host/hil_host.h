// The firmware core as a shared library: plain C, made to be bound by cffi.
//
// The simulated devkit gives the core what a chip would give it (facts about
// the device, the bytes of the models partition, something that runs models) and
// moves bytes. The core speaks harness/espdl_hil/wire/protocol.md on the other side.
//
//   core = hil_core_create(&config, &runner);
//   loop:  n = hil_core_feed(core, data, size);        // received from the port
//          while (hil_core_poll(core)) { }             // executes requests
//          while ((n = hil_core_drain(core, buffer, sizeof buffer))) send(...);
//   hil_core_destroy(core);
//
// Threads: one thread at a time per core. Callbacks run inside hil_core_create,
// hil_core_poll and hil_core_destroy, on the caller's thread, and must not call
// back into the core.
#ifndef HIL_HOST_H_
#define HIL_HOST_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HIL_ABI_VERSION 4u
#define HIL_MAX_NAME 512  // bytes of a tensor or model name, without a terminator
#define HIL_MAX_RANK 8

// Values returned by callbacks: 0, or an error code of protocol.md section 4, such as these.
#define HIL_OK 0
#define HIL_NO_SUCH_TENSOR 7
#define HIL_OUT_OF_MEMORY 10
#define HIL_LOAD_FAILED 13
#define HIL_RUN_FAILED 19
#define HIL_NOT_RETAINED 20

// Tensor kinds, as in DESCRIBE.
#define HIL_INPUT 0
#define HIL_OUTPUT 1
#define HIL_NODE_OUTPUT 2  // every node output, those that are graph outputs included

// hil_config.flags
#define HIL_FLAG_SIMULATED 1u  // sent in HELLO; a simulated device must set it
#define HIL_FLAG_PULSES 2u     // sent in HELLO: in a long poll the caller pulses

// What restore_vector_unit found changed, as in the flags of a step's result.
#define HIL_ROUNDING_LOST 16u
#define HIL_MISALIGNED 32u

// hil_tensor.flags
#define HIL_TENSOR_PER_CHANNEL 1u

typedef struct hil_core hil_core;

typedef struct {
  uint32_t internal_free, internal_total, internal_largest;  // bytes
  uint32_t psram_free, psram_total, psram_largest;           // bytes
} hil_memory;

// One tensor, as TensorInfo of the protocol. Its bytes are the elements in the
// file's own layout, little endian, without padding.
typedef struct {
  char name[HIL_MAX_NAME];  // UTF-8; name_size bytes, no terminator needed
  uint32_t name_size;
  uint8_t dtype;     // protocol.md section 3: 3 int8, 5 int16, 1 float32…
  uint8_t rank;      // <= HIL_MAX_RANK
  int16_t exponent;  // 0 when per channel
  uint16_t flags;    // HIL_TENSOR_*
  uint32_t bytes;    // size of the tensor
  uint32_t dims[HIL_MAX_RANK];
} hil_tensor;

typedef struct {
  const uint8_t* data;
  uint32_t size;
} hil_bytes;

typedef struct {
  uint8_t* data;
  uint32_t size;
} hil_buffer;

// Where to copy a node output of the step that runs.
typedef struct {
  uint32_t index;     // of the node output, as in describe
  hil_buffer buffer;  // exactly its size
} hil_capture;

// A failing callback may write a reason here: UTF-8, at most `capacity` bytes with its
// terminating zero. It reaches the client as the error's text.
typedef struct {
  char* text;
  size_t capacity;
} hil_reason;

// What runs models. All members but now_us, reboot, set_baud and
// restore_vector_unit are required. `context`
// is passed to each callback. `model` is the runner's own non-zero id.
typedef struct {
  void* context;

  // Loads a model. `data` (EDL bytes) stays valid until unload of the model returned.
  int32_t (*load)(void* context, const char* name, uint32_t name_size, const uint8_t* data,
                  uint32_t size, uint32_t* model, hil_reason reason);
  void (*unload)(void* context, uint32_t model);

  // Number of tensors of a kind; order is the file's and constant while loaded.
  uint32_t (*count)(void* context, uint32_t model, uint32_t kind);
  // Describes one. 0 or an error code. *info is zeroed by the caller.
  int32_t (*describe)(void* context, uint32_t model, uint32_t kind, uint32_t index,
                      hil_tensor* info);
  // Finds a node output by name; 0, or 7 (NO_SUCH_TENSOR).
  // The core looks through graph inputs and outputs itself.
  int32_t (*find)(void* context, uint32_t model, const char* name, uint32_t name_size,
                  uint32_t* index);

  // Zeroes the model's caches.
  int32_t (*reset)(void* context, uint32_t model, hil_reason reason);

  // Keep (1) or drop (0) every node output of each step for `read`. A runner that
  // always can keep them returns 0 in both cases.
  int32_t (*retain)(void* context, uint32_t model, uint32_t on, hil_reason reason);

  // One step. `inputs` and `outputs` hold every graph input and output in describe
  // order, with exactly the described sizes. Outputs arrive filled with the canary: a runner with
  // output memory of its own copies them there before executing; an output that
  // the model does not write must keep it. Captures are filled
  // with the tensors' values of this step.
  int32_t (*run)(void* context, uint32_t model, const hil_bytes* inputs, uint32_t input_count,
                 const hil_buffer* outputs, uint32_t output_count, const hil_capture* captures,
                 uint32_t capture_count, hil_reason reason);

  // Copies bytes [offset, offset + size) of a node output of the last step; the range lies in the
  // tensor. 0, or 20 (NOT_RETAINED).
  int32_t (*read)(void* context, uint32_t model, uint32_t index, uint32_t offset, uint8_t* data,
                  uint32_t size);

  void (*memory)(void* context, hil_memory* memory);

  // Microseconds of a monotonic clock, to time steps; NULL: results say "no timing".
  uint64_t (*now_us)(void* context);

  // The client asked for a restart; called from hil_core_poll after the response was
  // queued. Drain, then destroy the core and boot anew. NULL: the core sends the response only.
  void (*reboot)(void* context);

  // The line goes on at another rate, 0: that of the boot; called from hil_core_poll after what
  // goes out at the old rate was queued. NULL only where max_baud is 0.
  void (*set_baud)(void* context, uint32_t baud);

  // Puts back what kernels rely on in a vector unit, right before and right after each run;
  // HIL_ROUNDING_LOST, HIL_MISALIGNED: what was found changed. NULL: the chip has no such mode.
  uint32_t (*restore_vector_unit)(void* context);
} hil_runner;

typedef struct {
  uint32_t abi_version;  // HIL_ABI_VERSION
  uint32_t flags;        // HIL_FLAG_*
  const char* target;    // zero-terminated, copied, as are the other strings (<= 63 bytes each)
  const char* idf_version;
  const char* espdl_version;
  const char* app_version;
  uint8_t app_sha256[32];
  uint64_t boot_nonce;
  uint16_t chip_revision;  // major * 100 + minor
  uint16_t cpu_mhz;
  // The bytes of the models partition (a PDL package, then anything). Borrowed: valid and
  // unchanged until hil_core_destroy. NULL/0: no such partition. The core parses it and
  // checks the SHA-256 of a PDL3 package; a damaged one gives BAD_PACKAGE to
  // LIST_MODELS and LOAD, see also hil_core_store_error.
  const uint8_t* models;
  size_t models_size;
  uint32_t max_payload;  // bytes, 1024..65536
  uint32_t window;       // requests, 1..64
  uint32_t max_models;   // 1..8
  uint32_t max_watch;    // 1..256
  uint32_t max_upload;   // bytes of the largest upload
  uint32_t max_baud;     // highest rate of the line; 0: it has none
} hil_config;

// HIL_ABI_VERSION of the library; compare before anything else.
uint32_t hil_abi_version(void);

// Makes a core and queues the BOOTED event. Both structs are copied. NULL when a
// field is out of range; then `reason` says which (may be {NULL, 0}).
hil_core* hil_core_create(const hil_config* config, const hil_runner* runner, hil_reason reason);

// Unloads all models and frees the core. NULL is allowed.
void hil_core_destroy(hil_core* core);

// Hands over received bytes; returns how many were taken. The receive buffer holds
// `window` full packets, as on a chip; fewer taken than given means poll, then feed the rest.
size_t hil_core_feed(hil_core* core, const uint8_t* data, size_t size);

// Executes at most one request. 1: did something, call again. 0: nothing to do until more
// bytes arrive.
int32_t hil_core_poll(hil_core* core);

// Takes the next whole frame (zero bytes included) if it fits `capacity`; returns its
// size, 0 when nothing is queued. Console text may be sent between two calls, never needs to be
// merged into a frame. A capacity of hil_core_max_frame(core) always suffices.
size_t hil_core_drain(hil_core* core, uint8_t* data, size_t capacity);
size_t hil_core_max_frame(const hil_core* core);

// Why the models partition was refused; "" when it is fine or empty of models. Valid until destroy.
const char* hil_core_store_error(const hil_core* core);

// Counters since creation, for reports and tests.
typedef struct {
  uint64_t packets;     // good packets received
  uint64_t faults;      // frames received damaged
  uint64_t duplicates;  // requests answered from the cache
  uint64_t gaps;        // requests dropped because an earlier one is missing
  uint64_t steps;       // model steps executed
} hil_stats;
void hil_core_stats(const hil_core* core, hil_stats* stats);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // HIL_HOST_H_
