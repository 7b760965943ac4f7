// Sequence numbers, window, repeats, gaps, damage and sessions: protocol.md section 2.
#include <vector>

#include "check.h"
#include "fakes.h"
#include "wire/crc32.h"

namespace hil {
namespace {

std::vector<uint8_t> Damaged(std::vector<uint8_t> frame) {
  frame[frame.size() / 2] ^= 0x40;
  return frame;
}

TEST(BootIsAnnounced) {
  Bench bench;
  bench.device->Start();
  const std::vector<Answer> answers = bench.Run();
  CHECK_EQ(answers.size(), 1u);
  CHECK_EQ(answers[0].As<Booted>(Type::kBooted).boot_nonce, 0x1122334455667788u);
  CHECK_EQ(answers[0].session, 0u);
}

TEST(HelloTellsFactsAndCredits) {
  Bench bench;
  const Answer answer = bench.Hello();
  const HelloReply hello = answer.ReplyTo<HelloReply>(Type::kHello);
  CHECK_EQ(answer.credits, bench.limits.window);
  CHECK_EQ(hello.window, bench.limits.window);
  CHECK_EQ(hello.target, "esp32s3");
  CHECK_EQ(hello.boot_nonce, 0x1122334455667788u);
  CHECK_EQ(hello.max_payload, bench.limits.max_payload);
  CHECK_EQ(hello.flags, kDeviceSimulated | kDeviceMeasuresTime);
}

TEST(WithoutASessionOnlyHelloIsHeard) {
  Bench bench;
  bench.Feed(bench.Frame(9, Type::kQueryMemory, QueryMemory()));
  const std::vector<Answer> answers = bench.Run();
  CHECK_EQ(answers.size(), 1u);
  CHECK_EQ(answers[0].Error(), Code::kNoSession);
  CHECK_EQ(answers[0].seq, 9u);
  CHECK_EQ(bench.Hello().Error(), Code::kOk);
  CHECK_EQ(bench.Ask(Type::kQueryMemory, QueryMemory()).Error(), Code::kOk);
}

TEST(SessionZeroIsRefused) {
  Bench bench;
  bench.session = 0;
  CHECK_EQ(bench.Hello().Error(), Code::kNoSession);
}

TEST(RepeatGetsTheKeptReplyAndIsNotExecuted) {
  Bench bench;
  bench.Hello();
  const uint32_t stream = bench.StartStream(bench.LoadModel());
  const std::vector<uint8_t> input = {1, 2, 3, 4, 5, 6, 7, 8};
  const std::vector<uint8_t> chunk = bench.Frame(
      bench.next_seq, Type::kChunk, Chunk{stream, 0, 0, Bytes(input.data(), input.size())});
  bench.stream.deaf = true;  // the first reply is lost
  bench.Feed(chunk);
  CHECK_EQ(bench.Run().size(), 0u);
  bench.stream.deaf = false;
  bench.Feed(chunk);
  bench.Feed(chunk);
  const std::vector<Answer> answers = bench.Run();
  CHECK_EQ(answers.size(), 2u);
  CHECK(Same(answers[0].payload, answers[1].payload));
  CHECK_EQ(answers[0].ReplyTo<ChunkReply>(Type::kChunk).flags, kChunkExecuted);
  CHECK_EQ(bench.runner.runs, 1);
  CHECK_EQ(bench.device->stats().duplicates, 2u);
  // The twin: the same content under a new number is a new request, and refused as out of order.
  ++bench.next_seq;
  CHECK_EQ(bench.Send(stream, 0, input).Error(), Code::kChunkOrder);
  CHECK_EQ(bench.Send(stream, 1, input).Error(), Code::kOk);
  CHECK_EQ(bench.runner.runs, 2);
}

TEST(ErrorsAreKeptToo) {
  Bench bench;
  bench.Hello();
  const std::vector<uint8_t> load = bench.Frame(2, Type::kLoad, Load{"missing"});
  bench.Feed(load);
  bench.Feed(load);
  const std::vector<Answer> answers = bench.Run();
  CHECK_EQ(answers.size(), 2u);
  CHECK_EQ(answers[1].Error(), Code::kNoSuchModel);
  CHECK(Same(answers[0].payload, answers[1].payload));
}

TEST(RepliesAreKeptForOneWindow) {
  Bench bench;
  bench.Hello();  // seq 1
  for (int request = 0; request < 4; ++request) {
    bench.Ask(Type::kQueryMemory, QueryMemory());  // seq 2..5
  }
  bench.Feed(bench.Frame(2, Type::kQueryMemory, QueryMemory()));
  bench.Feed(bench.Frame(1, Type::kHello, Hello()));
  const std::vector<Answer> answers = bench.Run();
  CHECK_EQ(answers.size(), 2u);
  CHECK_EQ(answers[0].Error(), Code::kOk);
  CHECK_EQ(answers[1].Error(), Code::kStaleSequence);
  CHECK_EQ(answers[1].As<ErrorReply>(Type::kError).request, static_cast<uint8_t>(Type::kHello));
}

TEST(AFullWindowIsAnsweredInOrder) {
  Bench bench;
  bench.Hello();
  const uint32_t stream = bench.StartStream(bench.LoadModel());
  const std::vector<uint8_t> input = {1, 1, 1, 1, 0, 0, 0, 0};
  for (uint32_t index = 0; index < bench.limits.window; ++index) {
    bench.Feed(bench.Frame(bench.next_seq + index, Type::kChunk,
                           Chunk{stream, index, 0, Bytes(input.data(), input.size())}));
  }
  const std::vector<Answer> answers = bench.Run();
  CHECK_EQ(answers.size(), size_t{bench.limits.window});
  for (uint32_t index = 0; index < answers.size(); ++index) {
    CHECK_EQ(answers[index].seq, bench.next_seq + index);
    CHECK_EQ(answers[index].ReplyTo<ChunkReply>(Type::kChunk).index, index);
  }
}

TEST(AGapIsRejectedOnceAndNothingBehindItRuns) {
  Bench bench;
  bench.Hello();
  const uint32_t first = bench.next_seq;
  for (uint32_t ahead = 1; ahead <= 3; ++ahead) {
    bench.Feed(bench.Frame(first + ahead, Type::kLoad, Load{"tcn"}));
  }
  std::vector<Answer> answers = bench.Run();
  CHECK_EQ(answers.size(), 1u);
  const Reject reject = answers[0].As<Reject>(Type::kReject);
  CHECK_EQ(reject.reason, static_cast<uint8_t>(RejectReason::kGap));
  CHECK_EQ(reject.expected, first);
  CHECK_EQ(bench.runner.loads, 0);
  CHECK_EQ(bench.device->stats().gaps, 3u);
  // Go back: everything from the missing one on.
  bench.Feed(bench.Frame(first, Type::kQueryMemory, QueryMemory()));
  bench.Feed(bench.Frame(first + 1, Type::kLoad, Load{"tcn"}));
  answers = bench.Run();
  CHECK_EQ(answers.size(), 2u);
  CHECK_EQ(bench.runner.loads, 1);
  // The next gap is told again.
  bench.Feed(bench.Frame(first + 9, Type::kQueryMemory, QueryMemory()));
  CHECK_EQ(bench.Run().size(), 1u);
}

TEST(ADamagedFrameIsReportedAndNotExecuted) {
  Bench bench;
  bench.Hello();
  const std::vector<uint8_t> load = bench.Frame(bench.next_seq, Type::kLoad, Load{"tcn"});
  bench.Feed(Damaged(load));
  const std::vector<Answer> answers = bench.Run();
  CHECK_EQ(answers.size(), 1u);
  const Reject reject = answers[0].As<Reject>(Type::kReject);
  CHECK_EQ(reject.reason, static_cast<uint8_t>(RejectReason::kCorrupt));
  CHECK_EQ(reject.expected, bench.next_seq);
  CHECK_EQ(bench.runner.loads, 0);
  CHECK_EQ(bench.device->stats().faults, 1u);
  bench.LoadModel();
  CHECK_EQ(bench.runner.loads, 1);
}

TEST(DamageBeforeASessionIsSilent) {
  Bench bench;
  bench.Feed(Damaged(bench.Frame(1, Type::kHello, Hello())));
  CHECK_EQ(bench.Run().size(), 0u);
  CHECK_EQ(bench.device->stats().faults, 1u);
}

TEST(AnotherProtocolVersionIsToldSo) {
  Bench bench;
  std::vector<uint8_t> frame = bench.Frame(7, Type::kHello, Hello());
  std::vector<uint8_t> body(frame.begin() + 1, frame.end() - 1);
  size_t size = 0;
  CHECK(CobsDecode(MutableBytes(body.data(), body.size()), &size));
  body[1] = kProtocolVersion + 1;
  StoreU32(Crc32(Bytes(body.data(), size - kCrcBytes)), body.data() + size - kCrcBytes);
  const size_t encoded =
      CobsEncode(Bytes(body.data(), size), MutableBytes(frame.data() + 1, frame.size() - 1));
  frame.resize(encoded + 1);
  frame.push_back(0);
  bench.Feed(frame);
  const std::vector<Answer> answers = bench.Run();
  CHECK_EQ(answers.size(), 1u);
  CHECK_EQ(answers[0].Error(), Code::kVersion);
  CHECK_EQ(answers[0].seq, 7u);
  CHECK_EQ(answers[0].session, bench.session);
}

TEST(EchoedRepliesAreIgnored) {
  Bench bench;
  bench.Hello();
  bench.Feed(bench.Frame(bench.next_seq, static_cast<Type>(0x81), Hello()));
  CHECK_EQ(bench.Run().size(), 0u);
  CHECK_EQ(bench.Ask(Type::kQueryMemory, QueryMemory()).Error(), Code::kOk);
}

TEST(UnknownRequestsAreAnswered) {
  Bench bench;
  bench.Hello();
  CHECK_EQ(bench.Ask(static_cast<Type>(0x3F), Hello()).Error(), Code::kUnknownType);
  CHECK_EQ(bench.Ask(static_cast<Type>(0x00), Hello()).Error(), Code::kUnknownType);
}

TEST(ANewSessionStartsClean) {
  Bench bench;
  bench.Hello();
  bench.LoadModel();
  std::vector<uint8_t> data(10);
  bench.Ask(Type::kUploadBegin, UploadBegin{10, {}, "up"});
  bench.session = 0x1234;
  bench.next_seq = 500;
  CHECK_EQ(bench.Hello().Error(), Code::kOk);
  CHECK_EQ(bench.runner.unloads, 1);
  CHECK_EQ(bench.pool.held(), 0u);
  CHECK_EQ(bench.Ask(Type::kUploadData, UploadData{0, Bytes(data.data(), 10)}).Error(),
           Code::kUploadState);
  // The same HELLO again is a repeat: nothing is unloaded.
  bench.LoadModel();
  bench.Feed(bench.Frame(500, Type::kHello, Hello()));
  CHECK_EQ(bench.Run()[0].Error(), Code::kOk);
  CHECK_EQ(bench.runner.unloads, 1);
  // The old session is gone.
  bench.session = 0xABCD;
  bench.next_seq = 9;
  CHECK_EQ(bench.Ask(Type::kQueryMemory, QueryMemory()).Error(), Code::kNoSession);
}

TEST(RepliesOfAnOldSessionAreNeverRepeated) {
  Bench bench;
  bench.Hello();
  bench.Ask(Type::kQueryMemory, QueryMemory());  // seq 2
  bench.session = 0x1234;
  bench.Hello();  // seq 3
  bench.Feed(bench.Frame(2, Type::kQueryMemory, QueryMemory()));
  CHECK_EQ(bench.Run()[0].Error(), Code::kStaleSequence);
}

TEST(SequenceNumbersWrap) {
  Bench bench;
  bench.next_seq = 0xFFFFFFFE;
  bench.Hello();
  bench.Ask(Type::kQueryMemory, QueryMemory());
  bench.Ask(Type::kQueryMemory, QueryMemory());
  CHECK_EQ(bench.next_seq, 1u);
  bench.Feed(bench.Frame(0xFFFFFFFF, Type::kQueryMemory, QueryMemory()));
  CHECK_EQ(bench.Run()[0].Error(), Code::kOk);
  CHECK_EQ(bench.device->stats().duplicates, 1u);
}

TEST(ConsoleTextAroundRequestsIsHarmless) {
  Bench bench;
  const std::string text = "AT+GMR\r\n";
  bench.Feed(std::vector<uint8_t>(text.begin(), text.end()));
  CHECK_EQ(bench.Hello().Error(), Code::kOk);
}

}  // namespace
}  // namespace hil
