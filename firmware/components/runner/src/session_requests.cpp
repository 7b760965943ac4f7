#include <algorithm>
#include <cstring>
#include <utility>

#include "runner/session.h"

namespace hil {
namespace {

constexpr Status kMalformed(Code::kBadRequest, "the payload is not that of its request");

constexpr size_t kChunkReplyBytes = 30;  // of a ChunkReply without data
constexpr size_t kLaterStepBytes = 18;   // of a LaterStep and a LaterUnwritten

// Writes `count u16` and the items that `append(index)` writes, from `first` up to
// `total`, until it returns false. `append` tells of errors through *status.
template <typename Append>
Status WriteList(uint32_t first, uint32_t total, PayloadWriter* reply, Append append) {
  const size_t count_at = reply->Reserve();
  uint16_t count = 0;
  for (uint32_t index = first; index < total && count < UINT16_MAX; ++index) {
    bool fits = true;
    HIL_RETURN_IF_ERROR(append(index, &fits));
    if (!fits) {
      break;
    }
    ++count;
  }
  if (count == 0 && first < total) {
    return Status(Code::kTooLarge, "one entry does not fit a packet");
  }
  reply->Patch(count_at, count);
  return Ok();
}

}  // namespace

Status Session::Dispatch(const Packet& packet, PayloadWriter* reply) {
  const Bytes payload = packet.payload;
  switch (static_cast<Type>(packet.type)) {
    case Type::kHello:
      return payload.empty() ? OnHello(reply) : kMalformed;
    case Type::kListModels:
      return OnListModels(payload, reply);
    case Type::kLoad:
      return OnLoad(payload, reply);
    case Type::kUploadBegin:
      return OnUploadBegin(payload, reply);
    case Type::kUploadData:
      return OnUploadData(payload, reply);
    case Type::kUploadEnd:
      return payload.empty() ? OnUploadEnd(reply) : kMalformed;
    case Type::kDescribe:
      return OnDescribe(payload, reply);
    case Type::kBindState:
      return OnBindState(payload, reply);
    case Type::kReset:
      return OnReset(payload, reply);
    case Type::kWatch:
      return OnWatch(payload, reply);
    case Type::kStart:
      return OnStart(payload, reply);
    case Type::kChunk:
      return OnChunk(payload, reply);
    case Type::kReadResult:
      return OnReadResult(payload, reply);
    case Type::kReadTensor:
      return OnReadTensor(payload, reply);
    case Type::kQueryMemory:
      (*reply)(platform_.runner->Memory());
      return payload.empty() ? Ok() : kMalformed;
    case Type::kQueryUsage:
      (*reply)(platform_.runner->Usage());
      return payload.empty() ? Ok() : kMalformed;
    case Type::kUnload:
      return OnUnload(payload, reply);
    case Type::kReboot:
      reboot_ = payload.empty();
      return payload.empty() ? Ok() : kMalformed;
    case Type::kSetBaud:
      return OnSetBaud(payload, reply);
    default:
      return Status(Code::kUnknownType, "no such request");
  }
}

Status Session::OnHello(PayloadWriter* reply) {
  HelloReply hello;
  hello.boot_nonce = facts_.boot_nonce;
  hello.app_sha256 = facts_.app_sha256;
  hello.chip_revision = facts_.chip_revision;
  hello.cpu_mhz = facts_.cpu_mhz;
  hello.flags = facts_.flags;
  hello.window = limits_.window;
  hello.max_models = limits_.max_models;
  hello.max_payload = limits_.max_payload;
  hello.max_upload = limits_.max_upload;
  hello.max_baud = facts_.max_baud;
  hello.max_watch = limits_.max_watch;
  hello.max_name = kMaxName;
  hello.memory = platform_.runner->Memory();
  hello.target = facts_.target;
  hello.idf_version = facts_.idf_version;
  hello.espdl_version = facts_.espdl_version;
  hello.app_version = facts_.app_version;
  (*reply)(hello);
  return Ok();
}

Status Session::OnListModels(Bytes payload, PayloadWriter* reply) {
  ListModels request;
  if (!ReadPayload(payload, &request)) {
    return kMalformed;
  }
  const ModelStore& store = *platform_.store;
  HIL_RETURN_IF_ERROR(store.status());
  (*reply)(store.count(), request.first);
  return WriteList(request.first, store.count(), reply, [&](uint32_t index, bool* fits) {
    const ModelStore::Entry entry = store.At(index);
    *fits = reply->Append(
        ModelInfo{static_cast<uint32_t>(entry.model.size()), Sha256::Of(entry.model), entry.name});
    return Ok();
  });
}

Status Session::OnLoad(Bytes payload, PayloadWriter* reply) {
  Load request;
  if (!ReadPayload(payload, &request)) {
    return kMalformed;
  }
  ModelStore::Entry entry;
  HIL_RETURN_IF_ERROR(platform_.store->Find(request.name, &entry));
  return LoadInto(entry.name, entry.model, PoolBuffer(), reply);
}

Status Session::LoadInto(std::string_view name, Bytes bytes, PoolBuffer owned,
                         PayloadWriter* reply) {
  LoadedModel* end = models_ + limits_.max_models;
  LoadedModel* model =
      std::find_if(models_, end, [](const LoadedModel& slot) { return !slot.loaded(); });
  if (model == end) {
    return Status(Code::kNoSlot, "as many models as HELLO says are loaded");
  }
  const MemoryInfo before = platform_.runner->Memory();
  HIL_RETURN_IF_ERROR(model->Load(platform_.runner, platform_.pool, last_handle_ + 1, name, bytes,
                                  std::move(owned)));
  ++last_handle_;
  const MemoryInfo after = platform_.runner->Memory();
  LoadReply loaded;  // UploadEndReply is the same
  loaded.handle = model->handle();
  loaded.sha256 = model->sha256();
  loaded.size = model->size();
  loaded.inputs = static_cast<uint16_t>(model->Count(TensorKind::kInput));
  loaded.outputs = static_cast<uint16_t>(model->Count(TensorKind::kOutput));
  loaded.intermediates = model->Count(TensorKind::kNodeOutput);
  loaded.internal_bytes =
      before.internal_free - std::min(before.internal_free, after.internal_free);
  loaded.psram_bytes = before.psram_free - std::min(before.psram_free, after.psram_free);
  (*reply)(loaded);
  return Ok();
}

void Session::DropUpload() {
  upload_.Release();
  uploaded_ = 0;
}

Status Session::OnUploadBegin(Bytes payload, PayloadWriter* reply) {
  UploadBegin request;
  if (!ReadPayload(payload, &request) || request.size == 0) {
    return kMalformed;
  }
  DropUpload();
  if (request.size > limits_.max_upload || request.name.size() > kMaxName) {
    return Status(Code::kTooLarge, "upload or its name exceeds the limit in HELLO");
  }
  upload_ = PoolBuffer(platform_.pool, request.size);
  if (upload_.bytes().empty()) {
    return Status(Code::kOutOfMemory, "no memory for the upload");
  }
  std::copy(request.name.begin(), request.name.end(), upload_name_);
  announced_ = request;
  announced_.name = std::string_view(upload_name_, request.name.size());
  (*reply)(UploadBeginReply{request.size});
  return Ok();
}

Status Session::OnUploadData(Bytes payload, PayloadWriter* reply) {
  UploadData request;
  if (!ReadPayload(payload, &request)) {
    return kMalformed;
  }
  if (upload_.bytes().empty() || request.offset != uploaded_) {
    return Status(Code::kUploadState, "no upload is open, or not its next offset");
  }
  if (request.data.size() > announced_.size - uploaded_) {
    return Status(Code::kUploadState, "more data than the upload announced");
  }
  if (!request.data.empty()) {
    std::memcpy(upload_.bytes().data() + uploaded_, request.data.data(), request.data.size());
    uploaded_ += static_cast<uint32_t>(request.data.size());
  }
  (*reply)(UploadDataReply{uploaded_});
  return Ok();
}

Status Session::OnUploadEnd(PayloadWriter* reply) {
  if (upload_.bytes().empty() || uploaded_ != announced_.size) {
    return Status(Code::kUploadState, "no upload is open, or it is incomplete");
  }
  const Bytes bytes = upload_.bytes().Sub(0, announced_.size);
  uploaded_ = 0;
  PoolBuffer owned = std::move(upload_);
  if (Sha256::Of(bytes) != announced_.sha256) {
    return Status(Code::kHashMismatch, "the upload does not match its announced SHA-256");
  }
  if (EdlSize(bytes) == 0) {
    return Status(Code::kLoadFailed, "the upload is no whole .espdl file");
  }
  return LoadInto(announced_.name, bytes, std::move(owned), reply);
}

Status Session::FindModel(uint32_t handle, LoadedModel** model) {
  for (LoadedModel& slot : models_) {
    if (slot.loaded() && slot.handle() == handle) {
      *model = &slot;
      return Ok();
    }
  }
  return Status(Code::kBadHandle, "no loaded model has this handle");
}

Status Session::FindStream(uint32_t stream, LoadedModel** model) {
  for (LoadedModel& slot : models_) {
    if (slot.loaded() && stream != 0 && slot.stream() == stream) {
      *model = &slot;
      return Ok();
    }
  }
  return Status(Code::kNoStream, "the stream ended or never started");
}

Status Session::OnDescribe(Bytes payload, PayloadWriter* reply) {
  Describe request;
  if (!ReadPayload(payload, &request) ||
      request.kind > static_cast<uint8_t>(TensorKind::kNodeOutput)) {
    return kMalformed;
  }
  LoadedModel* model = nullptr;
  HIL_RETURN_IF_ERROR(FindModel(request.handle, &model));
  const TensorKind kind = static_cast<TensorKind>(request.kind);
  const uint32_t total = model->Count(kind);
  (*reply)(request.handle, request.kind, total, request.first);
  return WriteList(request.first, total, reply, [&](uint32_t index, bool* fits) {
    TensorInfo info;
    HIL_RETURN_IF_ERROR(model->Describe(kind, index, &info));
    *fits = reply->Append(info);
    return Ok();
  });
}

Status Session::OnBindState(Bytes payload, PayloadWriter* reply) {
  BindState request;
  if (!ReadPayload(payload, &request)) {
    return kMalformed;
  }
  LoadedModel* model = nullptr;
  HIL_RETURN_IF_ERROR(FindModel(request.handle, &model));
  HIL_RETURN_IF_ERROR(model->Bind(request.count, request.items));
  (*reply)(BindStateReply{request.handle, model->state_bytes(), model->input_bytes()});
  return Ok();
}

Status Session::OnReset(Bytes payload, PayloadWriter* reply) {
  Reset request;
  if (!ReadPayload(payload, &request)) {
    return kMalformed;
  }
  LoadedModel* model = nullptr;
  HIL_RETURN_IF_ERROR(FindModel(request.handle, &model));
  HIL_RETURN_IF_ERROR(model->Reset());
  (*reply)(request);
  return Ok();
}

Status Session::OnWatch(Bytes payload, PayloadWriter* reply) {
  Watch request;
  if (!ReadPayload(payload, &request)) {
    return kMalformed;
  }
  LoadedModel* model = nullptr;
  HIL_RETURN_IF_ERROR(FindModel(request.handle, &model));
  if (request.count > limits_.max_watch) {
    return Status(Code::kTooLarge, "more watches than HELLO allows");
  }
  HIL_RETURN_IF_ERROR(model->Watch(request.count, request.items));
  (*reply)(request.handle, model->watch_bytes(), request.count);
  for (uint16_t index = 0; index < request.count; ++index) {
    TensorInfo info;
    HIL_RETURN_IF_ERROR(model->DescribeWatch(index, &info));
    info.name = std::string_view();
    (*reply)(info);
  }
  return reply->ok() ? Ok() : model->Watch(0, Bytes());  // no reply fits: no watches either
}

Status Session::OnStart(Bytes payload, PayloadWriter* reply) {
  hil::Start request;
  if (!ReadPayload(payload, &request) || (request.flags & ~(kStartReset | kStartRetain)) != 0) {
    return kMalformed;
  }
  LoadedModel* model = nullptr;
  HIL_RETURN_IF_ERROR(FindModel(request.handle, &model));
  HIL_RETURN_IF_ERROR(model->StartStream(last_stream_ + 1, (request.flags & kStartReset) != 0,
                                         (request.flags & kStartRetain) != 0));
  ++last_stream_;
  StartReply started;
  started.handle = request.handle;
  started.stream = model->stream();
  started.model_sha256 = model->sha256();
  started.boot_nonce = facts_.boot_nonce;
  started.input_bytes = model->input_bytes();
  started.output_bytes = model->output_bytes();
  started.result_bytes = model->result_bytes();
  (*reply)(started);
  return Ok();
}

Status Session::OnChunk(Bytes payload, PayloadWriter* reply) {
  Chunk request;
  if (!ReadPayload(payload, &request)) {
    return kMalformed;
  }
  LoadedModel* model = nullptr;
  HIL_RETURN_IF_ERROR(FindStream(request.stream, &model));
  size_t count = 1;
  if (request.offset == 0 && request.data.size() > model->input_bytes()) {
    HIL_RETURN_IF_ERROR(CheckSteps(*model, request.data.size(), &count));
  }
  const size_t part = request.data.size() / count;
  for (; steps_done_ < count; ++steps_done_) {
    bool complete = false;
    HIL_RETURN_IF_ERROR(model->Feed(request.index + steps_done_, request.offset,
                                    request.data.Sub(steps_done_ * part, part), &complete));
    if (!complete) {
      ChunkReply fields;
      fields.stream = request.stream;
      fields.index = request.index;
      (*reply)(fields);
      return Ok();
    }
    HIL_RETURN_IF_ERROR(
        RunStep(model, request.stream, request.index + steps_done_, steps_done_ == 0, reply));
  }
  return Ok();
}

// How many steps a packet holds that is larger than one, and that their results fit a packet.
Status Session::CheckSteps(const LoadedModel& model, size_t data_bytes, size_t* count) const {
  if (model.input_bytes() == 0 || data_bytes % model.input_bytes() != 0) {
    return Status(Code::kBadRequest, "chunk is larger than the step's input block");
  }
  *count = data_bytes / model.input_bytes();
  const uint64_t later = kLaterStepBytes + uint64_t{model.result_bytes()};
  if (kChunkReplyBytes + model.result_bytes() + (*count - 1) * later > limits_.max_payload) {
    return Status(Code::kTooLarge, "the results of so many steps do not fit a packet");
  }
  return Ok();
}

Status Session::RunStep(LoadedModel* model, uint32_t stream, uint32_t index, bool is_first,
                        PayloadWriter* reply) {
  Unwritten unwritten;
  uint32_t latency_us = 0;
  uint16_t vector_unit = 0;
  HIL_RETURN_IF_ERROR(model->Step(&unwritten, &latency_us, &vector_unit));
  ++stats_.steps;
  uint16_t flags = static_cast<uint16_t>(kChunkExecuted | vector_unit);
  if ((facts_.flags & kDeviceMeasuresTime) == 0) {
    flags |= kChunkNoTiming;
    latency_us = 0;
  }
  if (unwritten.tensors != 0) {
    flags |= kChunkUnwritten;
  }
  if (unwritten.suspect) {
    flags |= kChunkSuspect;
  }
  const LaterUnwritten found{unwritten.tensors, unwritten.output, unwritten.offset,
                             unwritten.bytes};
  const uint32_t size = model->result_bytes();
  if (is_first) {
    (*reply)(stream, index, flags, found, latency_us, size);  // ChunkReply without its data
  } else {
    (*reply)(LaterStep{flags, latency_us});
    if (unwritten.tensors != 0) {
      (*reply)(found);
    }
  }
  const size_t part = std::min<size_t>(reply->left(), size);
  return model->ReadResult(index, 0, MutableBytes(reply->Extend(part), part));
}

Status Session::OnReadResult(Bytes payload, PayloadWriter* reply) {
  ReadResult request;
  if (!ReadPayload(payload, &request)) {
    return kMalformed;
  }
  LoadedModel* model = nullptr;
  HIL_RETURN_IF_ERROR(FindStream(request.stream, &model));
  if (request.offset > model->result_bytes()) {
    return Status(Code::kBadRequest, "offset lies behind the result block");
  }
  (*reply)(ReadResultReply{request.offset, Bytes()});
  const size_t part =
      std::min<size_t>({reply->left(), request.length, model->result_bytes() - request.offset});
  return model->ReadResult(request.index, request.offset, MutableBytes(reply->Extend(part), part));
}

Status Session::OnReadTensor(Bytes payload, PayloadWriter* reply) {
  ReadTensor request;
  if (!ReadPayload(payload, &request)) {
    return kMalformed;
  }
  LoadedModel* model = nullptr;
  HIL_RETURN_IF_ERROR(FindModel(request.handle, &model));
  TensorKind kind;
  uint32_t index = 0;
  uint32_t total = 0;
  HIL_RETURN_IF_ERROR(model->Find(request.name, &kind, &index));
  HIL_RETURN_IF_ERROR(model->TensorBytes(kind, index, &total));
  if (request.offset > total) {
    return Status(Code::kBadRequest, "offset lies behind the tensor");
  }
  (*reply)(ReadTensorReply{total, request.offset, Bytes()});
  const size_t part = std::min<size_t>({reply->left(), request.length, total - request.offset});
  return model->ReadTensor(kind, index, request.offset, MutableBytes(reply->Extend(part), part));
}

Status Session::OnUnload(Bytes payload, PayloadWriter* reply) {
  Unload request;
  if (!ReadPayload(payload, &request)) {
    return kMalformed;
  }
  LoadedModel* model = nullptr;
  HIL_RETURN_IF_ERROR(FindModel(request.handle, &model));
  model->Unload();
  (*reply)(request);
  return Ok();
}

Status Session::OnSetBaud(Bytes payload, PayloadWriter* reply) {
  SetBaud request;
  if (!ReadPayload(payload, &request)) {
    return kMalformed;
  }
  if (facts_.max_baud == 0) {
    return Status(Code::kBadRequest, "the port has no rate");
  }
  if (request.baud < kMinBaud || request.baud > facts_.max_baud) {
    return Status(Code::kBadRequest, "the port does not have this rate");
  }
  next_baud_ = request.baud;
  (*reply)(SetBaudReply{request.baud, kBaudTrialMs});
  return Ok();
}

}  // namespace hil
