#include "runner/loaded_model.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#include "runner/canary.h"
#include "runner/sha256.h"
#include "wire/crc32.h"
#include "wire/endian.h"

namespace hil {
namespace {

constexpr uint64_t kMaxBytes = 0x7FFFFFFF;  // protocol.md section 5
constexpr size_t kAlign = 16;               // of tensors, as SIMD loads want it

constexpr uint64_t AlignUp(uint64_t size) { return (size + kAlign - 1) & ~uint64_t{kAlign - 1}; }

void Zero(MutableBytes bytes) {
  if (!bytes.empty()) {
    std::memset(bytes.data(), 0, bytes.size());
  }
}

// Copies what [offset, offset + out.size()) and [base, base + part.size()) have in common.
void CopyOverlap(Bytes part, uint64_t base, uint32_t offset, MutableBytes out) {
  const uint64_t begin = std::max<uint64_t>(base, offset);
  const uint64_t end = std::min<uint64_t>(base + part.size(), uint64_t{offset} + out.size());
  if (begin < end) {
    std::memcpy(out.data() + (begin - offset), part.data() + (begin - base),
                static_cast<size_t>(end - begin));
  }
}

bool SameLayout(const TensorInfo& left, const TensorInfo& right) {
  return left.dtype == right.dtype && left.exponent == right.exponent &&
         left.flags == right.flags && left.bytes == right.bytes && left.rank == right.rank &&
         std::equal(left.dims, left.dims + left.rank, right.dims);
}

}  // namespace

Status LoadedModel::Load(ModelRunner* runner, BufferPool* pool, uint32_t handle,
                         std::string_view name, Bytes model, PoolBuffer owned) {
  runner_ = runner;
  pool_ = pool;
  const Sha256Digest digest = Sha256::Of(model);
  HIL_RETURN_IF_ERROR(runner_->Load(name, model, &id_));
  const Status status = AllocatePorts();
  if (!status.ok()) {
    runner_->Unload(id_);
    return status;
  }
  handle_ = handle;
  sha256_ = digest;
  size_ = static_cast<uint32_t>(model.size());
  model_ = std::move(owned);
  retain_ = false;
  stepped_ = false;
  return Ok();
}

void LoadedModel::Unload() {
  if (!loaded()) {
    return;
  }
  EndStream();
  runner_->Unload(id_);
  ClearWatches();
  ports_.Release();
  model_.Release();
  handle_ = 0;
}

// Sizes of all ports, into the spans that have no memory yet.
Status LoadedModel::SumPorts(uint64_t* total) {
  const TensorKind kinds[] = {TensorKind::kInput, TensorKind::kOutput};
  for (const TensorKind kind : kinds) {
    const size_t count = kind == TensorKind::kInput ? input_count_ : output_count_;
    MutableBytes* ports = kind == TensorKind::kInput ? inputs_ : outputs_;
    for (size_t index = 0; index < count; ++index) {
      TensorInfo info;
      HIL_RETURN_IF_ERROR(runner_->Describe(id_, kind, static_cast<uint32_t>(index), &info));
      ports[index] = MutableBytes(nullptr, info.bytes);
      *total += AlignUp(info.bytes);
    }
  }
  return Ok();
}

Status LoadedModel::AllocatePorts() {
  input_count_ = runner_->Count(id_, TensorKind::kInput);
  output_count_ = runner_->Count(id_, TensorKind::kOutput);
  if (input_count_ > kMaxPorts || output_count_ > kMaxPorts) {
    return Status(Code::kTooLarge, "the model has more than 64 inputs or outputs");
  }
  uint64_t total = 0;
  HIL_RETURN_IF_ERROR(SumPorts(&total));
  if (total > kMaxBytes) {
    return Status(Code::kTooLarge, "the model's inputs and outputs exceed 2 GiB");
  }
  ports_ = PoolBuffer(pool_, static_cast<size_t>(std::max<uint64_t>(total, kAlign)));
  if (ports_.bytes().empty()) {
    return Status(Code::kOutOfMemory, "no memory for the model's inputs and outputs");
  }
  Zero(ports_.bytes());
  uint8_t* next = ports_.bytes().data();
  output_bytes_ = 0;
  for (size_t index = 0; index < input_count_; ++index) {
    inputs_[index] = MutableBytes(next, inputs_[index].size());
    next += AlignUp(inputs_[index].size());
    bound_[index] = kUnbound;
  }
  for (size_t index = 0; index < output_count_; ++index) {
    outputs_[index] = MutableBytes(next, outputs_[index].size());
    next += AlignUp(outputs_[index].size());
    output_bytes_ += static_cast<uint32_t>(outputs_[index].size());
    streak_[index] = 0;
  }
  CountInputBytes();
  return Ok();
}

void LoadedModel::CountInputBytes() {
  input_bytes_ = 0;
  state_bytes_ = 0;
  for (size_t index = 0; index < input_count_; ++index) {
    const uint32_t bytes = static_cast<uint32_t>(inputs_[index].size());
    (bound_[index] == kUnbound ? input_bytes_ : state_bytes_) += bytes;
  }
}

Status LoadedModel::FindPort(TensorKind kind, std::string_view name, uint32_t* index) const {
  const size_t count = kind == TensorKind::kInput ? input_count_ : output_count_;
  for (*index = 0; *index < count; ++*index) {
    TensorInfo info;
    HIL_RETURN_IF_ERROR(Describe(kind, *index, &info));
    if (info.name == name) {
      return Ok();
    }
  }
  return Status(Code::kNoSuchTensor, kind == TensorKind::kInput
                                         ? "the model has no graph input of that name"
                                         : "the model has no graph output of that name");
}

Status LoadedModel::Find(std::string_view name, TensorKind* kind, uint32_t* index) const {
  for (const TensorKind port : {TensorKind::kOutput, TensorKind::kInput}) {
    *kind = port;
    const Status status = FindPort(port, name, index);
    if (status.code() != Code::kNoSuchTensor) {
      return status;
    }
  }
  *kind = TensorKind::kNodeOutput;
  return runner_->Find(id_, name, index);
}

Status LoadedModel::CheckPair(uint32_t output, uint32_t input) const {
  TensorInfo from;
  HIL_RETURN_IF_ERROR(Describe(TensorKind::kOutput, output, &from));
  TensorInfo to;
  HIL_RETURN_IF_ERROR(Describe(TensorKind::kInput, input, &to));
  if (!SameLayout(from, to)) {
    return Status(Code::kStateBinding,
                  "output and input of a state differ in dtype, exponent or shape");
  }
  return Ok();
}

Status LoadedModel::Bind(uint16_t count, Bytes items) {
  int16_t bound[kMaxPorts];
  std::fill(std::begin(bound), std::end(bound), kUnbound);
  PayloadReader reader(items);
  for (uint16_t pair_index = 0; pair_index < count; ++pair_index) {
    StatePair pair;
    reader(pair);
    if (!reader.ok()) {
      return Status(Code::kBadRequest, "state pairs are cut short");
    }
    uint32_t output = 0;
    uint32_t input = 0;
    HIL_RETURN_IF_ERROR(FindPort(TensorKind::kOutput, pair.output, &output));
    HIL_RETURN_IF_ERROR(FindPort(TensorKind::kInput, pair.input, &input));
    if (bound[input] != kUnbound) {
      return Status(Code::kStateBinding, "an input is bound twice");
    }
    HIL_RETURN_IF_ERROR(CheckPair(output, input));
    bound[input] = static_cast<int16_t>(output);
  }
  if (!reader.done()) {
    return Status(Code::kBadRequest, "bytes after the last state pair");
  }
  EndStream();
  std::copy(std::begin(bound), std::end(bound), bound_);
  CountInputBytes();
  return Reset();
}

Status LoadedModel::MeasureWatches(uint16_t count, Bytes items, uint64_t* values) const {
  PayloadReader reader(items);
  for (uint16_t item_index = 0; item_index < count; ++item_index) {
    WatchItem item;
    reader(item);
    if (!reader.ok() || item.mode > static_cast<uint8_t>(WatchMode::kDigest)) {
      return Status(Code::kBadRequest, "watch list is cut short or has an unknown mode");
    }
    TensorKind kind;
    uint32_t index = 0;
    uint32_t bytes = 0;
    HIL_RETURN_IF_ERROR(Find(item.name, &kind, &index));
    HIL_RETURN_IF_ERROR(TensorBytes(kind, index, &bytes));
    *values += AlignUp(bytes);
  }
  return reader.done() ? Ok() : Status(Code::kBadRequest, "bytes after the last watch");
}

Status LoadedModel::Watch(uint16_t count, Bytes items) {
  static_assert(
      std::is_trivially_destructible_v<Watched> && std::is_trivially_destructible_v<Capture>,
      "the tables are dropped with their buffer");
  EndStream();
  ClearWatches();
  if (count == 0 && items.empty()) {
    return Ok();
  }
  uint64_t values = 0;
  HIL_RETURN_IF_ERROR(MeasureWatches(count, items, &values));
  const uint64_t watched_size = AlignUp(uint64_t{sizeof(Watched)} * count);
  const uint64_t captures_size = AlignUp(uint64_t{sizeof(Capture)} * count);
  const uint64_t total = watched_size + captures_size + values;
  if (total + output_bytes_ > kMaxBytes) {
    return Status(Code::kTooLarge, "watched tensors exceed 2 GiB");
  }
  watch_ = PoolBuffer(pool_, static_cast<size_t>(total));
  if (watch_.bytes().empty()) {
    return Status(Code::kOutOfMemory, "no memory for the watched tensors");
  }
  uint8_t* memory = watch_.bytes().data();
  Watched* watched = reinterpret_cast<Watched*>(memory);
  Capture* captures = reinterpret_cast<Capture*>(memory + watched_size);
  uint8_t* next = memory + watched_size + captures_size;
  size_t capture_count = 0;
  PayloadReader reader(items);
  for (uint16_t item_index = 0; item_index < count; ++item_index) {
    WatchItem item;
    reader(item);
    Watched* entry = new (watched + item_index) Watched();
    uint32_t bytes = 0;
    HIL_RETURN_IF_ERROR(Find(item.name, &entry->kind, &entry->index));
    HIL_RETURN_IF_ERROR(TensorBytes(entry->kind, entry->index, &bytes));
    entry->mode = static_cast<WatchMode>(item.mode);
    entry->value = MutableBytes(next, bytes);
    next += AlignUp(bytes);
    if (entry->kind == TensorKind::kNodeOutput) {
      new (captures + capture_count++) Capture{entry->index, entry->value};
    }
    watch_bytes_ += static_cast<uint32_t>(entry->record().size());
  }
  watched_ = Span<Watched>(watched, count);
  captures_ = Span<Capture>(captures, capture_count);
  return Ok();
}

Status LoadedModel::DescribeWatch(uint16_t index, TensorInfo* info) const {
  return Describe(watched_[index].kind, watched_[index].index, info);
}

void LoadedModel::ClearWatches() {
  watched_ = Span<Watched>();
  captures_ = Span<Capture>();
  watch_bytes_ = 0;
  watch_.Release();
}

Status LoadedModel::Reset() {
  HIL_RETURN_IF_ERROR(runner_->Reset(id_));
  for (size_t index = 0; index < input_count_; ++index) {
    if (bound_[index] != kUnbound) {
      Zero(inputs_[index]);
    }
  }
  return Ok();
}

void LoadedModel::EndStream() {
  stream_ = 0;
  has_result_ = false;
}

Status LoadedModel::StartStream(uint32_t stream, bool reset, bool retain) {
  EndStream();
  if (retain != retain_) {
    HIL_RETURN_IF_ERROR(runner_->Retain(id_, retain));
    retain_ = retain;
  }
  if (reset) {
    HIL_RETURN_IF_ERROR(Reset());
  }
  stream_ = stream;
  broken_ = false;
  next_index_ = 0;
  received_ = 0;
  return Ok();
}

Status LoadedModel::Feed(uint32_t index, uint32_t offset, Bytes data, bool* complete) {
  if (broken_) {
    return Status(Code::kStreamBroken, "an earlier step of this stream failed");
  }
  if (index != next_index_ || offset != received_) {
    return Status(Code::kChunkOrder, "not the next chunk index or offset");
  }
  if (data.size() > input_bytes_ - received_) {
    return Status(Code::kBadRequest, "chunk is larger than the step's input block");
  }
  ScatterInput(offset, data);
  received_ += static_cast<uint32_t>(data.size());
  *complete = received_ == input_bytes_;
  return Ok();
}

void LoadedModel::ScatterInput(uint32_t offset, Bytes data) {
  uint64_t base = 0;
  for (size_t index = 0; index < input_count_; ++index) {
    if (bound_[index] != kUnbound) {
      continue;
    }
    const MutableBytes port = inputs_[index];
    const uint64_t begin = std::max<uint64_t>(base, offset);
    const uint64_t end = std::min<uint64_t>(base + port.size(), uint64_t{offset} + data.size());
    if (begin < end) {
      std::memcpy(port.data() + (begin - base), data.data() + (begin - offset),
                  static_cast<size_t>(end - begin));
    }
    base += port.size();
  }
}

Status LoadedModel::Step(Unwritten* unwritten, uint32_t* latency_us, uint16_t* vector_unit) {
  Bytes inputs[kMaxPorts];
  std::copy(inputs_, inputs_ + input_count_, inputs);
  ++canary_seed_;
  for (size_t index = 0; index < output_count_; ++index) {
    FillCanary(canary_seed_ + static_cast<uint32_t>(index << 24), outputs_[index]);
  }
  received_ = 0;
  has_result_ = false;
  *vector_unit = runner_->RestoreVectorUnit();
  const Status status =
      runner_->Run(id_, Span<const Bytes>(inputs, input_count_),
                   Span<const MutableBytes>(outputs_, output_count_), captures_, latency_us);
  if (!status.ok()) {
    broken_ = true;
    return status;
  }
  if (const uint16_t late = runner_->RestoreVectorUnit(); late != 0) {
    *vector_unit = static_cast<uint16_t>(*vector_unit | late | kChunkVectorUnitLate);
  }
  CheckCanary(unwritten);
  RecordWatches();
  FeedBackState();
  ++next_index_;
  has_result_ = true;
  stepped_ = true;
  return Ok();
}

void LoadedModel::CheckCanary(Unwritten* unwritten) {
  *unwritten = Unwritten();
  for (size_t index = 0; index < output_count_; ++index) {
    const size_t size = outputs_[index].size();
    CanaryScan scan =
        ScanCanary(canary_seed_ + static_cast<uint32_t>(index << 24), outputs_[index]);
    if (size < kCanaryRun) {
      // Too short to be sure at once: count over consecutive steps.
      const size_t streak = scan.whole ? std::min(streak_[index] + size, kCanaryRun) : 0;
      streak_[index] = static_cast<uint8_t>(streak);
      scan.bytes = streak == kCanaryRun ? static_cast<uint32_t>(size) : 0;
      unwritten->suspect |= scan.whole && scan.bytes == 0;
    }
    if (scan.bytes != 0) {
      if (unwritten->tensors == 0) {
        unwritten->output = static_cast<uint16_t>(index);
        unwritten->offset = scan.first;
        unwritten->bytes = scan.bytes;
      }
      ++unwritten->tensors;
    }
  }
}

// Node outputs were captured by the runner; the rest is copied here, before state moves on.
void LoadedModel::RecordWatches() {
  for (Watched& watched : watched_) {
    if (watched.kind != TensorKind::kNodeOutput && !watched.value.empty()) {
      const MutableBytes* ports = watched.kind == TensorKind::kInput ? inputs_ : outputs_;
      std::memcpy(watched.value.data(), ports[watched.index].data(), watched.value.size());
    }
    if (watched.mode == WatchMode::kDigest) {
      StoreU32(Crc32(watched.value), watched.digest);
    }
  }
}

void LoadedModel::FeedBackState() {
  for (size_t index = 0; index < input_count_; ++index) {
    if (bound_[index] != kUnbound && !inputs_[index].empty()) {
      std::memcpy(inputs_[index].data(), outputs_[bound_[index]].data(), inputs_[index].size());
    }
  }
}

Bytes LoadedModel::ResultPart(size_t part) const {
  return part < output_count_ ? Bytes(outputs_[part]) : watched_[part - output_count_].record();
}

Status LoadedModel::ReadResult(uint32_t index, uint32_t offset, MutableBytes out) const {
  if (!has_result_ || index != next_index_ - 1) {
    return Status(Code::kNotAvailable, "not the last step of the stream");
  }
  uint64_t base = 0;
  for (size_t part = 0; part < output_count_ + watched_.size(); ++part) {
    const Bytes bytes = ResultPart(part);
    CopyOverlap(bytes, base, offset, out);
    base += bytes.size();
  }
  return Ok();
}

Status LoadedModel::TensorBytes(TensorKind kind, uint32_t index, uint32_t* bytes) const {
  TensorInfo info;
  HIL_RETURN_IF_ERROR(Describe(kind, index, &info));
  *bytes = info.bytes;
  return Ok();
}

Status LoadedModel::ReadTensor(TensorKind kind, uint32_t index, uint32_t offset,
                               MutableBytes out) const {
  if (!stepped_) {
    return Status(Code::kNotAvailable, "the model has not run a step");
  }
  if (kind != TensorKind::kNodeOutput) {
    const MutableBytes port = kind == TensorKind::kInput ? inputs_[index] : outputs_[index];
    CopyOverlap(port, 0, offset, out);
    return Ok();
  }
  for (const Watched& watched : watched_) {
    if (watched.kind == kind && watched.index == index && has_result_) {
      CopyOverlap(watched.value, 0, offset, out);
      return Ok();
    }
  }
  return runner_->Read(id_, index, offset, out);
}

}  // namespace hil
