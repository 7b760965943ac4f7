"""The messages of ``protocol.md`` section 3 as dataclasses. Knows no session.

A request ``X`` is answered by ``XReply`` or ``ErrorReply``. Names and units of
the fields are those of ``protocol.md``; a field's annotation is its encoding.
The firmware's ``messages.h`` and ``codes.h`` are generated from this file, see ``generate.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, TypeVar

from espdl_hil.errors import WireError
from espdl_hil.wire.framing import Packet, encode_packet
from espdl_hil.wire.schema import (
    I16,
    U8,
    U16,
    U32,
    U64,
    Codec,
    Data,
    Dims,
    Hash,
    Reader,
    Record,
    Text,
    counted,
    fields_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

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


class Message:
    """Base of all messages; each class has its type in ``TYPE``."""

    TYPE: ClassVar[int]


_M = TypeVar("_M", bound=type[Message])
_CLASSES: dict[int, tuple[type[Message], tuple[tuple[str, Codec], ...]]] = {}


def _message(kind: int) -> Callable[[_M], _M]:
    """Register a dataclass as the message of type *kind*."""

    def register(cls: _M) -> _M:
        cls.TYPE = kind
        _CLASSES[kind] = (cls, fields_of(cls))
        return cls

    return register


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


@_message(0x01)
@dataclass(frozen=True)
class Hello(Message):
    """Open a session."""


@_message(0x01 | REPLY)
@dataclass(frozen=True)
class HelloReply(Message):
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


@_message(0x02)
@dataclass(frozen=True)
class ListModels(Message):
    """List the ``models`` partition from entry *first*."""

    first: U32


@_message(0x02 | REPLY)
@dataclass(frozen=True)
class ListModelsReply(Message):
    """As many entries as fit a packet."""

    total: U32
    first: U32
    models: Annotated[tuple[ModelInfo, ...], counted(ModelInfo)]


@_message(0x03)
@dataclass(frozen=True)
class Load(Message):
    """Load a model of the ``models`` partition."""

    name: Text


@dataclass(frozen=True)
class _Loaded(Message):
    """``LOADED``: *sha256* is the device's own, over the *size* bytes it loaded."""

    handle: U32
    sha256: Hash
    size: U32
    inputs: U16
    outputs: U16
    intermediates: U32
    internal_bytes: U32
    psram_bytes: U32


@_message(0x03 | REPLY)
@dataclass(frozen=True)
class LoadReply(_Loaded):
    """The model is loaded."""


@_message(0x04)
@dataclass(frozen=True)
class UploadBegin(Message):
    """Announce a model of *size* bytes."""

    size: U32
    sha256: Hash
    name: Text


@_message(0x04 | REPLY)
@dataclass(frozen=True)
class UploadBeginReply(Message):
    """There is room for *size* bytes."""

    size: U32


@_message(0x05)
@dataclass(frozen=True)
class UploadData(Message):
    """A part of the model; *offset* is where the previous part ended."""

    offset: U32
    data: Data


@_message(0x05 | REPLY)
@dataclass(frozen=True)
class UploadDataReply(Message):
    """The offset expected next."""

    next_offset: U32


@_message(0x06)
@dataclass(frozen=True)
class UploadEnd(Message):
    """Verify and load what was uploaded."""


@_message(0x06 | REPLY)
@dataclass(frozen=True)
class UploadEndReply(_Loaded):
    """The uploaded model is loaded."""


@_message(0x07)
@dataclass(frozen=True)
class Describe(Message):
    """List tensors of one ``TensorKind`` from *first*."""

    handle: U32
    kind: U8
    first: U32


@_message(0x07 | REPLY)
@dataclass(frozen=True)
class DescribeReply(Message):
    """As many tensors as fit a packet."""

    handle: U32
    kind: U8
    total: U32
    first: U32
    tensors: Annotated[tuple[WireTensor, ...], counted(WireTensor)]


@_message(0x08)
@dataclass(frozen=True)
class BindState(Message):
    """Replace all state bindings of a model."""

    handle: U32
    pairs: Annotated[tuple[StatePair, ...], counted(StatePair)]


@_message(0x08 | REPLY)
@dataclass(frozen=True)
class BindStateReply(Message):
    """Bytes of state, and of the step input block that remains."""

    handle: U32
    state_bytes: U32
    input_bytes: U32


@_message(0x09)
@dataclass(frozen=True)
class Reset(Message):
    """Zero caches and bound state."""

    handle: U32


@_message(0x09 | REPLY)
@dataclass(frozen=True)
class ResetReply(Message):
    """State is zero."""

    handle: U32


@_message(0x0A)
@dataclass(frozen=True)
class Watch(Message):
    """Replace the list of tensors recorded at each step."""

    handle: U32
    items: Annotated[tuple[WatchItem, ...], counted(WatchItem)]


