// The streaming class that products ship, over an engine made here.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <utility>
#include <vector>

#include "check.h"
#include "espdl_stream/feeder.h"
#include "espdl_stream/quantize.h"
#include "espdl_stream/self_test.h"
#include "espdl_stream/stream.h"

namespace {

size_t allocations = 0;

}  // namespace

// Counted, so that a test can say that a step makes none.
void* operator new(size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size == 0 ? 1 : size)) {
    return memory;
  }
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace espdl {
namespace {

Port MakePort(std::string_view name, Type type, uint32_t frames, uint32_t channels,
              int8_t frame_axis = 1) {
  Port port;
  port.tensor.name = name;
  port.tensor.type = type;
  port.tensor.exponent = -7;
  port.tensor.rank = 3;
  port.tensor.dims[0] = 1;
  port.tensor.dims[1] = frames;
  port.tensor.dims[2] = channels;
  port.tensor.bytes = frames * channels * (type == Type::kInt16 ? 2 : 1);
  port.frame_axis = frame_axis;
  port.chunk_frames = frame_axis < 0 ? 0 : frames;
  return port;
}

// x[1,3,2] and the state h[1,1,2]; y = x + h + (the number of the last frame in the cache),
// h' = h + x of the last frame.
class Summer final : public Engine {
 public:
  std::vector<Port> inputs = {MakePort("x", Type::kInt8, 3, 2),
                              MakePort("h", Type::kInt8, 1, 2, -1)};
  std::vector<Port> outputs = {MakePort("y", Type::kInt8, 3, 2),
                               MakePort("hn", Type::kInt8, 1, 2, -1)};
  Error error = Error::kNone;
  int8_t cache = 0;
  int8_t extra = 0;  // a fault

  size_t Count(Side side) override { return side == Side::kInput ? inputs.size() : outputs.size(); }
  Error Describe(Side side, size_t index, Tensor* tensor) override {
    *tensor = (side == Side::kInput ? inputs : outputs)[index].tensor;
    return Error::kNone;
  }
  Error Reset() override {
    cache = 0;
    return Error::kNone;
  }
  Error Run(Span<const Bytes> in, Span<const MutableBytes> out) override {
    if (error != Error::kNone) {
      return error;
    }
    for (size_t at = 0; at < 6; ++at) {
      out[0][at] = static_cast<uint8_t>(in[0][at] + in[1][at % 2] + cache + extra);
    }
    for (size_t at = 0; at < 2; ++at) {
      out[1][at] = static_cast<uint8_t>(in[1][at] + in[0][4 + at]);
    }
    ++cache;
    return Error::kNone;
  }
};

constexpr State kStates[] = {{"hn", "h"}};
constexpr char kSha[] =
    "00ff"
    "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e";

struct Rig {
  Summer engine;
  Stream stream;
  Spec spec;
  alignas(16) uint8_t memory[256] = {};

  Rig() {
    engine.outputs[0].latency_frames = 4;
    spec.name = "summer";
    spec.sha256 = kSha;
    spec.inputs = Span<const Port>(engine.inputs.data(), engine.inputs.size());
    spec.outputs = Span<const Port>(engine.outputs.data(), engine.outputs.size());
    spec.states = kStates;
  }
  Error Load() { return stream.Load(&engine, spec, memory); }
};

std::vector<int> Values(Bytes bytes) {
  std::vector<int> values;
  for (const uint8_t byte : bytes) {
    values.push_back(static_cast<int8_t>(byte));
  }
  return values;
}

const uint8_t kChunk[6] = {1, 2, 3, 4, 5, 6};

TEST(StreamFeedsStatesBack) {
  Rig rig;
  CHECK_EQ(rig.Load(), Error::kNone);
  CHECK_EQ(rig.stream.input_bytes(), size_t{6});
  CHECK_EQ(rig.stream.state_bytes(), size_t{2});
  CHECK_EQ(rig.stream.Push(kChunk), Error::kNone);
  CHECK(Values(rig.stream.output(0)) == std::vector<int>({1, 2, 3, 4, 5, 6}));
  CHECK_EQ(rig.stream.Push(kChunk), Error::kNone);
  CHECK(Values(rig.stream.output(0)) == std::vector<int>({7, 9, 9, 11, 11, 13}));
  CHECK(Values(rig.stream.output(1)) == std::vector<int>({10, 12}));
}

TEST(StreamCountsFramesPastItsLatency) {
  Rig rig;
  CHECK_EQ(rig.Load(), Error::kNone);
  CHECK_EQ(rig.stream.Push(kChunk), Error::kNone);
  CHECK_EQ(rig.stream.FirstFrame(0), int64_t{-4});
  CHECK_EQ(rig.stream.Push(kChunk), Error::kNone);
  CHECK_EQ(rig.stream.FirstFrame(0), int64_t{-1});
  CHECK_EQ(rig.stream.steps(), 2u);
}

TEST(StreamResetsCachesAndStates) {
  Rig rig;
  CHECK_EQ(rig.Load(), Error::kNone);
  CHECK_EQ(rig.stream.Push(kChunk), Error::kNone);
  CHECK_EQ(rig.stream.Reset(), Error::kNone);
  CHECK_EQ(rig.stream.Push(kChunk), Error::kNone);
  CHECK(Values(rig.stream.output(0)) == std::vector<int>({1, 2, 3, 4, 5, 6}));
}

TEST(StreamAllocatesNothing) {
  Rig rig;
  const size_t before = allocations;
  CHECK_EQ(rig.Load(), Error::kNone);
  for (int step = 0; step < 5; ++step) {
    CHECK_EQ(rig.stream.Push(kChunk), Error::kNone);
  }
  CHECK_EQ(allocations, before);
  delete new int;  // the twin: an allocation is counted
  CHECK(allocations > before);
}

TEST(StreamRefusesAnotherModelThanTheHeaders) {
  Rig shape;
  shape.engine.inputs[0].tensor.dims[1] = 3;
  std::vector<Port> other = shape.engine.inputs;
  other[0].tensor.exponent = -6;
  shape.spec.inputs = Span<const Port>(other.data(), other.size());
  CHECK_EQ(shape.Load(), Error::kMismatch);
  Rig name;
  other = name.engine.inputs;
  other[1].tensor.name = "g";
  name.spec.inputs = Span<const Port>(other.data(), other.size());
  CHECK_EQ(name.Load(), Error::kMismatch);
  Rig fewer;
  fewer.spec.outputs = Span<const Port>(fewer.engine.outputs.data(), 1);
  CHECK_EQ(fewer.Load(), Error::kMismatch);
  Rig small;
  CHECK_EQ(small.stream.Load(&small.engine, small.spec, MutableBytes(small.memory, 16)),
           Error::kNoMemory);
}

TEST(StreamRefusesBadStates) {
  Rig twice;
  const State pairs[] = {{"hn", "h"}, {"hn", "h"}};
  twice.spec.states = pairs;
  CHECK_EQ(twice.Load(), Error::kBoundTwice);
  Rig unknown;
  const State missing[] = {{"nowhere", "h"}};
  unknown.spec.states = missing;
  CHECK_EQ(unknown.Load(), Error::kNoSuchPort);
  Rig layout;
  const State wrong[] = {{"y", "h"}};
  layout.spec.states = wrong;
  CHECK_EQ(layout.Load(), Error::kLayout);
}

TEST(StreamRefusesDataOfAnotherSize) {
  Rig rig;
  CHECK_EQ(rig.Load(), Error::kNone);
  CHECK_EQ(rig.stream.Push(Bytes(kChunk, 5)), Error::kSize);
  const Bytes two[] = {kChunk, kChunk};
  CHECK_EQ(rig.stream.Push(two), Error::kSize);
  CHECK_EQ(rig.stream.Push(Span<const Bytes>()), Error::kSize);
}

TEST(StreamKeepsItsStateWhenAStepFails) {
  Rig rig;
  CHECK_EQ(rig.Load(), Error::kNone);
  CHECK_EQ(rig.stream.Push(kChunk), Error::kNone);
  rig.engine.error = Error::kEngine;
  CHECK_EQ(rig.stream.Push(kChunk), Error::kEngine);
  CHECK_EQ(rig.stream.steps(), 1u);
  CHECK(Values(rig.stream.input(1)) == std::vector<int>({5, 6}));
}

TEST(MemoryBytesIsWhatTheStreamTakes) {
  Rig rig;
  CHECK_EQ(rig.Load(), Error::kNone);
  CHECK(MemoryBytes(rig.spec) >= rig.stream.memory_bytes());
  CHECK(MemoryBytes(rig.spec) <= rig.stream.memory_bytes() + kAlignment);
}

// Feeds `total` frames in parts of `part`; returns y of all steps.
std::vector<int> FeedInParts(size_t total, size_t part, size_t ring_frames) {
  Rig rig;
  CHECK_EQ(rig.Load(), Error::kNone);
  std::vector<uint8_t> ring(2 * ring_frames);
  Feeder feeder;
  CHECK_EQ(feeder.Open(&rig.stream, rig.spec, MutableBytes(ring.data(), ring.size())),
           Error::kNone);
  std::vector<uint8_t> frames(2 * total);
  for (size_t at = 0; at < frames.size(); ++at) {
    frames[at] = static_cast<uint8_t>(at % 5);
  }
  std::vector<int> seen;
  const auto sink = [&seen](const Stream& stream) {
    const std::vector<int> values = Values(stream.output(0));
    seen.insert(seen.end(), values.begin(), values.end());
  };
  for (size_t at = 0; at < total; at += part) {
    CHECK_EQ(feeder.Feed(frames.data() + 2 * at, std::min(part, total - at), sink), Error::kNone);
  }
  CHECK_EQ(feeder.waiting_frames(), total % 3);
  return seen;
}

TEST(FeederTakesAnyNumberOfFrames) {
  const std::vector<int> whole = FeedInParts(31, 3, 3);
  CHECK_EQ(whole.size(), size_t{60});
  for (const size_t ring : {3, 4, 7, 64}) {
    for (const size_t part : {1, 2, 4, 5, 31}) {
      CHECK(FeedInParts(31, part, ring) == whole);
    }
  }
}

TEST(FeederScattersFramesBehindAnOuterAxis) {
  Rig rig;  // x as [1,2,3]: two channels of three frames each
  std::vector<Port>& inputs = rig.engine.inputs;
  inputs[0].tensor.dims[1] = 2;
  inputs[0].tensor.dims[2] = 3;
  inputs[0].frame_axis = 2;
  CHECK_EQ(rig.Load(), Error::kNone);
  uint8_t ring[6];
  Feeder feeder;
  CHECK_EQ(feeder.Open(&rig.stream, rig.spec, ring), Error::kNone);
  CHECK_EQ(feeder.frame_bytes(), size_t{2});
  CHECK_EQ(feeder.Write(kChunk, 3), size_t{3});
  bool stepped = false;
  CHECK_EQ(feeder.Poll(&stepped), Error::kNone);
  CHECK(stepped);
  CHECK(Values(rig.stream.input(0)) == std::vector<int>({1, 3, 5, 2, 4, 6}));
}

TEST(FeederFlushesWhatWaits) {
  Rig rig;
  CHECK_EQ(rig.Load(), Error::kNone);
  uint8_t ring[6];
  Feeder feeder;
  CHECK_EQ(feeder.Open(&rig.stream, rig.spec, ring), Error::kNone);
  size_t frames = 9;
  CHECK_EQ(feeder.Flush(&frames), Error::kNone);
  CHECK_EQ(frames, size_t{0});
  CHECK_EQ(rig.stream.steps(), 0u);
  CHECK_EQ(feeder.Write(kChunk, 2), size_t{2});
  CHECK_EQ(feeder.Flush(&frames), Error::kNone);
  CHECK_EQ(frames, size_t{2});
  CHECK(Values(rig.stream.input(0)) == std::vector<int>({1, 2, 3, 4, 0, 0}));
  CHECK_EQ(feeder.Write(kChunk, 2), size_t{2});
  CHECK_EQ(feeder.Reset(), Error::kNone);
  CHECK_EQ(feeder.waiting_frames(), size_t{0});
}

TEST(FeederRefusesWhatItCannotFeed) {
  Rig rig;
  CHECK_EQ(rig.Load(), Error::kNone);
  uint8_t ring[6];
  Feeder feeder;
  CHECK_EQ(feeder.Open(&rig.stream, rig.spec, MutableBytes(ring, 5)), Error::kNoMemory);
  Rig unbound;
  unbound.spec.states = Span<const State>();
  CHECK_EQ(unbound.Load(), Error::kNone);
  CHECK_EQ(feeder.Open(&unbound.stream, unbound.spec, ring), Error::kNoSuchPort);
}

// A vectors file of three steps as the engine gives them.
std::vector<uint8_t> MakeVectors() {
  Rig rig;
  CHECK_EQ(rig.Load(), Error::kNone);
  std::vector<uint8_t> file = {'E', 'S', 'V', '1', 3, 0, 0, 0, 6, 0, 0, 0, 8, 0, 0, 0, 0x00, 0xFF};
  for (uint8_t byte = 1; byte <= 30; ++byte) {
    file.push_back(byte);
  }
  for (int step = 0; step < 3; ++step) {
    CHECK_EQ(rig.stream.Push(kChunk), Error::kNone);
    file.insert(file.end(), kChunk, kChunk + 6);
    for (const size_t output : {0, 1}) {
      const Bytes bytes = rig.stream.output(output);
      file.insert(file.end(), bytes.begin(), bytes.end());
    }
  }
  return file;
}

Error Test(Rig* rig, const std::vector<uint8_t>& file, SelfTestResult* result) {
  CHECK_EQ(rig->Load(), Error::kNone);
  return SelfTest(&rig->stream, rig->spec, Bytes(file.data(), file.size()), result);
}

TEST(SelfTestPassesOnWhatWasProven) {
  Rig rig;
  SelfTestResult result;
  CHECK_EQ(Test(&rig, MakeVectors(), &result), Error::kNone);
  CHECK_EQ(result.steps, 3u);
  CHECK_EQ(result.elements, 24u);
  CHECK_EQ(result.differing, 0u);
}

TEST(SelfTestSaysWhereAndByHowMuch) {
  std::vector<uint8_t> file = MakeVectors();
  file[48 + 14 + 6 + 4] = static_cast<uint8_t>(file[48 + 14 + 6 + 4] + 3);
  Rig rig;
  SelfTestResult result;
  CHECK_EQ(Test(&rig, file, &result), Error::kDiffers);
  CHECK_EQ(result.differing, 1u);
  CHECK_EQ(result.max_lsb, 3u);
  CHECK_EQ(result.step, 1u);
  CHECK_EQ(result.output, 0u);
  CHECK_EQ(result.element, 4u);
  Rig tolerant;
  tolerant.spec.tolerance_lsb = 3;
  CHECK_EQ(Test(&tolerant, file, &result), Error::kNone);
  CHECK_EQ(result.max_lsb, 3u);
}

// One input of one byte; the output is a float, `scale` times the byte.
class Scaler final : public Engine {
 public:
  std::vector<Port> inputs = {MakePort("x", Type::kInt8, 1, 1)};
  std::vector<Port> outputs = {MakePort("p", Type::kFloat, 1, 1)};
  float scale = 0.1f;

  Scaler() { outputs[0].tensor.bytes = sizeof(float); }
  size_t Count(Side) override { return 1; }
  Error Describe(Side side, size_t, Tensor* tensor) override {
    *tensor = (side == Side::kInput ? inputs : outputs)[0].tensor;
    return Error::kNone;
  }
  Error Reset() override { return Error::kNone; }
  Error Run(Span<const Bytes> in, Span<const MutableBytes> out) override {
    const float value = scale * in[0][0];
    std::memcpy(out[0].data(), &value, sizeof value);
    return Error::kNone;
  }
};

TEST(SelfTestComparesFloatsByTheirSize) {
  std::vector<uint8_t> file(48);
  const std::vector<uint8_t> whole = MakeVectors();
  std::copy(whole.begin(), whole.begin() + 48, file.begin());
  file[4] = 1;
  file[8] = 1;
  file[12] = sizeof(float);
  file.push_back(7);
  const float expected = 0.7f;
  file.resize(53);
  std::memcpy(file.data() + 49, &expected, sizeof expected);
  for (const auto& [scale, want] :
       {std::pair(0.1f, Error::kNone), std::pair(0.10001f, Error::kDiffers)}) {
    Scaler engine;
    engine.scale = scale;
    Spec spec;
    spec.sha256 = kSha;
    spec.inputs = Span<const Port>(engine.inputs.data(), 1);
    spec.outputs = Span<const Port>(engine.outputs.data(), 1);
    spec.tolerance_lsb = 100;  // of integers, no licence for floats
    alignas(16) uint8_t memory[48];
    Stream stream;
    CHECK_EQ(stream.Load(&engine, spec, memory), Error::kNone);
    SelfTestResult result;
    CHECK_EQ(SelfTest(&stream, spec, Bytes(file.data(), file.size()), &result), want);
  }
}

TEST(SelfTestRefusesDamagedVectors) {
  const std::vector<uint8_t> whole = MakeVectors();
  SelfTestResult result;
  for (const size_t at : {0, 4, 8, 12, 16, 40}) {
    std::vector<uint8_t> damaged = whole;
    damaged[at] ^= 1;
    Rig rig;
    CHECK_EQ(Test(&rig, damaged, &result), Error::kVectors);
  }
  for (const size_t size : {size_t{0}, size_t{47}, size_t{48}, whole.size() - 1}) {
    Rig rig;
    CHECK_EQ(
        Test(&rig, std::vector<uint8_t>(whole.begin(), whole.begin() + static_cast<long>(size)),
             &result),
        Error::kVectors);
  }
}

TEST(QuantizeRoundsAsTheTarget) {
  CHECK_EQ(Quantize<int8_t>(2.5f, 0, Rounding::kHalfEven), int8_t{2});
  CHECK_EQ(Quantize<int8_t>(2.5f, 0, Rounding::kHalfUp), int8_t{3});
  CHECK_EQ(Quantize<int8_t>(-2.5f, 0, Rounding::kHalfEven), int8_t{-2});
  CHECK_EQ(Quantize<int8_t>(-2.5f, 0, Rounding::kHalfUp), int8_t{-2});
  CHECK_EQ(Quantize<int8_t>(-3.5f, 0, Rounding::kHalfEven), int8_t{-4});
  CHECK_EQ(Quantize<int8_t>(0.5f, -7), int8_t{64});
  CHECK_EQ(Quantize<int8_t>(1.0f, -7), int8_t{127});
  CHECK_EQ(Quantize<int8_t>(-9.0f, -7), int8_t{-128});
  CHECK_EQ(Quantize<int16_t>(12.0f, 2), int16_t{3});
  CHECK_EQ(Quantize<int16_t>(std::numeric_limits<float>::infinity(), 0), int16_t{32767});
  CHECK_EQ(Quantize<int8_t>(std::numeric_limits<float>::quiet_NaN(), 0), int8_t{0});
  CHECK_EQ(Dequantize<int8_t>(-64, -7), -0.5f);
  const float real[] = {0.25f, -1.0f};
  int8_t values[2] = {};
  Quantize<int8_t>(Span<const float>(real), -7, Span<int8_t>(values));
  CHECK_EQ(values[0], int8_t{32});
  CHECK_EQ(values[1], int8_t{-128});
  float back[2] = {};
  Dequantize<int8_t>(Span<const int8_t>(values), -7, Span<float>(back));
  CHECK_EQ(back[1], -1.0f);
}

TEST(EveryErrorHasAText) {
  for (int error = 0; error <= static_cast<int>(Error::kEngine); ++error) {
    CHECK(std::strcmp(Text(static_cast<Error>(error)), "unknown error") != 0);
  }
}

}  // namespace
}  // namespace espdl
