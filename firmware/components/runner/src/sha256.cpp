#include "runner/sha256.h"

#include <algorithm>
#include <cstring>

namespace hil {
namespace {

// Fractional parts of the cube roots of the first 64 primes, FIPS 180-4 section 4.2.2.
constexpr uint32_t kRound[64] = {
    0x428A2F98u, 0x71374491u, 0xB5C0FBCFu, 0xE9B5DBA5u, 0x3956C25Bu, 0x59F111F1u, 0x923F82A4u,
    0xAB1C5ED5u, 0xD807AA98u, 0x12835B01u, 0x243185BEu, 0x550C7DC3u, 0x72BE5D74u, 0x80DEB1FEu,
    0x9BDC06A7u, 0xC19BF174u, 0xE49B69C1u, 0xEFBE4786u, 0x0FC19DC6u, 0x240CA1CCu, 0x2DE92C6Fu,
    0x4A7484AAu, 0x5CB0A9DCu, 0x76F988DAu, 0x983E5152u, 0xA831C66Du, 0xB00327C8u, 0xBF597FC7u,
    0xC6E00BF3u, 0xD5A79147u, 0x06CA6351u, 0x14292967u, 0x27B70A85u, 0x2E1B2138u, 0x4D2C6DFCu,
    0x53380D13u, 0x650A7354u, 0x766A0ABBu, 0x81C2C92Eu, 0x92722C85u, 0xA2BFE8A1u, 0xA81A664Bu,
    0xC24B8B70u, 0xC76C51A3u, 0xD192E819u, 0xD6990624u, 0xF40E3585u, 0x106AA070u, 0x19A4C116u,
    0x1E376C08u, 0x2748774Cu, 0x34B0BCB5u, 0x391C0CB3u, 0x4ED8AA4Au, 0x5B9CCA4Fu, 0x682E6FF3u,
    0x748F82EEu, 0x78A5636Fu, 0x84C87814u, 0x8CC70208u, 0x90BEFFFAu, 0xA4506CEBu, 0xBEF9A3F7u,
    0xC67178F2u};

constexpr uint32_t Rotate(uint32_t value, int bits) {
  return (value >> bits) | (value << (32 - bits));
}

uint32_t LoadBigEndian(const uint8_t* bytes) {
  return (static_cast<uint32_t>(bytes[0]) << 24) | (static_cast<uint32_t>(bytes[1]) << 16) |
         (static_cast<uint32_t>(bytes[2]) << 8) | bytes[3];
}

void StoreBigEndian(uint32_t value, uint8_t* bytes) {
  bytes[0] = static_cast<uint8_t>(value >> 24);
  bytes[1] = static_cast<uint8_t>(value >> 16);
  bytes[2] = static_cast<uint8_t>(value >> 8);
  bytes[3] = static_cast<uint8_t>(value);
}

}  // namespace

void Sha256::Compress(const uint8_t* block) {
  uint32_t w[64];
  for (size_t t = 0; t < 16; ++t) {
    w[t] = LoadBigEndian(block + 4 * t);
  }
  for (size_t t = 16; t < 64; ++t) {
    const uint32_t s0 = Rotate(w[t - 15], 7) ^ Rotate(w[t - 15], 18) ^ (w[t - 15] >> 3);
    const uint32_t s1 = Rotate(w[t - 2], 17) ^ Rotate(w[t - 2], 19) ^ (w[t - 2] >> 10);
    w[t] = w[t - 16] + s0 + w[t - 7] + s1;
  }
  uint32_t a = state_[0], b = state_[1], c = state_[2], d = state_[3];
  uint32_t e = state_[4], f = state_[5], g = state_[6], h = state_[7];
  for (size_t t = 0; t < 64; ++t) {
    const uint32_t s1 = Rotate(e, 6) ^ Rotate(e, 11) ^ Rotate(e, 25);
    const uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + kRound[t] + w[t];
    const uint32_t s0 = Rotate(a, 2) ^ Rotate(a, 13) ^ Rotate(a, 22);
    const uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = d + t1;
    d = c;
    c = b;
    b = a;
    a = t1 + t2;
  }
  const uint32_t mixed[8] = {a, b, c, d, e, f, g, h};
  for (size_t word = 0; word < 8; ++word) {
    state_[word] += mixed[word];
  }
}

void Sha256::Update(Bytes data) {
  size_t used = static_cast<size_t>(total_ % kBlock);
  total_ += data.size();
  while (!data.empty()) {
    if (used == 0 && data.size() >= kBlock) {
      Compress(data.data());
      data = data.From(kBlock);
      continue;
    }
    const size_t part = std::min(kBlock - used, data.size());
    std::memcpy(block_ + used, data.data(), part);
    data = data.From(part);
    used += part;
    if (used == kBlock) {
      Compress(block_);
      used = 0;
    }
  }
}

Sha256Digest Sha256::Finish() {
  const uint64_t bits = total_ * 8;
  const uint8_t padding[kBlock] = {0x80};
  const size_t used = static_cast<size_t>(total_ % kBlock);
  Update(Bytes(padding, (used < 56 ? 56 : 56 + kBlock) - used));
  uint8_t length[8];
  StoreBigEndian(static_cast<uint32_t>(bits >> 32), length);
  StoreBigEndian(static_cast<uint32_t>(bits), length + 4);
  Update(length);
  Sha256Digest digest;
  for (size_t word = 0; word < 8; ++word) {
    StoreBigEndian(state_[word], digest.data() + 4 * word);
  }
  return digest;
}

Sha256Digest Sha256::Of(Bytes data) {
  Sha256 hash;
  hash.Update(data);
  return hash.Finish();
}

}  // namespace hil
