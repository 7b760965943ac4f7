// SHA-256, the canary and the models package.
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "fakes.h"
#include "runner/canary.h"
#include "runner/model_store.h"
#include "runner/sha256.h"

namespace hil {
namespace {

std::string Hex(const Sha256Digest& digest) {
  std::string text;
  for (const uint8_t byte : digest) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

Bytes View(const std::vector<uint8_t>& data) { return Bytes(data.data(), data.size()); }

TEST(Sha256OfTheStandardExamples) {  // FIPS 180-4 example computations
  const std::string abc = "abc";
  const std::string two_blocks = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
  const std::vector<uint8_t> million(1000000, 'a');
  const auto of = [](const std::string& text) {
    return Hex(Sha256::Of(Bytes(reinterpret_cast<const uint8_t*>(text.data()), text.size())));
  };
  CHECK_EQ(of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK_EQ(of(abc), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK_EQ(of(two_blocks), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK_EQ(Hex(Sha256::Of(View(million))),
           "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256InPiecesIsTheSame) {
  std::vector<uint8_t> data(300);
  for (size_t index = 0; index < data.size(); ++index) {
    data[index] = static_cast<uint8_t>(index * 7);
  }
  for (size_t size = 0; size <= data.size(); ++size) {
    const Bytes whole(data.data(), size);
    Sha256 hash;
    for (size_t at = 0; at < size;) {
      const size_t part = std::min<size_t>(1 + at % 67, size - at);
      hash.Update(whole.Sub(at, part));
      at += part;
    }
    CHECK_EQ(Hex(hash.Finish()), Hex(Sha256::Of(whole)));
  }
}

TEST(CanaryUntouchedIsWhole) {
  for (size_t size = 0; size < 100; ++size) {
    std::vector<uint8_t> memory(size);
    FillCanary(5, MutableBytes(memory.data(), size));
    const CanaryScan scan = ScanCanary(5, View(memory));
    CHECK_EQ(scan.whole, size != 0);
    CHECK_EQ(scan.bytes, size < kCanaryRun ? 0u : size);
    CHECK_EQ(ScanCanary(6, View(memory)).bytes, 0u);  // the next step's canary is another
  }
}

TEST(CanaryFindsTheUnwrittenRun) {
  std::vector<uint8_t> memory(200);
  FillCanary(9, MutableBytes(memory.data(), memory.size()));
  std::fill(memory.begin(), memory.begin() + 40, uint8_t{0});
  std::fill(memory.begin() + 100, memory.begin() + 110, uint8_t{0});
  std::fill(memory.begin() + 125, memory.end(), uint8_t{0});  // leaves 15 in between: too few
  const CanaryScan scan = ScanCanary(9, View(memory));
  CHECK(!scan.whole);
  CHECK(scan.first >= 40 && scan.first < 44);  // a written zero may equal the canary
  CHECK(scan.bytes >= 56 && scan.bytes <= 64);
}

TEST(CanaryRaisesNoFalseAlarm) {
  std::mt19937 random(1);
  std::vector<uint8_t> memory(4096);
  for (uint32_t step = 0; step < 500; ++step) {
    FillCanary(step, MutableBytes(memory.data(), memory.size()));
    const int kind = static_cast<int>(step % 3);
    for (uint8_t& byte : memory) {
      byte = static_cast<uint8_t>(kind == 0 ? 0 : kind == 1 ? 0xA5 : random());
    }
    const CanaryScan scan = ScanCanary(step, View(memory));
    CHECK_EQ(scan.bytes, 0u);
    CHECK(!scan.whole);
  }
}

TEST(StoreReadsEveryPackageVersion) {
  for (const int version : {1, 2, 3}) {
    std::vector<uint8_t> partition =
        MakePackage(version, {{"one", MakeEdl(1, 40)}, {"two", MakeEdl(2, 33)}});
    partition.resize(partition.size() + 1000, 0xFF);
    const ModelStore store(View(partition));
    CHECK(store.status().ok());
    CHECK_EQ(store.count(), 2u);
    ModelStore::Entry entry;
    CHECK(store.Find("two", &entry).ok());
    const std::vector<uint8_t> want = MakeEdl(2, 33);
    CHECK_EQ(entry.model.size(), want.size());
    CHECK(std::equal(want.begin(), want.end(), entry.model.begin()));
    CHECK_EQ(store.Find("three", &entry).code(), Code::kNoSuchModel);
  }
}

TEST(StoreOffersTheAppsOwnModelsFirst) {
  const std::vector<uint8_t> own = MakeEdl(2, 48);
  const ModelStore::Entry entries[] = {{"mine", Bytes(own.data(), own.size())}};
  const std::vector<uint8_t> package = Bench::DefaultPackage();
  const ModelStore store(Bytes(package.data(), package.size()), entries);
  CHECK_EQ(store.count(), 3u);
  CHECK_EQ(store.At(0).name, "mine");
  CHECK_EQ(store.At(1).name, "tcn");
  ModelStore::Entry found;
  CHECK(store.Find("gru", &found).ok());
  CHECK_EQ(found.name, "gru");
  const std::vector<uint8_t> garbage(64, 7);
  const ModelStore damaged(Bytes(garbage.data(), garbage.size()), entries);
  CHECK(damaged.Find("mine", &found).ok());
  CHECK(found.model.data() == own.data());
  CHECK(damaged.Find("gru", &found).code() == Code::kBadPackage);
}

TEST(StoreWithoutModelsIsNoError) {
  const std::vector<uint8_t> erased(4096, 0xFF);
  CHECK(ModelStore(View(erased)).status().ok());
  CHECK(ModelStore(Bytes()).status().ok());
  CHECK_EQ(ModelStore(View(erased)).count(), 0u);
  CHECK_EQ(ModelStore(View(MakePackage(3, {}))).count(), 0u);
}

TEST(StoreRefusesDamage) {
  const std::vector<uint8_t> good = MakePackage(3, {{"one", MakeEdl(1, 40)}});
  CHECK(ModelStore(View(good)).status().ok());
  for (size_t position = 0; position < good.size(); ++position) {
    std::vector<uint8_t> bad = good;
    bad[position] ^= 0x10;
    const ModelStore store(View(bad));
    CHECK_EQ(store.status().code(), Code::kBadPackage);
    CHECK_EQ(store.count(), 0u);
    ModelStore::Entry entry;
    CHECK_EQ(store.Find("one", &entry).code(), Code::kBadPackage);
  }
  for (size_t size = 1; size < good.size(); ++size) {
    CHECK_EQ(ModelStore(Bytes(good.data(), size)).status().code(), Code::kBadPackage);
  }
}

TEST(StoreRefusesOffsetsOutsideThePackage) {
  const std::vector<uint8_t> good = MakePackage(2, {{"one", MakeEdl(2, 700)}});
  const uint32_t size = static_cast<uint32_t>(good.size());
  const auto status = [&good](size_t field, uint32_t value) {
    std::vector<uint8_t> bad = good;
    StoreU32(value, bad.data() + 8 + 4 * field);
    return ModelStore(View(bad)).status().code();
  };
  constexpr size_t kData = 0;
  constexpr size_t kName = 1;
  constexpr size_t kNameSize = 2;
  CHECK_EQ(status(kName, size - 3), Code::kOk);
  CHECK_EQ(status(kName, size - 2), Code::kBadPackage);
  CHECK_EQ(status(kName, size + 1), Code::kBadPackage);
  CHECK_EQ(status(kName, 0xFFFFFFFF), Code::kBadPackage);
  CHECK_EQ(status(kNameSize, kMaxName), Code::kOk);
  CHECK_EQ(status(kNameSize, kMaxName + 1), Code::kBadPackage);
  CHECK_EQ(status(kData, size), Code::kBadPackage);
  CHECK_EQ(status(kData, size + 1), Code::kBadPackage);
  CHECK_EQ(status(kData, 0xFFFFFFFF), Code::kBadPackage);
}

// Without a digest nothing but the bounds checks stands between damage and a crash.
TEST(StoreStaysInBoundsWithoutADigest) {
  std::mt19937 random(2);
  const std::vector<uint8_t> good = MakePackage(2, {{"one", MakeEdl(1, 40)}, {"b", MakeEdl(2, 9)}});
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<uint8_t> bad = good;
    for (int flips = 0; flips < 3; ++flips) {
      bad[random() % 64] ^= static_cast<uint8_t>(1u << (random() % 8));
    }
    bad.resize(1 + random() % bad.size());
    bad.shrink_to_fit();  // so that the sanitizer sees the end
    const ModelStore store(View(bad));
    refused += store.status().ok() ? 0 : 1;
    for (uint32_t index = 0; index < store.count(); ++index) {
      CHECK(Sha256::Of(store.At(index).model) != Sha256Digest{});
      const std::string name(store.At(index).name);  // touches every byte
      CHECK(name.size() <= bad.size());
    }
  }
  CHECK(refused > 2000);
}

}  // namespace
}  // namespace hil
