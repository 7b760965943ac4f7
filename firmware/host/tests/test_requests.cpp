// Every request of protocol.md section 3, with what must be refused.
#include <string>
#include <vector>

#include "check.h"
#include "fakes.h"
#include "wire/crc32.h"

namespace hil {
namespace {

using Data = std::vector<uint8_t>;

Data ToData(Bytes bytes) { return Data(bytes.begin(), bytes.end()); }

// The result block of a chunk's answer.
Data ResultOf(const Answer& answer) {
  return ToData(answer.ReplyTo<ChunkReply>(Type::kChunk).data);
}

// The first `size` bytes of it: y is 0..3, hn 4..7.
Data Head(const Answer& answer, size_t size) {
  Data result = ResultOf(answer);
  result.resize(size);
  return result;
}

struct Ready : Bench {
  explicit Ready(Limits limits_in = DefaultLimits()) : Bench(limits_in) {
    Hello();
    handle = LoadModel();
  }
  uint32_t handle = 0;
};

TEST(ModelsAreListedWithTheirOwnHashes) {
  Bench bench;
  bench.Hello();
  const ListModelsReply list =
      bench.Ask(Type::kListModels, ListModels{0}).ReplyTo<ListModelsReply>(Type::kListModels);
  CHECK_EQ(list.total, 2u);
  CHECK_EQ(list.count, 2u);
  PayloadReader reader(list.items);
  ModelInfo info;
  reader(info);
  const Data model = MakeEdl(2, 64);
  CHECK_EQ(info.name, "tcn");
  CHECK_EQ(info.size, model.size());
  CHECK(info.sha256 == Sha256::Of(Bytes(model.data(), model.size())));
}

TEST(LongListsComeInPages) {
  NamedModels models;
  for (int index = 0; index < 40; ++index) {
    models.push_back({"model-" + std::to_string(index), MakeEdl(2, 8)});
  }
  Bench bench(Bench::DefaultLimits(), MakePackage(3, models));
  bench.Hello();
  uint32_t seen = 0;
  int pages = 0;
  while (seen < 40) {
    const Answer answer = bench.Ask(Type::kListModels, ListModels{seen});
    const ListModelsReply list = answer.ReplyTo<ListModelsReply>(Type::kListModels);
    CHECK_EQ(list.first, seen);
    PayloadReader reader(list.items);
    for (uint16_t item = 0; item < list.count; ++item) {
      ModelInfo info;
      reader(info);
      CHECK_EQ(info.name, "model-" + std::to_string(seen));
      ++seen;
    }
    CHECK(reader.done());
    ++pages;
    if (list.count == 0) {
      break;
    }
  }
  CHECK_EQ(seen, 40u);
  CHECK(pages > 1);
  CHECK_EQ(bench.Ask(Type::kListModels, ListModels{40})
               .ReplyTo<ListModelsReply>(Type::kListModels)
               .count,
           0u);
}

TEST(ADamagedPackageIsNeverLoaded) {
  Data package = Bench::DefaultPackage();
  package[package.size() - 3] ^= 1;
  Bench bench(Bench::DefaultLimits(), package);
  bench.Hello();
  CHECK_EQ(bench.Ask(Type::kListModels, ListModels{0}).Error(), Code::kBadPackage);
  CHECK_EQ(bench.Ask(Type::kLoad, Load{"tcn"}).Error(), Code::kBadPackage);
  CHECK_EQ(bench.runner.loads, 0);
}

TEST(LoadHandsOverExactlyTheHashedBytes) {
  Bench bench;
  bench.Hello();
  const LoadReply loaded = bench.Ask(Type::kLoad, Load{"gru"}).ReplyTo<LoadReply>(Type::kLoad);
  const Data model = MakeEdl(2, 80);
  CHECK(bench.runner.loaded_bytes == model);
  CHECK_EQ(bench.runner.loaded_name, "gru");
  CHECK_EQ(loaded.size, model.size());
  CHECK(loaded.sha256 == Sha256::Of(Bytes(model.data(), model.size())));
  CHECK_EQ(loaded.inputs, 2u);
  CHECK_EQ(loaded.outputs, 3u);
  CHECK_EQ(loaded.intermediates, 2u);
  CHECK_EQ(loaded.psram_bytes, 5000u);
  CHECK(loaded.handle != 0);
}

TEST(LoadFailuresAreToldAndLeaveNothing) {
  Bench bench;
  bench.Hello();
  bench.runner.load_status = Status(Code::kLoadFailed, "operator Foo");
  const Answer answer = bench.Ask(Type::kLoad, Load{"tcn"});
  CHECK_EQ(answer.Error(), Code::kLoadFailed);
  CHECK_EQ(answer.As<ErrorReply>(Type::kError).text, "operator Foo");
  bench.runner.load_status = Ok();
  bench.pool.largest = 8;
  CHECK_EQ(bench.Ask(Type::kLoad, Load{"tcn"}).Error(), Code::kOutOfMemory);
  CHECK_EQ(bench.runner.unloads, 1);
  CHECK_EQ(bench.pool.held(), 0u);
}

TEST(SlotsAreCountedAndHandlesNeverComeBack) {
  Ready bench;
  const uint32_t second = bench.LoadModel("gru");
  CHECK(second != bench.handle);
  CHECK_EQ(bench.Ask(Type::kLoad, Load{"tcn"}).Error(), Code::kNoSlot);
  CHECK_EQ(bench.Ask(Type::kUnload, Unload{bench.handle}).Error(), Code::kOk);
  CHECK_EQ(bench.Ask(Type::kUnload, Unload{bench.handle}).Error(), Code::kBadHandle);
  const uint32_t third = bench.LoadModel();
  CHECK(third != bench.handle && third != second);
  bench.Ask(Type::kUnload, Unload{second});
  bench.Ask(Type::kUnload, Unload{third});
  CHECK_EQ(bench.pool.held(), 0u);
}

// --- upload ---

Data Model() { return MakeEdl(2, 3000); }

Answer Upload(Bench* bench, const Data& data, const Sha256Digest& announced) {
  bench->Ask(Type::kUploadBegin, UploadBegin{static_cast<uint32_t>(data.size()), announced, "up"});
  for (size_t at = 0; at < data.size();) {
    const size_t part = std::min<size_t>(1000, data.size() - at);
    const Answer answer = bench->Ask(
        Type::kUploadData, UploadData{static_cast<uint32_t>(at), Bytes(data.data() + at, part)});
    at += part;
    CHECK_EQ(answer.ReplyTo<UploadDataReply>(Type::kUploadData).next_offset, at);
  }
  return bench->Ask(Type::kUploadEnd, UploadEnd());
}

TEST(AnUploadIsVerifiedAndLoaded) {
  Bench bench;
  bench.Hello();
  const Data model = Model();
  const Sha256Digest digest = Sha256::Of(Bytes(model.data(), model.size()));
  const UploadEndReply loaded =
      Upload(&bench, model, digest).ReplyTo<UploadEndReply>(Type::kUploadEnd);
  CHECK(loaded.sha256 == digest);
  CHECK(bench.runner.loaded_bytes == model);
  CHECK_EQ(bench.runner.loaded_name, "up");
  CHECK_EQ(bench.pool.held(), 2u);  // the model's bytes stay
  bench.Ask(Type::kUnload, Unload{loaded.handle});
  CHECK_EQ(bench.pool.held(), 0u);
}

TEST(AnUploadThatDiffersIsNotLoaded) {
  Bench bench;
  bench.Hello();
  Data model = Model();
  const Sha256Digest digest = Sha256::Of(Bytes(model.data(), model.size()));
  model[2000] ^= 1;
  CHECK_EQ(Upload(&bench, model, digest).Error(), Code::kHashMismatch);
  CHECK_EQ(bench.runner.loads, 0);
  CHECK_EQ(bench.pool.held(), 0u);
  CHECK_EQ(bench.Ask(Type::kUploadEnd, UploadEnd()).Error(), Code::kUploadState);
}

TEST(AnUploadThatIsNoModelIsNotLoaded) {
  Bench bench;
  bench.Hello();
  const Data model = Model();
  for (const size_t size : {size_t{1}, size_t{4}, size_t{15}, model.size() - 1}) {
    const Data cut(model.begin(), model.begin() + static_cast<std::ptrdiff_t>(size));
    const Sha256Digest digest = Sha256::Of(Bytes(cut.data(), cut.size()));
    CHECK_EQ(Upload(&bench, cut, digest).Error(), Code::kLoadFailed);
  }
  CHECK_EQ(bench.runner.loads, 0);
  CHECK_EQ(bench.pool.held(), 0u);
}

TEST(UploadStepsOutOfPlaceAreRefused) {
  Bench bench;
  bench.Hello();
  const Data block(64);
  const auto data = [&](uint32_t offset, size_t size) {
    return bench.Ask(Type::kUploadData, UploadData{offset, Bytes(block.data(), size)}).Error();
  };
  CHECK_EQ(data(0, 8), Code::kUploadState);
  CHECK_EQ(bench.Ask(Type::kUploadEnd, UploadEnd()).Error(), Code::kUploadState);
  CHECK_EQ(bench.Ask(Type::kUploadBegin, UploadBegin{0, {}, "up"}).Error(), Code::kBadRequest);
  CHECK_EQ(bench.Ask(Type::kUploadBegin, UploadBegin{100001, {}, "up"}).Error(), Code::kTooLarge);
  CHECK_EQ(bench.Ask(Type::kUploadBegin, UploadBegin{40, {}, "up"}).Error(), Code::kOk);
  CHECK_EQ(data(8, 8), Code::kUploadState);
  CHECK_EQ(data(0, 32), Code::kOk);
  CHECK_EQ(data(0, 8), Code::kUploadState);
  CHECK_EQ(bench.Ask(Type::kUploadEnd, UploadEnd()).Error(), Code::kUploadState);
  CHECK_EQ(data(32, 9), Code::kUploadState);
  CHECK_EQ(data(32, 8), Code::kOk);
  bench.pool.largest = 8;
  CHECK_EQ(bench.Ask(Type::kUploadBegin, UploadBegin{40, {}, "up"}).Error(), Code::kOutOfMemory);
  CHECK_EQ(bench.pool.held(), 0u);
}

// --- describe ---

TEST(TensorsAreDescribed) {
  Ready bench;
  const Answer answer = bench.Ask(Type::kDescribe, Describe{bench.handle, 1, 1});
  const DescribeReply reply = answer.ReplyTo<DescribeReply>(Type::kDescribe);
  CHECK_EQ(reply.total, 3u);
  CHECK_EQ(reply.count, 2u);
  PayloadReader reader(reply.items);
  TensorInfo info;
  reader(info);
  CHECK_EQ(info.name, "hn");
  CHECK_EQ(info.dtype, 3u);
  CHECK_EQ(info.exponent, -7);
  CHECK_EQ(info.bytes, 4u);
  CHECK_EQ(bench.Ask(Type::kDescribe, Describe{bench.handle, 3, 0}).Error(), Code::kBadRequest);
  CHECK_EQ(bench.Ask(Type::kDescribe, Describe{999, 0, 0}).Error(), Code::kBadHandle);
}

TEST(ATensorThatFitsNoPacketIsAnError) {
  Bench bench;
  bench.runner.nodes[1].name = std::string(1100, 'n');
  bench.Hello();
  const uint32_t handle = bench.LoadModel();
  CHECK_EQ(bench.Ask(Type::kDescribe, Describe{handle, 2, 0})
               .ReplyTo<DescribeReply>(Type::kDescribe)
               .count,
           1u);
  CHECK_EQ(bench.Ask(Type::kDescribe, Describe{handle, 2, 1}).Error(), Code::kTooLarge);
}

// --- streams ---

TEST(AStreamCarriesTheModelsHashAndTheBoot) {
  Ready bench;
  const StartReply started =
      bench.Ask(Type::kStart, Start{bench.handle, 0}).ReplyTo<StartReply>(Type::kStart);
  const Data model = MakeEdl(2, 64);
  CHECK(started.model_sha256 == Sha256::Of(Bytes(model.data(), model.size())));
  CHECK_EQ(started.boot_nonce, 0x1122334455667788u);
  CHECK_EQ(started.input_bytes, 8u);
  CHECK_EQ(started.output_bytes, 28u);
  CHECK_EQ(started.result_bytes, 28u);
  CHECK_EQ(bench.runner.resets, 0);
  CHECK_EQ(bench.Ask(Type::kStart, Start{bench.handle, 8}).Error(), Code::kBadRequest);
}

TEST(ChunksRunInOrderAndKeepTheCache) {
  Ready bench;
  const uint32_t stream = bench.StartStream(bench.handle);
  const Answer first = bench.Send(stream, 0, {1, 2, 3, 4, 10, 10, 10, 10});
  const ChunkReply fields = first.ReplyTo<ChunkReply>(Type::kChunk);
  CHECK_EQ(fields.stream, stream);
  CHECK_EQ(fields.flags, kChunkExecuted);
  CHECK_EQ(fields.latency_us, 321u);
  CHECK_EQ(fields.result_bytes, 28u);
  CHECK((Head(first, 4) == Data{11, 12, 13, 14}));
  CHECK((Head(bench.Send(stream, 1, {0, 0, 0, 0, 0, 0, 0, 0}), 4) == Data{1, 2, 3, 4}));
  CHECK_EQ(bench.Send(stream, 3, Data(8)).Error(), Code::kChunkOrder);
  CHECK_EQ(bench.Send(stream, 1, Data(8)).Error(), Code::kChunkOrder);
  CHECK_EQ(bench.Send(stream, 2, Data(9)).Error(), Code::kBadRequest);
  CHECK_EQ(bench.Send(stream, 2, Data(8)).Error(), Code::kOk);
  CHECK_EQ(bench.Send(stream + 1, 3, Data(8)).Error(), Code::kNoStream);
  CHECK_EQ(bench.Send(0, 3, Data(8)).Error(), Code::kNoStream);
}

TEST(ResetZeroesTheCacheAndStartCanKeepIt) {
  Ready bench;
  const Data input = {1, 2, 3, 4, 0, 0, 0, 0};
  uint32_t stream = bench.StartStream(bench.handle);
  bench.Send(stream, 0, input);
  stream = bench.StartStream(bench.handle, 0);
  CHECK((Head(bench.Send(stream, 0, Data(8)), 4) == Data{1, 2, 3, 4}));
  bench.Send(stream, 1, input);
  bench.Ask(Type::kReset, Reset{bench.handle});
  CHECK((Head(bench.Send(stream, 2, Data(8)), 4) == Data{0, 0, 0, 0}));
  bench.Send(stream, 3, input);
  stream = bench.StartStream(bench.handle, kStartReset);
  CHECK((Head(bench.Send(stream, 0, Data(8)), 4) == Data{0, 0, 0, 0}));
}

TEST(ChunksMayComeInFragments) {
  Ready bench;
  const uint32_t stream = bench.StartStream(bench.handle);
  const Answer part = bench.Send(stream, 0, {1, 2, 3});
  CHECK_EQ(part.ReplyTo<ChunkReply>(Type::kChunk).flags, 0u);
  CHECK_EQ(part.ReplyTo<ChunkReply>(Type::kChunk).result_bytes, 0u);
  CHECK_EQ(bench.Send(stream, 0, {9}, 2).Error(), Code::kChunkOrder);
  CHECK_EQ(bench.Send(stream, 0, {9}, 4).Error(), Code::kChunkOrder);
  bench.Send(stream, 0, {4, 10}, 3);
  CHECK_EQ(bench.runner.runs, 0);
  CHECK((Head(bench.Send(stream, 0, {10, 10, 10}, 5), 4) == Data{11, 12, 13, 14}));
  CHECK_EQ(bench.runner.runs, 1);
}

TEST(APacketMayHoldSeveralSteps) {
  Ready bench;
  const Data inputs = {1, 2, 3, 4, 10, 10, 10, 10, 5, 5, 5, 5, 0, 0, 0, 0, 9, 9, 9, 9, 1, 1, 1, 1};
  const uint32_t one = bench.StartStream(bench.handle);
  std::vector<Data> singly;
  for (uint32_t index = 0; index < 3; ++index) {
    const auto* from = inputs.data() + size_t{8} * index;
    singly.push_back(ResultOf(bench.Send(one, index, Data(from, from + 8))));
  }
  bench.runner.runs = 0;  // which shows in the third output
  const uint32_t many = bench.StartStream(bench.handle);
  const Answer answer = bench.Send(many, 0, inputs);
  CHECK_EQ(bench.runner.runs, 3);
  const ChunkReply first = answer.ReplyTo<ChunkReply>(Type::kChunk);
  CHECK_EQ(first.index, 0u);
  CHECK_EQ(first.result_bytes, singly[0].size());
  PayloadReader reader(first.data.From(first.result_bytes));
  CHECK(ToData(first.data.Sub(0, first.result_bytes)) == singly[0]);
  for (size_t step = 1; step < 3; ++step) {
    LaterStep later;
    reader(later);
    CHECK_EQ(later.flags & kChunkExecuted, kChunkExecuted);
    CHECK_EQ(later.latency_us, bench.runner.latency_us);
    CHECK_EQ(later.flags & kChunkUnwritten, 0);
    Data block(first.result_bytes);
    for (uint8_t& byte : block) {
      reader(byte);
    }
    CHECK(block == singly[step]);
  }
  CHECK(reader.done());
  CHECK((Head(bench.Send(many, 3, Data(8)), 4) == Data{9, 9, 9, 9}));  // the fourth follows
}

TEST(AnUnwrittenOutputOfALaterStepIsTold) {
  Ready bench;
  const uint32_t stream = bench.StartStream(bench.handle);
  int runs = 0;
  bench.runner.step = [&runs](Span<const Bytes>, Span<const MutableBytes> out) {
    for (const MutableBytes& output : out) {
      if (runs != 1) {
        std::fill(output.begin(), output.end(), uint8_t{0});
      }
    }
    ++runs;
    return Ok();
  };
  const ChunkReply first = bench.Send(stream, 0, Data(24)).ReplyTo<ChunkReply>(Type::kChunk);
  PayloadReader reader(first.data.From(first.result_bytes));
  LaterStep later;
  LaterUnwritten unwritten;
  reader(later);
  CHECK_EQ(later.flags & kChunkUnwritten, kChunkUnwritten);
  reader(unwritten);
  CHECK(unwritten.unwritten_tensors >= 1u);
  CHECK(unwritten.unwritten_bytes >= 16u);
  for (uint32_t index = 0; index < first.result_bytes; ++index) {
    uint8_t byte = 0;
    reader(byte);
  }
  reader(later);
  CHECK_EQ(later.flags & kChunkUnwritten, 0);
}

TEST(AFailureNamesTheStepOfItsPacket) {
  Ready bench;
  const uint32_t stream = bench.StartStream(bench.handle);
  int left = 2;
  bench.runner.step = [&left](Span<const Bytes>, Span<const MutableBytes>) {
    return left-- == 0 ? Status(Code::kRunFailed, "the third") : Ok();
  };
  const ErrorReply error = bench.Send(stream, 0, Data(32)).As<ErrorReply>(Type::kError);
  CHECK_EQ(error.code, static_cast<uint16_t>(Code::kRunFailed));
  CHECK_EQ(error.done, 2u);
  const ErrorReply next = bench.Send(stream, 4, Data(8)).As<ErrorReply>(Type::kError);
  CHECK_EQ(next.code, static_cast<uint16_t>(Code::kStreamBroken));
  CHECK_EQ(next.done, 0u);
}

TEST(StepsWhoseResultsDoNotFitAreNotRun) {
  Ready bench;
  const uint32_t stream = bench.StartStream(bench.handle);
  const uint32_t result =
      bench.Send(stream, 0, Data(8)).ReplyTo<ChunkReply>(Type::kChunk).result_bytes;
  const size_t fit = 1 + (kMinPayload - 30 - result) / (18 + result);
  CHECK(8 * (fit + 1) + 12 <= kMinPayload);
  CHECK_EQ(bench.Send(stream, 1, Data(8 * (fit + 1))).Error(), Code::kTooLarge);
  CHECK_EQ(bench.Send(stream, 1, Data(8 * fit + 1)).Error(), Code::kBadRequest);
  CHECK_EQ(bench.runner.runs, 1);
  CHECK_EQ(bench.Send(stream, 1, Data(8 * fit)).Error(), Code::kOk);
  CHECK_EQ(bench.runner.runs, static_cast<int>(1 + fit));
}

TEST(StreamsOfTwoModelsInterleave) {
  Ready bench;
  const uint32_t other = bench.LoadModel("gru");
  const uint32_t a = bench.StartStream(bench.handle);
  const uint32_t b = bench.StartStream(other);
  CHECK(a != b);
  bench.Send(a, 0, {1, 1, 1, 1, 0, 0, 0, 0});
  bench.Send(b, 0, {5, 5, 5, 5, 0, 0, 0, 0});
  CHECK((Head(bench.Send(a, 1, Data(8)), 4) == Data{1, 1, 1, 1}));
  CHECK((Head(bench.Send(b, 1, Data(8)), 4) == Data{5, 5, 5, 5}));
}

TEST(AFailedStepBreaksTheStream) {
  Ready bench;
  const uint32_t stream = bench.StartStream(bench.handle);
  bench.Send(stream, 0, Data(8));
  bench.runner.step = [](Span<const Bytes>, Span<const MutableBytes>) {
    return Status(Code::kRunFailed, "no");
  };
  CHECK_EQ(bench.Send(stream, 1, Data(8)).Error(), Code::kRunFailed);
  bench.runner.step = nullptr;
  CHECK_EQ(bench.Send(stream, 2, Data(8)).Error(), Code::kStreamBroken);
  // The failed step's canary is in the memory of the last good result.
  CHECK_EQ(bench.Ask(Type::kReadResult, ReadResult{stream, 0, 0, 8}).Error(), Code::kNotAvailable);
  CHECK_EQ(bench.Send(bench.StartStream(bench.handle), 0, Data(8)).Error(), Code::kOk);
}

TEST(AModelWithoutInputsRunsOnEmptyChunks) {
  Bench bench;
  bench.runner.inputs.clear();
  bench.runner.step = [](Span<const Bytes> in, Span<const MutableBytes> out) {
    for (const MutableBytes& output : out) {
      std::fill(output.begin(), output.end(), uint8_t{7});
    }
    return in.empty() ? Ok() : Status(Code::kInternal, "");
  };
  bench.Hello();
  const uint32_t stream = bench.StartStream(bench.LoadModel());
  CHECK_EQ(ResultOf(bench.Send(stream, 0, {})).size(), 28u);
  CHECK_EQ(bench.runner.runs, 1);
}

// --- state ---

TEST(BoundStateIsFedBackAndZeroed) {
  Ready bench;
  const BindStateReply bound =
      bench.Bind(bench.handle, {{"hn", "h"}}).ReplyTo<BindStateReply>(Type::kBindState);
  CHECK_EQ(bound.state_bytes, 4u);
  CHECK_EQ(bound.input_bytes, 4u);
  uint32_t stream = bench.StartStream(bench.handle);
  // hn = x + h: a running sum of x.
  CHECK((Head(bench.Send(stream, 0, {1, 2, 3, 4}), 8) == Data{1, 2, 3, 4, 1, 2, 3, 4}));
  CHECK((Head(bench.Send(stream, 1, {1, 1, 1, 1}), 8) == Data{3, 5, 7, 9, 2, 3, 4, 5}));
  stream = bench.StartStream(bench.handle, 0);
  const Data kept = Head(bench.Send(stream, 0, {0, 0, 0, 0}), 8);
  CHECK((Data(kept.begin() + 4, kept.end()) == Data{2, 3, 4, 5}));
  bench.Ask(Type::kReset, Reset{bench.handle});
  CHECK((Head(bench.Send(stream, 1, {1, 1, 1, 1}), 8) == Data{1, 1, 1, 1, 1, 1, 1, 1}));
}

// The twin: without the binding, state is whatever the host sends.
TEST(UnboundStateIsNotFedBack) {
  Ready bench;
  const uint32_t stream = bench.StartStream(bench.handle);
  bench.Send(stream, 0, {1, 2, 3, 4, 0, 0, 0, 0});
  const Data second = Head(bench.Send(stream, 1, {1, 1, 1, 1, 0, 0, 0, 0}), 8);
  CHECK((Data(second.begin() + 4, second.end()) == Data{1, 1, 1, 1}));
}

TEST(BindingsThatDoNotFitAreRefusedAndChangeNothing) {
  Ready bench;
  bench.Bind(bench.handle, {{"hn", "h"}});
  const auto bind = [&](const std::vector<StatePair>& pairs) {
    return bench.Bind(bench.handle, pairs).Error();
  };
  CHECK_EQ(bind({{"big", "h"}}), Code::kStateBinding);
  CHECK_EQ(bind({{"hn", "h"}, {"y", "h"}}), Code::kStateBinding);
  CHECK_EQ(bind({{"nope", "h"}}), Code::kNoSuchTensor);
  CHECK_EQ(bind({{"hn", "nope"}}), Code::kNoSuchTensor);
  CHECK_EQ(bind({{"mid", "h"}}), Code::kNoSuchTensor);  // a node output is no graph output
  bench.runner.outputs[0].exponent = -6;
  CHECK_EQ(bind({{"y", "h"}}), Code::kStateBinding);
  CHECK_EQ(
      bench.Ask(Type::kStart, Start{bench.handle, 0}).ReplyTo<StartReply>(Type::kStart).input_bytes,
      4u);
  CHECK_EQ(bind({{"hn", "h"}, {"hn", "x"}}), Code::kOk);  // one output may feed two inputs
  CHECK_EQ(bind({}), Code::kOk);
  CHECK_EQ(
      bench.Ask(Type::kStart, Start{bench.handle, 0}).ReplyTo<StartReply>(Type::kStart).input_bytes,
      8u);
  const uint8_t cut[] = {2, 0, 'h', 'n', 1};
  CHECK_EQ(bench.Ask(Type::kBindState, BindState{bench.handle, 1, cut}).Error(), Code::kBadRequest);
  CHECK_EQ(bench.Ask(Type::kBindState, BindState{bench.handle, 0, cut}).Error(), Code::kBadRequest);
}

TEST(BindingEndsTheStream) {
  Ready bench;
  const uint32_t stream = bench.StartStream(bench.handle);
  bench.Bind(bench.handle, {{"hn", "h"}});
  CHECK_EQ(bench.Send(stream, 0, Data(4)).Error(), Code::kNoStream);
}

// --- canary ---

using Step = std::function<Status(Span<const Bytes>, Span<const MutableBytes>)>;

// A step that writes `count` bytes of each output from `first` on.
Step Writes(size_t first, size_t count) {
  return [first, count](Span<const Bytes>, Span<const MutableBytes> out) {
    for (const MutableBytes& output : out) {
      const size_t end = std::min(first + count, output.size());
      for (size_t index = first; index < end; ++index) {
        output[index] = uint8_t{0x5A};
      }
    }
    return Ok();
  };
}

TEST(AnOutputThatIsNotWrittenIsNamed) {
  Ready bench;
  bench.runner.step = Writes(0, 0);
  const uint32_t stream = bench.StartStream(bench.handle);
  ChunkReply fields = bench.Send(stream, 0, Data(8)).ReplyTo<ChunkReply>(Type::kChunk);
  CHECK_EQ(fields.flags, kChunkExecuted | kChunkUnwritten | kChunkSuspect);
  CHECK_EQ(fields.unwritten_tensors, 1u);
  CHECK_EQ(fields.unwritten_output, 2u);  // big; the short ones are only suspect
  CHECK_EQ(fields.unwritten_offset, 0u);
  CHECK_EQ(fields.unwritten_bytes, 20u);
  for (uint32_t index = 1; index < 3; ++index) {
    fields = bench.Send(stream, index, Data(8)).ReplyTo<ChunkReply>(Type::kChunk);
    CHECK_EQ(fields.unwritten_tensors, 1u);
  }
  fields = bench.Send(stream, 3, Data(8)).ReplyTo<ChunkReply>(Type::kChunk);
  CHECK_EQ(fields.flags, kChunkExecuted | kChunkUnwritten);  // four times 4 bytes: sure
  CHECK_EQ(fields.unwritten_tensors, 3u);
  CHECK_EQ(fields.unwritten_output, 0u);
  CHECK_EQ(fields.unwritten_bytes, 4u);
}

TEST(APartThatIsNotWrittenIsFound) {
  Ready bench;
  bench.runner.step = Writes(0, 4);
  const uint32_t stream = bench.StartStream(bench.handle);
  const ChunkReply fields = bench.Send(stream, 0, Data(8)).ReplyTo<ChunkReply>(Type::kChunk);
  CHECK_EQ(fields.flags, kChunkExecuted | kChunkUnwritten);
  CHECK_EQ(fields.unwritten_output, 2u);
  CHECK_EQ(fields.unwritten_offset, 4u);
  CHECK_EQ(fields.unwritten_bytes, 16u);
}

TEST(WrittenOutputRaisesNoAlarm) {
  Ready bench;
  bench.runner.step = Writes(0, 20);
  const uint32_t stream = bench.StartStream(bench.handle);
  for (uint32_t index = 0; index < 200; ++index) {
    const Answer answer = bench.Send(stream, index, Data(8));
    CHECK_EQ(answer.ReplyTo<ChunkReply>(Type::kChunk).flags, kChunkExecuted);
  }
}

TEST(AChangedVectorUnitIsReportedAndWhetherItWasLate) {
  Ready bench;
  bench.runner.vector_unit = {kChunkRoundingLost, 0, 0, kChunkMisaligned, 0, 0};
  const uint32_t stream = bench.StartStream(bench.handle);
  const uint16_t expected[] = {kChunkRoundingLost, kChunkMisaligned | kChunkVectorUnitLate, 0};
  for (uint32_t index = 0; index < 3; ++index) {
    const Answer answer = bench.Send(stream, index, Data(8));
    CHECK_EQ(answer.ReplyTo<ChunkReply>(Type::kChunk).flags & ~kChunkSuspect,
             kChunkExecuted | expected[index]);
  }
}

TEST(AShortOutputLegitimatelyEqualOnceIsOnlySuspect) {
  Bench bench;
  bench.runner.outputs = {{"flags", 4}};
  Data first;
  bench.runner.step = [&](Span<const Bytes>, Span<const MutableBytes> out) {
    if (first.empty()) {
      first = ToData(out[0]);  // not written: the canary stays
    }
    std::copy(first.begin(), first.end(), out[0].begin());  // legitimate, and ever the same
    return Ok();
  };
  bench.Hello();
  const uint32_t stream = bench.StartStream(bench.LoadModel());
  CHECK_EQ(bench.Send(stream, 0, Data(8)).ReplyTo<ChunkReply>(Type::kChunk).flags,
           kChunkExecuted | kChunkSuspect);
  for (uint32_t index = 1; index < 40; ++index) {
    CHECK_EQ(bench.Send(stream, index, Data(8)).ReplyTo<ChunkReply>(Type::kChunk).flags,
             kChunkExecuted);
  }
}

// --- watch and read ---

TEST(WatchesRecordValuesAndDigests) {
  Ready bench;
  bench.Bind(bench.handle, {{"hn", "h"}});
  const WatchReply reply =
      bench.SetWatch(bench.handle, {{0, "mid"}, {1, "mid"}, {0, "h"}, {1, "big"}, {0, "y"}})
          .ReplyTo<WatchReply>(Type::kWatch);
  CHECK_EQ(reply.count, 5u);
  CHECK_EQ(reply.watch_bytes, 4u + 4u + 4u + 4u + 4u);
  PayloadReader reader(reply.items);
  TensorInfo info;
  reader(info, info, info, info);
  CHECK_EQ(info.name, "");
  CHECK_EQ(info.bytes, 20u);
  const uint32_t stream = bench.StartStream(bench.handle);
  bench.Send(stream, 0, {1, 2, 3, 4});
  const Data result = ResultOf(bench.Send(stream, 1, {10, 10, 10, 10}));
  CHECK_EQ(result.size(), 48u);
  const Data mid = {11, 12, 13, 14};
  CHECK((Data(result.begin() + 28, result.begin() + 32) == mid));
  CHECK_EQ(LoadU32(result.data() + 32), Crc32(Bytes(mid.data(), 4)));
  CHECK((Data(result.begin() + 36, result.begin() + 40) == Data{1, 2, 3, 4}));  // h as used
  CHECK_EQ(LoadU32(result.data() + 40), Crc32(Bytes(result.data() + 8, 20)));
  CHECK((Data(result.begin() + 44, result.end()) == Data(result.begin(), result.begin() + 4)));
}

TEST(WatchingKeepsTheStateAndEndsTheStream) {
  Ready bench;
  uint32_t stream = bench.StartStream(bench.handle);
  bench.Send(stream, 0, {1, 2, 3, 4, 0, 0, 0, 0});
  bench.SetWatch(bench.handle, {{0, "mid"}});
  CHECK_EQ(bench.Send(stream, 1, Data(8)).Error(), Code::kNoStream);
  stream = bench.StartStream(bench.handle, 0);
  CHECK((Head(bench.Send(stream, 0, Data(8)), 4) == Data{1, 2, 3, 4}));
  const WatchReply none = bench.SetWatch(bench.handle, {}).ReplyTo<WatchReply>(Type::kWatch);
  CHECK_EQ(none.watch_bytes, 0u);
  stream = bench.StartStream(bench.handle, 0);
  CHECK_EQ(ResultOf(bench.Send(stream, 0, Data(8))).size(), 28u);
  CHECK_EQ(bench.pool.held(), 1u);
}

TEST(WatchesThatCannotBeAreRefused) {
  Ready bench;
  CHECK_EQ(bench.SetWatch(bench.handle, {{0, "nope"}}).Error(), Code::kNoSuchTensor);
  CHECK_EQ(bench.SetWatch(bench.handle, {{2, "mid"}}).Error(), Code::kBadRequest);
  CHECK_EQ(bench.SetWatch(bench.handle, std::vector<WatchItem>(9, {0, "mid"})).Error(),
           Code::kTooLarge);
  CHECK_EQ(bench.SetWatch(bench.handle, std::vector<WatchItem>(8, {0, "mid"})).Error(), Code::kOk);
  bench.pool.largest = 32;
  CHECK_EQ(bench.SetWatch(bench.handle, {{0, "mid"}}).Error(), Code::kOutOfMemory);
  const uint8_t cut[] = {0, 9};
  CHECK_EQ(bench.Ask(Type::kWatch, Watch{bench.handle, 1, cut}).Error(), Code::kBadRequest);
}

TEST(AWatchReplyThatDoesNotFitLeavesNoWatches) {
  Limits limits = Bench::DefaultLimits();
  limits.max_watch = 100;
  Ready bench(limits);
  CHECK_EQ(bench.SetWatch(bench.handle, std::vector<WatchItem>(90, {0, "mid"})).Error(),
           Code::kTooLarge);
  CHECK_EQ(bench.Ask(Type::kStart, Start{bench.handle, 0})
               .ReplyTo<StartReply>(Type::kStart)
               .result_bytes,
           28u);
}

Data ReadAt(Bench* bench, uint32_t handle, std::string_view name, uint32_t offset, uint32_t size) {
  const Answer answer = bench->Ask(Type::kReadTensor, ReadTensor{handle, offset, size, name});
  return ToData(answer.ReplyTo<ReadTensorReply>(Type::kReadTensor).data);
}

TEST(TensorsOfTheLastStepCanBeRead) {
  Ready bench;
  const auto error = [&](std::string_view name, uint32_t offset) {
    return bench.Ask(Type::kReadTensor, ReadTensor{bench.handle, offset, 4, name}).Error();
  };
  CHECK_EQ(error("y", 0), Code::kNotAvailable);
  uint32_t stream = bench.StartStream(bench.handle);
  bench.Send(stream, 0, {1, 2, 3, 4, 10, 10, 10, 10});
  CHECK((ReadAt(&bench, bench.handle, "y", 1, 100) == Data{12, 13, 14}));
  CHECK((ReadAt(&bench, bench.handle, "x", 0, 2) == Data{1, 2}));
  CHECK((ReadAt(&bench, bench.handle, "y", 4, 1).empty()));
  CHECK_EQ(error("y", 5), Code::kBadRequest);
  CHECK_EQ(error("nope", 0), Code::kNoSuchTensor);
  CHECK_EQ(error("mid", 0), Code::kNotRetained);
  stream = bench.StartStream(bench.handle, kStartRetain);
  bench.Send(stream, 0, {1, 2, 3, 4, 10, 10, 10, 10});
  CHECK((ReadAt(&bench, bench.handle, "mid", 0, 4) == Data{11, 12, 13, 14}));
  bench.SetWatch(bench.handle, {{1, "mid"}});
  stream = bench.StartStream(bench.handle, 0);
  CHECK(!bench.runner.retained);
  CHECK_EQ(error("mid", 0), Code::kNotRetained);
  bench.Send(stream, 0, {2, 2, 2, 2, 0, 0, 0, 0});
  CHECK((ReadAt(&bench, bench.handle, "mid", 0, 4) == Data{2, 2, 2, 2}));
  bench.runner.retain_status = Status(Code::kOutOfMemory, "");
  CHECK_EQ(bench.Ask(Type::kStart, Start{bench.handle, kStartRetain}).Error(), Code::kOutOfMemory);
}

TEST(LargeResultsAreReadInParts) {
  Bench bench;
  bench.runner.inputs = {{"x", 3000}};
  bench.runner.outputs = {{"a", 1500}, {"b", 2500}};
  bench.runner.step = [](Span<const Bytes> in, Span<const MutableBytes> out) {
    std::copy(in[0].begin(), in[0].begin() + 1500, out[0].begin());
    std::copy(in[0].begin() + 500, in[0].end(), out[1].begin());
    return Ok();
  };
  bench.Hello();
  const uint32_t stream = bench.StartStream(bench.LoadModel());
  Data input(3000);
  for (size_t index = 0; index < input.size(); ++index) {
    input[index] = static_cast<uint8_t>(index * 13 + index / 256);
  }
  Data want(input.begin(), input.begin() + 1500);
  want.insert(want.end(), input.begin() + 500, input.end());
  Data got;
  for (uint32_t offset = 0; offset < input.size(); offset += 1000) {
    const Data part(input.begin() + offset, input.begin() + offset + 1000);
    got = ResultOf(bench.Send(stream, 0, part, offset));
  }
  CHECK(got.size() > 900 && got.size() < 1024);
  while (got.size() < want.size()) {
    const uint32_t offset = static_cast<uint32_t>(got.size());
    const Answer answer = bench.Ask(Type::kReadResult, ReadResult{stream, 0, offset, 100000});
    const Data part = ToData(answer.ReplyTo<ReadResultReply>(Type::kReadResult).data);
    CHECK(!part.empty());
    got.insert(got.end(), part.begin(), part.end());
  }
  CHECK(got == want);
  const auto error = [&](uint32_t index, uint32_t offset) {
    return bench.Ask(Type::kReadResult, ReadResult{stream, index, offset, 1}).Error();
  };
  CHECK_EQ(error(0, 4000), Code::kOk);
  CHECK_EQ(error(0, 4001), Code::kBadRequest);
  CHECK_EQ(error(1, 0), Code::kNotAvailable);
  // Fragments of the next chunk leave the result; the step replaces it.
  bench.Send(stream, 1, Data(1000));
  CHECK_EQ(error(0, 0), Code::kOk);
  bench.Send(stream, 1, Data(1000), 1000);
  bench.Send(stream, 1, Data(1000), 2000);
  CHECK_EQ(error(0, 0), Code::kNotAvailable);
  CHECK_EQ(error(1, 0), Code::kOk);
}

// --- the rest ---

TEST(MemoryAndReboot) {
  Bench bench;
  bench.Hello();
  CHECK_EQ(bench.Ask(Type::kQueryMemory, QueryMemory())
               .ReplyTo<QueryMemoryReply>(Type::kQueryMemory)
               .memory.psram_free,
           1000000u);
  CHECK_EQ(bench.Ask(Type::kReboot, Reset{1}).Error(), Code::kBadRequest);
  CHECK_EQ(bench.system.reboots, 0);
  CHECK_EQ(bench.Ask(Type::kReboot, Reboot()).Error(), Code::kOk);
  CHECK_EQ(bench.system.reboots, 1);
  bench.Feed(bench.Frame(bench.next_seq - 1, Type::kReboot, Reboot()));
  CHECK_EQ(bench.Run().size(), 1u);
  CHECK_EQ(bench.system.reboots, 1);  // a repeat does not restart again
  bench.Ask(Type::kQueryMemory, QueryMemory());
  CHECK_EQ(bench.system.reboots, 1);
}

TEST(UsageIsTheRunners) {
  Bench bench;
  bench.Hello();
  const QueryUsageReply usage =
      bench.Ask(Type::kQueryUsage, QueryUsage()).ReplyTo<QueryUsageReply>(Type::kQueryUsage);
  CHECK_EQ(usage.load_us, 81000u);
  CHECK_EQ(usage.stack_least, 3u);
  CHECK_EQ(bench.Ask(Type::kQueryUsage, Reset{1}).Error(), Code::kBadRequest);
}

TEST(ANewRateHoldsOnceTwoRequestsWereExecutedAtIt) {
  Bench bench;
  CHECK_EQ(bench.Hello().ReplyTo<HelloReply>(Type::kHello).max_baud, 2000000u);
  const Answer answer = bench.Ask(Type::kSetBaud, SetBaud{921600});
  CHECK_EQ(answer.ReplyTo<SetBaudReply>(Type::kSetBaud).trial_ms, 500u);
  CHECK(bench.system.bauds == std::vector<uint32_t>({921600}));
  bench.Ask(Type::kQueryMemory, QueryMemory());
  bench.system.now_ms += 499;
  bench.Ask(Type::kQueryMemory, QueryMemory());
  bench.system.now_ms += 100000;
  bench.Ask(Type::kQueryMemory, QueryMemory());
  CHECK(bench.system.bauds == std::vector<uint32_t>({921600}));
}

TEST(ANewRateEndsWhereTheHostIsNotHeardOrDoesNotHear) {
  for (const int heard : {0, 1}) {  // one request: its reply may never have arrived
    Bench bench;
    bench.Hello();
    bench.Ask(Type::kSetBaud, SetBaud{2000000});
    const std::vector<uint8_t> request =
        bench.Frame(bench.next_seq, Type::kQueryMemory, QueryMemory());
    for (int index = 0; index < 3 * heard; ++index) {
      bench.Feed(request);  // repeats of it prove nothing
      bench.Run();
    }
    bench.system.now_ms += 499;
    bench.Run();
    CHECK(bench.system.bauds == std::vector<uint32_t>({2000000}));
    bench.system.now_ms += 1;
    bench.Run();
    bench.system.now_ms += 1000;
    bench.Run();
    CHECK(bench.system.bauds == std::vector<uint32_t>({2000000, 0}));
  }
}

TEST(ARepeatedRequestForARateChangesNothing) {
  Bench bench;
  bench.Hello();
  bench.Ask(Type::kSetBaud, SetBaud{921600});
  bench.system.now_ms += 500;
  bench.Feed(bench.Frame(bench.next_seq - 1, Type::kSetBaud, SetBaud{921600}));
  CHECK_EQ(bench.Run().size(), 1u);
  CHECK(bench.system.bauds == std::vector<uint32_t>({921600, 0}));
}

TEST(OnlyRatesOfThePortAreTaken) {
  Bench bench;
  bench.Hello();
  CHECK_EQ(bench.Ask(Type::kSetBaud, SetBaud{2000001}).Error(), Code::kBadRequest);
  CHECK_EQ(bench.Ask(Type::kSetBaud, SetBaud{0}).Error(), Code::kBadRequest);
  DeviceFacts facts = Bench::Facts();
  facts.max_baud = 0;
  bench.device = std::make_unique<Session>(
      facts, bench.limits,
      Platform{&bench.stream, &bench.runner, &bench.pool, &bench.system, &bench.store},
      MutableBytes(bench.arena.data(), bench.arena.size()));
  bench.Hello();
  const Answer refused = bench.Ask(Type::kSetBaud, SetBaud{921600});
  CHECK_EQ(refused.As<ErrorReply>(Type::kError).text, "the port has no rate");
  CHECK(bench.system.bauds.empty());
}

TEST(TimingIsOnlyToldWhereItIsMeasured) {
  Bench bench;
  DeviceFacts facts = Bench::Facts();
  facts.flags = kDeviceSimulated;
  bench.device = std::make_unique<Session>(
      facts, bench.limits,
      Platform{&bench.stream, &bench.runner, &bench.pool, &bench.system, &bench.store},
      MutableBytes(bench.arena.data(), bench.arena.size()));
  bench.Hello();
  const uint32_t id = bench.StartStream(bench.LoadModel());
  const ChunkReply fields = bench.Send(id, 0, Data(8)).ReplyTo<ChunkReply>(Type::kChunk);
  CHECK_EQ(fields.flags, kChunkExecuted | kChunkNoTiming);
  CHECK_EQ(fields.latency_us, 0u);
}

TEST(EveryRequestRefusesAPayloadOfAnotherSize) {
  Bench bench;
  bench.Hello();
  const uint8_t seven[] = {0, 0, 0, 0, 1, 2, 3};  // what no request looks like
  for (uint8_t type = 1; type <= 0x13; ++type) {
    CHECK(bench.Ask(static_cast<Type>(type), UploadData{0, seven}).Error() != Code::kOk);
  }
  CHECK_EQ(bench.runner.loads, 0);
}

}  // namespace
}  // namespace hil
