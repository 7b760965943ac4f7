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

using espdl::AlignUp;
using espdl::Error;
using espdl::Side;

constexpr uint64_t kMaxBytes = 0x7FFFFFFF;  // protocol.md section 5

// Copies what [offset, offset + out.size()) and [base, base + part.size()) have in common.
void CopyOverlap(Bytes part, uint64_t base, uint32_t offset, MutableBytes out) {
  const uint64_t begin = std::max<uint64_t>(base, offset);
  const uint64_t end = std::min<uint64_t>(base + part.size(), uint64_t{offset} + out.size());
  if (begin < end) {
    std::memcpy(out.data() + (begin - offset), part.data() + (begin - base),
                static_cast<size_t>(end - begin));
  }
}

TensorKind KindOf(Side side) {
  return side == Side::kInput ? TensorKind::kInput : TensorKind::kOutput;
}

}  // namespace

Error RunnerEngine::Keep(const Status& status) {
  status_ = status;
  return status.ok() ? Error::kNone : Error::kEngine;
}

size_t RunnerEngine::Count(Side side) { return runner_->Count(id_, KindOf(side)); }

Error RunnerEngine::Describe(Side side, size_t index, espdl::Tensor* tensor) {
  static_assert(kMaxRank == espdl::kMaxRank);
  TensorInfo info;
  ESPDL_RETURN_IF_ERROR(
      Keep(runner_->Describe(id_, KindOf(side), static_cast<uint32_t>(index), &info)));
  tensor->name = info.name;
  tensor->type = static_cast<espdl::Type>(info.dtype);
  tensor->exponent = info.exponent;
  tensor->per_channel = (info.flags & kTensorPerChannel) != 0;
  tensor->rank = info.rank;
  tensor->bytes = info.bytes;
  std::copy(info.dims, info.dims + info.rank, tensor->dims);
  return Error::kNone;
}

Error RunnerEngine::Reset() { return Keep(runner_->Reset(id_)); }

Error RunnerEngine::Run(Span<const Bytes> inputs, Span<const MutableBytes> outputs) {
  return Keep(runner_->Run(id_, inputs, outputs, captures, &latency_us));
}

Status LoadedModel::StatusOf(Error error) const {
  switch (error) {
    case Error::kNone:
      return Ok();
    case Error::kEngine:
      return engine_.status();
    case Error::kTooManyPorts:
    case Error::kTooLarge:
      return Status(Code::kTooLarge, Text(error));
    case Error::kBoundTwice:
    case Error::kLayout:
      return Status(Code::kStateBinding, Text(error));
    default:
      return Status(Code::kInternal, Text(error));
  }
}

