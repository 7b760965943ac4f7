"""The messages of ``protocol.md`` section 3 as dataclasses. Knows no session.

A request ``X`` is answered by ``XReply`` or ``ErrorReply``. Names and units of
the fields are those of ``protocol.md``; a field's annotation is its encoding.
The firmware's ``messages.h`` and ``codes.h`` are generated from this file, see ``generate.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Annotated, ClassVar, Final, dataclass_transform

from espdl_hil.errors import WireError
from espdl_hil.wire.framing import Packet, encode_packet
from espdl_hil.wire.schema import (
    I16,
    U8,
    U16,
    U32,
    U64,
    Data,
    Dims,
    Hash,
    Reader,
    Record,
    Text,
    counted,
)

REPLY: Final = 0x80  # bit of a reply's type
MAX_NAME: Final = 512  # bytes of a tensor or model name
MAX_RANK: Final = 8


class ErrorCode(IntEnum):
    """Error codes, ``protocol.md`` section 4."""

    BAD_REQUEST = 1
    UNKNOWN_TYPE = 2
    NO_SESSION = 3
    STALE_SEQUENCE = 4
    TOO_LARGE = 5
    NO_SUCH_MODEL = 6
    NO_SUCH_TENSOR = 7
    BAD_HANDLE = 8
    NO_SLOT = 9
    OUT_OF_MEMORY = 10
    HASH_MISMATCH = 11
    BAD_PACKAGE = 12
    LOAD_FAILED = 13
    UPLOAD_STATE = 14
    STATE_BINDING = 15
    NO_STREAM = 16
    CHUNK_ORDER = 17
    STREAM_BROKEN = 18
    RUN_FAILED = 19
    NOT_RETAINED = 20
    NOT_AVAILABLE = 21
    VERSION = 22
    INTERNAL = 23


class TensorKind(IntEnum):
    """What ``Describe`` lists."""

    INPUT = 0
    OUTPUT = 1
    NODE_OUTPUT = 2


class WatchMode(IntEnum):
    """What a watch records at each step."""

    VALUE = 0
    DIGEST = 1


class RejectReason(IntEnum):
    """Why the device wants packets again."""

    GAP = 1
    CORRUPT = 2


class DeviceFlag(IntFlag):
    """``HelloReply.flags``."""

    SIMULATED = 1
    MEASURES_TIME = 2
    PULSES = 4


class StartFlag(IntFlag):
    """``Start.flags``."""

    RESET = 1
    RETAIN = 2


class ChunkFlag(IntFlag):
    """``ChunkReply.flags``."""

    EXECUTED = 1
    NO_TIMING = 2
    UNWRITTEN = 4
    SUSPECT = 8
    ROUNDING_LOST = 16
    MISALIGNED = 32
    VECTOR_UNIT_LATE = 64


class TensorFlag(IntFlag):
    """``TensorInfo.flags``."""

    PER_CHANNEL = 1


@dataclass_transform(frozen_default=True)
class Message:
    """Base of all messages; one of a *kind*, its ``TYPE``, is a frozen dataclass."""

    TYPE: ClassVar[int]

    def __init_subclass__(cls, kind: int | None = None) -> None:
        if kind is not None:
            cls.TYPE = kind
            _CLASSES[kind] = dataclass(frozen=True)(cls), Record(cls)


_CLASSES: dict[int, tuple[type[Message], Record]] = {}


@dataclass(frozen=True)
class Memory:
    """Heap of the device, bytes."""

    internal_free: U32
    internal_total: U32
    internal_largest: U32
    psram_free: U32
    psram_total: U32
    psram_largest: U32


@dataclass(frozen=True)
class ModelInfo:
    """One model of the ``models`` partition."""

    size: U32
    sha256: Hash
    name: Text


@dataclass(frozen=True)
class WireTensor:
    """``TensorInfo`` of the protocol; *flags* is a ``TensorFlag``."""

    name: Text
    dtype: U8
    exponent: I16
    flags: U16
    bytes: U32
    dims: Dims


@dataclass(frozen=True)
class StatePair:
    """A graph output that feeds a graph input at the next step."""

    output: Text
    input: Text


@dataclass(frozen=True)
class WatchItem:
    """One tensor to record at each step; *mode* is a ``WatchMode``."""

    mode: U8
    name: Text


class Hello(Message, kind=0x01):
    """Open a session."""


class HelloReply(Message, kind=0x01 | REPLY):
    """What the device is."""

    boot_nonce: U64
    app_sha256: Hash
    chip_revision: U16
    cpu_mhz: U16
    flags: U16
    window: U8
    max_models: U8
    max_payload: U32
    max_upload: U32
    max_baud: U32
    max_watch: U16
    max_name: U16
    memory: Annotated[Memory, Record(Memory)]
    target: Text
    idf_version: Text
    espdl_version: Text
    app_version: Text


class ListModels(Message, kind=0x02):
    """List the ``models`` partition from entry *first*."""

    first: U32


class ListModelsReply(Message, kind=0x02 | REPLY):
    """As many entries as fit a packet."""

    total: U32
    first: U32
    models: Annotated[tuple[ModelInfo, ...], counted(ModelInfo)]


class Load(Message, kind=0x03):
    """Load a model of the ``models`` partition."""

    name: Text


@dataclass(frozen=True)
class Loaded(Message):
    """``LOADED``: *sha256* is the device's own, over the *size* bytes it loaded."""

    handle: U32
    sha256: Hash
    size: U32
    inputs: U16
    outputs: U16
    intermediates: U32
    internal_bytes: U32
    psram_bytes: U32


