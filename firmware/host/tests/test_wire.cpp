// COBS, CRC-32, payload bounds. Frames and messages are checked by the shared vectors.
#include <string>
#include <vector>

#include "check.h"
#include "wire/cobs.h"
#include "wire/crc32.h"
#include "wire/messages.h"
#include "wire/payload.h"

namespace hil {
namespace {

std::vector<uint8_t> Encode(const std::vector<uint8_t>& data) {
  std::vector<uint8_t> out(CobsMaxEncoded(data.size()));
  out.resize(CobsEncode(Bytes(data.data(), data.size()), MutableBytes(out.data(), out.size())));
  return out;
}

bool Decode(std::vector<uint8_t>* data) {
  size_t size = 0;
  if (!CobsDecode(MutableBytes(data->data(), data->size()), &size)) {
    return false;
  }
  data->resize(size);
  return true;
}

TEST(Crc32OfTheStandardCheckString) {
  const char text[] = "123456789";
  const Bytes data(reinterpret_cast<const uint8_t*>(text), 9);
  CHECK_EQ(Crc32(data), 0xCBF43926u);
  CHECK_EQ(Crc32(data.From(4), Crc32(data.Sub(0, 4))), 0xCBF43926u);
  CHECK(Crc32(data.Sub(0, 8)) != 0xCBF43926u);
}

TEST(CobsRoundTripAroundBlockSizes) {
  for (size_t size = 0; size < 1030; ++size) {
    for (const int kind : {0, 1, 2}) {
      std::vector<uint8_t> data(size);
      for (size_t index = 0; index < size; ++index) {
        data[index] = static_cast<uint8_t>(kind == 0 ? 0 : kind == 1 ? 7 : index % 255);
      }
      std::vector<uint8_t> encoded = Encode(data);
      bool has_zero = false;
      for (const uint8_t byte : encoded) {
        has_zero |= byte == 0;
      }
      CHECK(!has_zero);
      CHECK(Decode(&encoded));
      CHECK(encoded == data);
    }
  }
}

TEST(CobsRefusesWhatIsNoEncoding) {
  std::vector<uint8_t> empty;
  std::vector<uint8_t> cut = {3, 1};
  std::vector<uint8_t> zero = {2, 1, 0};
  std::vector<uint8_t> good = {3, 1, 1};
  CHECK(!Decode(&empty));
  CHECK(!Decode(&cut));
  CHECK(!Decode(&zero));
  CHECK(Decode(&good));
  CHECK((cut == std::vector<uint8_t>{3, 1}));
}

TEST(ReaderStopsAtTheEndAndStaysFailed) {
  const uint8_t payload[] = {1, 2, 3, 4, 5};
  PayloadReader reader(payload);
  uint32_t word = 9;
  uint16_t half = 9;
  uint8_t byte = 9;
  reader(word, half, byte);
  CHECK_EQ(word, 0x04030201u);
  CHECK_EQ(half, 0u);
  CHECK_EQ(byte, 0u);
  CHECK(!reader.ok());
}

TEST(ReaderRefusesAStringLongerThanThePayload) {
  const uint8_t payload[] = {3, 0, 'a', 'b'};
  PayloadReader reader(payload);
  std::string_view text = "before";
  reader(text);
  CHECK(!reader.ok());
  CHECK_EQ(text, "");
}

TEST(PayloadMustBeConsumedWhole) {
  const uint8_t payload[] = {1, 0, 0, 0, 0};
  Reset message;
  CHECK(ReadPayload(Bytes(payload, 4), &message));
  CHECK(!ReadPayload(Bytes(payload, 5), &message));
  CHECK(!ReadPayload(Bytes(payload, 3), &message));
}

TEST(TensorOfTooManyDimensionsDoesNotParse) {
  TensorInfo info;
  info.rank = kMaxRank;
  uint8_t memory[128] = {};
  PayloadWriter writer(memory);
  writer(info);
  TensorInfo back;
  CHECK(ReadPayload(Bytes(memory, writer.size()), &back));
  memory[writer.size() - 4 * kMaxRank - 1] = kMaxRank + 1;
  CHECK(!ReadPayload(Bytes(memory, writer.size() + 4), &back));
}

TEST(WriterNeverWritesPastItsEnd) {
  uint8_t memory[8] = {};
  PayloadWriter writer(MutableBytes(memory, 6));
  writer(uint32_t{0xFFFFFFFF});
  CHECK(!writer.Append(uint32_t{0xFFFFFFFF}));
  CHECK(writer.ok());
  CHECK_EQ(writer.size(), 4u);
  writer(uint32_t{0xFFFFFFFF});
  CHECK(!writer.ok());
  CHECK_EQ(memory[6], 0u);
}

TEST(WriterRefusesAStringOver64KiB) {
  std::vector<uint8_t> memory(70000);
  PayloadWriter writer(MutableBytes(memory.data(), memory.size()));
  const std::string text(65536, 'x');
  writer(std::string_view(text));
  CHECK(!writer.ok());
}

}  // namespace
}  // namespace hil
