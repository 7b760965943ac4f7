"""A scripted device on a TCP socket: speaks the wire protocol, and lies where a script says so."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from espdl_hil.wire.framing import Decoder, Packet, encode_packet
from espdl_hil.wire.messages import (
    BindState,
    BindStateReply,
    Booted,
    Chunk,
    ChunkFlag,
    ChunkReply,
    Describe,
    DescribeReply,
    Hello,
    HelloReply,
    ListModels,
    ListModelsReply,
    Load,
    LoadReply,
    Memory,
    Message,
    ModelInfo,
    QueryMemory,
    QueryMemoryReply,
    ReadResult,
    ReadResultReply,
    ReadTensor,
    ReadTensorReply,
    Reboot,
    RebootReply,
    Reset,
    ResetReply,
    Start,
    StartReply,
    Unload,
    UnloadReply,
    UploadBegin,
    UploadBeginReply,
    UploadData,
    UploadDataReply,
    UploadEnd,
    UploadEndReply,
    Watch,
    WatchReply,
    WireTensor,
    decode,
    encode_payload,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

DATA = bytes(range(24))
MODEL = b"EDL2" + bytes(4) + len(DATA).to_bytes(4, "little") + bytes(4) + DATA
DIGEST = hashlib.sha256(MODEL).digest()
NONCE = 0x0123456789ABCDEF
BLOCK = 2000  # bytes of the input and of the output: two packets each
PAYLOAD = 1024


def tensor(name: str, size: int = BLOCK) -> WireTensor:
    return WireTensor(name=name, dtype=3, exponent=-4, flags=0, bytes=size, dims=(1, size))


@dataclass
class Liar:
    """An honest device but for *lie*.

    Attributes:
        app_sha256: Of the app that it says it runs.
        lie: Takes the request and the honest reply; gives another reply, raw payload bytes for a
            reply of that type, whole frames in a list, or None for silence.
        greeting: Sent just before each reply to HELLO.
    """

    app_sha256: bytes
    lie: Callable[[Message, Message], Any] = lambda _request, reply: reply
    greeting: bytes = b""

    def serve(self, connection: socket.socket) -> None:
        decoder = Decoder()
        self.stored = bytearray()
        while data := connection.recv(65536):
            for event in decoder.feed(data):
                if isinstance(event, Packet):
                    connection.sendall(self.take(event))

    def take(self, packet: Packet) -> bytes:
        request = decode(packet)
        reply = self.answer(request)
        told = self.lie(request, reply)
        if told is None:
            return b""
        if isinstance(told, list):
            return b"".join(told)
        payload = told if isinstance(told, bytes) else encode_payload(told)
        kind = reply.TYPE if isinstance(told, bytes) else told.TYPE
        frame = encode_packet(Packet(kind, packet.session, packet.seq, payload, 8))
        return self.greeting + frame if isinstance(request, Hello) else frame

    def answer(self, request: Message) -> Message:
        match request:
            case Hello():
                return hello(self.app_sha256)
            case ListModels(first):
                models = (ModelInfo(len(MODEL), DIGEST, "one"), ModelInfo(len(MODEL), DIGEST, "b"))
                return ListModelsReply(total=2, first=first, models=models[first:])
            case Load():
                return LoadReply(*loaded())
            case UploadBegin(size):
                self.stored = bytearray()
                return UploadBeginReply(size)
            case UploadData(_, data):
                self.stored += data
                return UploadDataReply(len(self.stored))
            case UploadEnd():
                return UploadEndReply(*loaded())
            case Describe(handle, kind, first):
                names = (("x",), ("y",), ("mid", "y"))[kind]
                found = tuple(tensor(name) for name in names)
                return DescribeReply(handle, kind, len(found), first, found[first:])
            case BindState(handle):
                return BindStateReply(handle, 0, BLOCK)
            case Watch(handle, items):
                return WatchReply(handle, BLOCK * len(items), tuple(tensor("") for _ in items))
            case Start(handle):
                return StartReply(handle, 5, DIGEST, NONCE, BLOCK, BLOCK, 2 * BLOCK)
            case Chunk(stream, index, offset, data):
                whole = offset + len(data) == BLOCK
                flags = ChunkFlag.EXECUTED | ChunkFlag.NO_TIMING if whole else 0
                size, part = (2 * BLOCK, bytes(PAYLOAD - 30)) if whole else (0, b"")
                return ChunkReply(stream, index, flags, 0, 0, 0, 0, 0, size, part)
            case ReadResult(_, _, offset, length):
                return ReadResultReply(offset, bytes(length))
            case ReadTensor(_, offset, length):
                return ReadTensorReply(BLOCK, offset, bytes(min(length, PAYLOAD - 8)))
            case Reset(handle):
                return ResetReply(handle)
            case Unload(handle):
                return UnloadReply(handle)
            case QueryMemory():
                return QueryMemoryReply(Memory(1, 2, 1, 3, 4, 3))
            case Reboot():
                return RebootReply()
        raise AssertionError(f"unexpected {request}")


def loaded() -> tuple[Any, ...]:
    return (1, DIGEST, len(MODEL), 1, 1, 2, 0, 0)


def hello(app_sha256: bytes) -> HelloReply:
    return HelloReply(
        boot_nonce=NONCE,
        app_sha256=app_sha256,
        chip_revision=2,
        cpu_mhz=240,
        flags=1,
        window=8,
        max_models=2,
        max_payload=PAYLOAD,
        max_upload=1 << 20,
        max_baud=0,
        max_watch=8,
        max_name=512,
        memory=Memory(1, 2, 1, 3, 4, 3),
        target="esp32s3",
        idf_version="i",
        espdl_version="e",
        app_version="a",
    )


def on(kind: type[Message], /, **changes: Any) -> Callable[[Message, Message], Any]:
    """A lie about fields of the reply to one kind of request."""

    def lie(request: Message, reply: Message) -> Message:
        return replace(reply, **changes) if isinstance(request, kind) else reply  # type: ignore[type-var]

    return lie


def raw(kind: type[Message], change: Callable[[bytes], Any]) -> Callable[[Message, Message], Any]:
    """A lie about the bytes of the reply to one kind of request."""

    def lie(request: Message, reply: Message) -> Any:
        return change(encode_payload(reply)) if isinstance(request, kind) else reply

    return lie


def booted(nonce: int) -> bytes:
    return encode_packet(Packet(Booted.TYPE, 0, 0, encode_payload(Booted(nonce)), 8))