class LoadReply(Loaded, kind=0x03 | REPLY):
    """The model is loaded."""


class UploadBegin(Message, kind=0x04):
    """Announce a model of *size* bytes."""

    size: U32
    sha256: Hash
    name: Text


class UploadBeginReply(Message, kind=0x04 | REPLY):
    """There is room for *size* bytes."""

    size: U32


class UploadData(Message, kind=0x05):
    """A part of the model; *offset* is where the previous part ended."""

    offset: U32
    data: Data


class UploadDataReply(Message, kind=0x05 | REPLY):
    """The offset expected next."""

    next_offset: U32


class UploadEnd(Message, kind=0x06):
    """Verify and load what was uploaded."""


class UploadEndReply(Loaded, kind=0x06 | REPLY):
    """The uploaded model is loaded."""


class Describe(Message, kind=0x07):
    """List tensors of one ``TensorKind`` from *first*."""

    handle: U32
    kind: U8
    first: U32


class DescribeReply(Message, kind=0x07 | REPLY):
    """As many tensors as fit a packet."""

    handle: U32
    kind: U8
    total: U32
    first: U32
    tensors: Annotated[tuple[WireTensor, ...], counted(WireTensor)]


class BindState(Message, kind=0x08):
    """Replace all state bindings of a model."""

    handle: U32
    pairs: Annotated[tuple[StatePair, ...], counted(StatePair)]


class BindStateReply(Message, kind=0x08 | REPLY):
    """Bytes of state, and of the step input block that remains."""

    handle: U32
    state_bytes: U32
    input_bytes: U32


class Reset(Message, kind=0x09):
    """Zero caches and bound state."""

    handle: U32


class ResetReply(Message, kind=0x09 | REPLY):
    """State is zero."""

    handle: U32


class Watch(Message, kind=0x0A):
    """Replace the list of tensors recorded at each step."""

    handle: U32
    items: Annotated[tuple[WatchItem, ...], counted(WatchItem)]


class WatchReply(Message, kind=0x0A | REPLY):
    """Size of all records, and the tensors in request order, nameless."""

    handle: U32
    watch_bytes: U32
    tensors: Annotated[tuple[WireTensor, ...], counted(WireTensor)]


class Start(Message, kind=0x0B):
    """Start a stream of chunks; *flags* is a ``StartFlag``."""

    handle: U32
    flags: U16


class StartReply(Message, kind=0x0B | REPLY):
    """The stream, what it runs on, and the size of its blocks in bytes."""

    handle: U32
    stream: U32
    model_sha256: Hash
    boot_nonce: U64
    input_bytes: U32
    output_bytes: U32
    result_bytes: U32


class Chunk(Message, kind=0x0C):
    """The input blocks of steps from *index* on, or a fragment of one."""

    stream: U32
    index: U32
    offset: U32
    data: Data


@dataclass(frozen=True)
class LaterStep:
    """Of each step after the packet's first, before its result block; as in ``ChunkReply``."""

    flags: U16
    latency_us: U32


