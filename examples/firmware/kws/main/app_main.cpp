// Streams recorded frames through an exported model and prints what it gives,
// first of all whether it gives what was proven.
#include <algorithm>
#include <cinttypes>
#include <cstdint>
#include <cstring>

#include "esp_log.h"
#include "espdl_stream/dl_engine.h"
#include "espdl_stream/feeder.h"
#include "espdl_stream/quantize.h"
#include "espdl_stream/self_test.h"
#include "espdl_stream/stream.h"
#include "kws.h"

namespace {

constexpr char kTag[] = "kws";
constexpr size_t kHeaderBytes = 48;  // of the vectors file, self_test.h
constexpr size_t kBurstFrames = 5;   // what a microphone's driver may give at once

alignas(16) uint8_t memory[espdl::MemoryBytes(kws::kSpec)];
alignas(16) uint8_t ring[4 * kws::kSpec.inputs[0].tensor.bytes];
espdl::DlEngine engine;
espdl::Stream stream;
espdl::Feeder feeder;

bool Failed(const char* what, espdl::Error error) {
  if (error != espdl::Error::kNone) {
    ESP_LOGE(kTag, "%s: %s", what, espdl::Text(error));
  }
  return error != espdl::Error::kNone;
}

// The real value of one element of the first output.
float ValueAt(const espdl::Stream& from, size_t index) {
  const espdl::Tensor& tensor = kws::kSpec.outputs[0].tensor;
  const uint8_t* data = from.output(0).data();
  if (tensor.type == espdl::Type::kFloat) {
    float value = 0.0f;
    std::memcpy(&value, data + index * sizeof value, sizeof value);
    return value;
  }
  if (tensor.type == espdl::Type::kInt16) {
    int16_t value = 0;
    std::memcpy(&value, data + index * sizeof value, sizeof value);
    return espdl::Dequantize(value, tensor.exponent);
  }
  return espdl::Dequantize(static_cast<int8_t>(data[index]), tensor.exponent);
}

// The class with the highest score in the last frame of the first output.
void PrintBest(const espdl::Stream& from) {
  const espdl::Tensor& tensor = kws::kSpec.outputs[0].tensor;
  const size_t classes = tensor.dims[tensor.rank - 1];
  const size_t elements = tensor.bytes / (tensor.type == espdl::Type::kFloat   ? 4
                                          : tensor.type == espdl::Type::kInt16 ? 2
                                                                               : 1);
  const size_t first = elements - classes;
  size_t best = 0;
  for (size_t index = 1; index < classes; ++index) {
    if (ValueAt(from, first + index) > ValueAt(from, first + best)) {
      best = index;
    }
  }
  ESP_LOGI(kTag, "step %" PRIu32 ", output frame %lld: class %u (%.3f), %" PRIu32 " us",
           from.steps(), static_cast<long long>(from.FirstFrame(0)), static_cast<unsigned>(best),
           static_cast<double>(ValueAt(from, first + best)), engine.latency_us());
}

// The recorded frames, in bursts that know nothing of chunks.
espdl::Error StreamRecording() {
  ESPDL_RETURN_IF_ERROR(feeder.Open(&stream, kws::kSpec, ring));
  const size_t step_bytes = stream.input_bytes() + stream.output_bytes();
  for (espdl::Bytes left = kws::Vectors().From(kHeaderBytes); left.size() >= step_bytes;
       left = left.From(step_bytes)) {
    for (size_t at = 0; at < kws::kChunkFrames; at += kBurstFrames) {
      const size_t frames = std::min<size_t>(kBurstFrames, kws::kChunkFrames - at);
      ESPDL_RETURN_IF_ERROR(
          feeder.Feed(left.data() + at * feeder.frame_bytes(), frames, PrintBest));
    }
  }
  return espdl::Error::kNone;
}

}  // namespace

extern "C" void app_main(void) {
  if (Failed("load", kws::Load(&engine)) ||
      Failed("open", stream.Load(&engine, kws::kSpec, memory))) {
    return;
  }
  espdl::SelfTestResult result;
  const espdl::Error verdict = espdl::SelfTest(&stream, kws::kSpec, kws::Vectors(), &result);
  ESP_LOGI(kTag, "self-test: %" PRIu32 " steps, %" PRIu32 " elements, %" PRIu32 " differ",
           result.steps, result.elements, result.differing);
  if (Failed("self-test", verdict)) {
    return;
  }
  if (!Failed("stream", StreamRecording())) {
    ESP_LOGI(kTag, "done");
  }
}