@_message(0x0A | REPLY)
@dataclass(frozen=True)
class WatchReply(Message):
    """Size of all records, and the tensors in request order, nameless."""

    handle: U32
    watch_bytes: U32
    tensors: Annotated[tuple[WireTensor, ...], counted(WireTensor)]


@_message(0x0B)
@dataclass(frozen=True)
class Start(Message):
    """Start a stream of chunks; *flags* is a ``StartFlag``."""

    handle: U32
    flags: U16


@_message(0x0B | REPLY)
@dataclass(frozen=True)
class StartReply(Message):
    """The stream, what it runs on, and the size of its blocks in bytes."""

    handle: U32
    stream: U32
    model_sha256: Hash
    boot_nonce: U64
    input_bytes: U32
    output_bytes: U32
    result_bytes: U32


@_message(0x0C)
@dataclass(frozen=True)
class Chunk(Message):
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


@_message(0x0C | REPLY)
@dataclass(frozen=True)
class ChunkReply(Message):
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


@_message(0x0D)
@dataclass(frozen=True)
class ReadResult(Message):
    """Read a part of the result block of the stream's last step."""

    stream: U32
    index: U32
    offset: U32
    length: U32


@_message(0x0D | REPLY)
@dataclass(frozen=True)
class ReadResultReply(Message):
    """At most *length* bytes from *offset*."""

    offset: U32
    data: Data


@_message(0x0E)
@dataclass(frozen=True)
class ReadTensor(Message):
    """Read a part of a tensor of the model's last step."""

    handle: U32
    offset: U32
    length: U32
    name: Text


@_message(0x0E | REPLY)
@dataclass(frozen=True)
class ReadTensorReply(Message):
    """Bytes from *offset* of a tensor of *total* bytes."""

    total: U32
    offset: U32
    data: Data


@_message(0x0F)
@dataclass(frozen=True)
class QueryMemory(Message):
    """``MEMORY``."""


@_message(0x0F | REPLY)
@dataclass(frozen=True)
class QueryMemoryReply(Message):
    """The heap now."""

    memory: Annotated[Memory, Record(Memory)]


@_message(0x10)
@dataclass(frozen=True)
class Unload(Message):
    """Free a model."""

    handle: U32


@_message(0x10 | REPLY)
@dataclass(frozen=True)
class UnloadReply(Message):
    """The model is gone."""

    handle: U32


@_message(0x11)
@dataclass(frozen=True)
class Reboot(Message):
    """Restart the device."""


@_message(0x11 | REPLY)
@dataclass(frozen=True)
class RebootReply(Message):
    """The device restarts now."""


@_message(0x12)
@dataclass(frozen=True)
class SetBaud(Message):
    """Go on at another rate of the line."""

    baud: U32


@_message(0x12 | REPLY)
@dataclass(frozen=True)
class SetBaudReply(Message):
    """The last packet at the old rate; the new one is on trial for so long."""

    baud: U32
    trial_ms: U16


@_message(0x13)
@dataclass(frozen=True)
class QueryUsage(Message):
    """``USAGE``."""


@_message(0x13 | REPLY)
@dataclass(frozen=True)
class QueryUsageReply(Message):
    """What the model that was loaded last has cost so far; 0 for what is not known.

    ``load_us`` is the time of loading. ``internal_least`` and ``psram_least`` are the least free
    heap since then, ``stack_least`` the least free stack of the task that runs models, bytes.
    """

    load_us: U32
    internal_least: U32
    psram_least: U32
    stack_least: U32


@_message(0xF0)
@dataclass(frozen=True)
class Booted(Message):
    """Event: the app is up."""

    boot_nonce: U64


@_message(0xF1)
@dataclass(frozen=True)
class Reject(Message):
    """Event: send everything from *expected* on again; *reason* is a ``RejectReason``."""

    reason: U8
    expected: U32


@_message(0xFF)
@dataclass(frozen=True)
class ErrorReply(Message):
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
    for name, codec in _CLASSES[message.TYPE][1]:
        codec.write(getattr(message, name), out)
    return bytes(out)


def encode(message: Message, *, session: int, seq: int, granted: int = 0) -> bytes:
    """Return *message* as a frame ready to send.

    Args:
        message: Any message.
        session: Session id.
        seq: Sequence number, 0 to 2**32 - 1.
        granted: Credits; 0 from the host.

    Raises:
        WireError: A value does not fit its field.
    """
    return encode_packet(Packet(message.TYPE, session, seq, encode_payload(message), granted))


def decode(packet: Packet) -> Message:
    """Return the message that *packet* holds.

    Raises:
        WireError: The type is unknown, or the payload is not exactly that message.
    """
    entry = _CLASSES.get(packet.type)
    if entry is None:
        raise WireError(f"unknown message type 0x{packet.type:02X}")
    cls, fields = entry
    reader = Reader(packet.payload, cls.__name__)
    message = cls(**{name: codec.read(reader) for name, codec in fields})
    reader.finish()
    return message