@dataclass(frozen=True)
class LaterUnwritten:
    """Follows a ``LaterStep`` whose flags say that output is unwritten; as in ``ChunkReply``."""

    unwritten_tensors: U16
    unwritten_output: U16
    unwritten_offset: U32
    unwritten_bytes: U32


LATER_STEP: Final = Record(LaterStep)
LATER_UNWRITTEN: Final = Record(LaterUnwritten)


class ChunkReply(Message, kind=0x0C | REPLY):
    """The result block, or its start, then those of later steps; *flags* is a ``ChunkFlag``."""

    stream: U32
    index: U32
    flags: U16
    unwritten_tensors: U16
    unwritten_output: U16
    unwritten_offset: U32
    unwritten_bytes: U32
    latency_us: U32
    result_bytes: U32
    data: Data


class ReadResult(Message, kind=0x0D):
    """Read a part of the result block of the stream's last step."""

    stream: U32
    index: U32
    offset: U32
    length: U32


class ReadResultReply(Message, kind=0x0D | REPLY):
    """At most *length* bytes from *offset*."""

    offset: U32
    data: Data


class ReadTensor(Message, kind=0x0E):
    """Read a part of a tensor of the model's last step."""

    handle: U32
    offset: U32
    length: U32
    name: Text


class ReadTensorReply(Message, kind=0x0E | REPLY):
    """Bytes from *offset* of a tensor of *total* bytes."""

    total: U32
    offset: U32
    data: Data


class QueryMemory(Message, kind=0x0F):
    """``MEMORY``."""


class QueryMemoryReply(Message, kind=0x0F | REPLY):
    """The heap now."""

    memory: Annotated[Memory, Record(Memory)]


class Unload(Message, kind=0x10):
    """Free a model."""

    handle: U32


class UnloadReply(Message, kind=0x10 | REPLY):
    """The model is gone."""

    handle: U32


class Reboot(Message, kind=0x11):
    """Restart the device."""


class RebootReply(Message, kind=0x11 | REPLY):
    """The device restarts now."""


class SetBaud(Message, kind=0x12):
    """Go on at another rate of the line."""

    baud: U32


class SetBaudReply(Message, kind=0x12 | REPLY):
    """The last packet at the old rate; the new one is on trial for so long."""

    baud: U32
    trial_ms: U16


class QueryUsage(Message, kind=0x13):
    """``USAGE``."""


class QueryUsageReply(Message, kind=0x13 | REPLY):
    """What the model that was loaded last has cost so far; 0 for what is not known.

    ``load_us`` is the time of loading. ``internal_least`` and ``psram_least`` are the least free
    heap since then, ``stack_least`` the least free stack of the task that runs models, bytes.
    """

    load_us: U32
    internal_least: U32
    psram_least: U32
    stack_least: U32


class Booted(Message, kind=0xF0):
    """Event: the app is up."""

    boot_nonce: U64


class Reject(Message, kind=0xF1):
    """Event: send everything from *expected* on again; *reason* is a ``RejectReason``."""

    reason: U8
    expected: U32


class ErrorReply(Message, kind=0xFF):
    """The request failed after *done* of its steps; *code* is an ``ErrorCode``."""

    code: U16
    request: U8
    done: U16
    text: Text


def all_messages() -> list[type[Message]]:
    """Every message class, in the order of this file."""
    return [cls for cls, _ in _CLASSES.values()]


def encode_payload(message: Message) -> bytes:
    """Return the payload of *message*.

    Raises:
        WireError: A value does not fit its field.
    """
    out = bytearray()
    _CLASSES[message.TYPE][1].write(message, out)
    return bytes(out)


def encode(message: Message, *, session: int, seq: int, granted: int = 0) -> bytes:
    """Return *message* as a frame ready to send; *granted* credits, 0 from the host.

    Raises:
        WireError: A value does not fit its field.
    """
    return encode_packet(Packet(message.TYPE, session, seq, encode_payload(message), granted))


def decode(packet: Packet) -> Message:
    """Return the message that *packet* holds.

    Raises:
        WireError: The type is unknown, or the payload is not exactly that message.
    """
    if packet.type not in _CLASSES:
        raise WireError(f"unknown message type 0x{packet.type:02X}")
    cls, record = _CLASSES[packet.type]
    reader = Reader(packet.payload, cls.__name__)
    message: Message = record.read(reader)
    reader.finish()
    return message