Status LoadedModel::Load(ModelRunner* runner, BufferPool* pool, uint32_t handle,
                         std::string_view name, Bytes model, PoolBuffer owned) {
  runner_ = runner;
  pool_ = pool;
  const Sha256Digest digest = Sha256::Of(model);
  HIL_RETURN_IF_ERROR(runner_->Load(name, model, &id_));
  engine_ = RunnerEngine(runner_, id_);
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

Status LoadedModel::AllocatePorts() {
  HIL_RETURN_IF_ERROR(StatusOf(stream_.Open(&engine_)));
  ports_ = PoolBuffer(pool_, stream_.memory_bytes());
  if (ports_.bytes().empty()) {
    return Status(Code::kOutOfMemory, "no memory for the model's inputs and outputs");
  }
  stream_.Place(ports_.bytes());
  std::fill(std::begin(streak_), std::end(streak_), uint8_t{0});
  return Ok();
}

Status LoadedModel::FindPort(TensorKind kind, std::string_view name, uint32_t* index) const {
  const size_t count = kind == TensorKind::kInput ? stream_.input_count() : stream_.output_count();
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

Status LoadedModel::Bind(uint16_t count, Bytes items) {
  espdl::Binding bindings[kMaxPorts];
  PayloadReader reader(items);
  for (uint16_t pair_index = 0; pair_index < count; ++pair_index) {
    StatePair pair;
    reader(pair);
    if (!reader.ok()) {
      return Status(Code::kBadRequest, "state pairs are cut short");
    }
    if (pair_index == kMaxPorts) {
      return StatusOf(Error::kBoundTwice);
    }
    espdl::Binding& binding = bindings[pair_index];
    HIL_RETURN_IF_ERROR(FindPort(TensorKind::kOutput, pair.output, &binding.output));
    HIL_RETURN_IF_ERROR(FindPort(TensorKind::kInput, pair.input, &binding.input));
  }
  if (!reader.done()) {
    return Status(Code::kBadRequest, "bytes after the last state pair");
  }
  const Error error = stream_.Bind(Span<const espdl::Binding>(bindings, count));
  if (error == Error::kNone || error == Error::kEngine) {  // the latter: bound, and not reset
    EndStream();
  }
  return StatusOf(error);
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
  if (total + output_bytes() > kMaxBytes) {
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
  engine_.captures = Span<Capture>(captures, capture_count);
  return Ok();
}

Status LoadedModel::DescribeWatch(uint16_t index, TensorInfo* info) const {
  return Describe(watched_[index].kind, watched_[index].index, info);
}

void LoadedModel::ClearWatches() {
  watched_ = Span<Watched>();
  engine_.captures = Span<Capture>();
  watch_bytes_ = 0;
  watch_.Release();
}

Status LoadedModel::Reset() { return StatusOf(stream_.Reset()); }

void LoadedModel::EndStream() {
  stream_id_ = 0;
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
  stream_id_ = stream;
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
  if (data.size() > input_bytes() - received_) {
    return Status(Code::kBadRequest, "chunk is larger than the step's input block");
  }
  ScatterInput(offset, data);
  received_ += static_cast<uint32_t>(data.size());
  *complete = received_ == input_bytes();
  return Ok();
}

void LoadedModel::ScatterInput(uint32_t offset, Bytes data) {
  uint64_t base = 0;
  for (size_t index = 0; index < stream_.input_count(); ++index) {
    if (stream_.is_bound(index)) {
      continue;
    }
    const MutableBytes port = stream_.input(index);
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
  ++canary_seed_;
  for (size_t index = 0; index < stream_.output_count(); ++index) {
    FillCanary(canary_seed_ + static_cast<uint32_t>(index << 24), stream_.mutable_output(index));
  }
  received_ = 0;
  has_result_ = false;
  *vector_unit = runner_->RestoreVectorUnit();
  engine_.latency_us = 0;
  const Status status = StatusOf(stream_.Run());
  *latency_us = engine_.latency_us;
  if (!status.ok()) {
    broken_ = true;
    return status;
  }
  if (const uint16_t late = runner_->RestoreVectorUnit(); late != 0) {
    *vector_unit = static_cast<uint16_t>(*vector_unit | late | kChunkVectorUnitLate);
  }
  CheckCanary(unwritten);
  RecordWatches();
  stream_.Advance();
  ++next_index_;
  has_result_ = true;
  stepped_ = true;
  return Ok();
}

void LoadedModel::CheckCanary(Unwritten* unwritten) {
  *unwritten = Unwritten();
  for (size_t index = 0; index < stream_.output_count(); ++index) {
    const size_t size = stream_.output(index).size();
    CanaryScan scan =
        ScanCanary(canary_seed_ + static_cast<uint32_t>(index << 24), stream_.output(index));
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
      std::memcpy(watched.value.data(), PortBytes(watched.kind, watched.index).data(),
                  watched.value.size());
    }
    if (watched.mode == WatchMode::kDigest) {
      StoreU32(Crc32(watched.value), watched.digest);
    }
  }
}

Bytes LoadedModel::PortBytes(TensorKind kind, uint32_t index) const {
  return kind == TensorKind::kInput ? Bytes(stream_.input(index)) : stream_.output(index);
}

Bytes LoadedModel::ResultPart(size_t part) const {
  const size_t outputs = stream_.output_count();
  return part < outputs ? stream_.output(part) : watched_[part - outputs].record();
}

Status LoadedModel::ReadResult(uint32_t index, uint32_t offset, MutableBytes out) const {
  if (!has_result_ || index != next_index_ - 1) {
    return Status(Code::kNotAvailable, "not the last step of the stream");
  }
  uint64_t base = 0;
  for (size_t part = 0; part < stream_.output_count() + watched_.size(); ++part) {
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
    CopyOverlap(PortBytes(kind, index), 0, offset, out);
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
