"""Writes ``wire/vectors.json``. Run it after changing the protocol, and read the diff."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

from espdl_hil.wire import framing
from espdl_hil.wire import messages as m

VECTORS = Path(m.__file__).with_name("vectors.json")
HASH = bytes(range(32))
MEMORY = m.Memory(1, 0x80000, 3, 4, 0x800000, 0xFFFFFFFF)
TENSOR = m.WireTensor("conv/output", 3, -7, 0, 48, (1, 3, 16))

MESSAGES: dict[str, m.Message] = {
    "hello": m.Hello(),
    "hello reply": m.HelloReply(
        0x0123456789ABCDEF,
        HASH,
        301,
        400,
        3,
        8,
        4,
        4096,
        0x400000,
        5000000,
        64,
        512,
        MEMORY,
        "esp32p4",
        "v5.5.1",
        "3.3.9",
        "0.1.0",
    ),
    "list models": m.ListModels(7),
    "list models reply": m.ListModelsReply(
        9, 7, (m.ModelInfo(70000, HASH, "tcn"), m.ModelInfo(16, HASH[::-1], "größe"))
    ),
    "list models reply, empty": m.ListModelsReply(0, 0, ()),
    "load": m.Load("tcn-int8-chunk3"),
    "load reply": m.LoadReply(1, HASH, 70000, 1, 2, 40, 1024, 90000),
    "upload begin": m.UploadBegin(70000, HASH, "tcn"),
    "upload begin reply": m.UploadBeginReply(70000),
    "upload data": m.UploadData(4096, b"\0\0\0"),
    "upload data reply": m.UploadDataReply(4099),
    "upload end": m.UploadEnd(),
    "upload end reply": m.UploadEndReply(2, HASH, 70000, 1, 2, 40, 0, 0),
    "describe": m.Describe(1, m.TensorKind.NODE_OUTPUT, 30),
    "describe reply": m.DescribeReply(
        1, 2, 32, 30, (TENSOR, m.WireTensor("scalar", 1, 0, 1, 4, ()))
    ),
    "bind state": m.BindState(1, (m.StatePair("hn", "h0"), m.StatePair("cn", "c0"))),
    "bind state, none": m.BindState(1, ()),
    "bind state reply": m.BindStateReply(1, 64, 48),
    "reset": m.Reset(1),
    "reset reply": m.ResetReply(1),
    "watch": m.Watch(1, (m.WatchItem(0, "a"), m.WatchItem(1, "b"))),
    "watch reply": m.WatchReply(1, 52, (dataclasses.replace(TENSOR, name=""),)),
    "start": m.Start(1, m.StartFlag.RESET | m.StartFlag.RETAIN),
    "start reply": m.StartReply(1, 5, HASH, 0xFFFFFFFFFFFFFFFF, 48, 96, 100),
    "chunk": m.Chunk(5, 0, 0, bytes(range(48))),
    "chunk, no data": m.Chunk(5, 1, 0, b""),
    "chunk reply": m.ChunkReply(5, 0, 1, 0, 0, 0, 0, 1234, 3, b"\x80\0\x7f"),
    "chunk reply, unwritten": m.ChunkReply(5, 1, 15, 2, 1, 16, 32, 0, 0, b""),
    "read result": m.ReadResult(5, 1, 4000, 1000),
    "read result reply": m.ReadResultReply(4000, b"\xff" * 5),
    "read tensor": m.ReadTensor(1, 0, 65536, "conv/output"),
    "read tensor reply": m.ReadTensorReply(48, 0, b"\x01\x02"),
    "memory": m.QueryMemory(),
    "memory reply": m.QueryMemoryReply(MEMORY),
    "usage": m.QueryUsage(),
    "usage reply": m.QueryUsageReply(81234, 0x12345, 0x6789AB, 7000),
    "unload": m.Unload(1),
    "unload reply": m.UnloadReply(1),
    "reboot": m.Reboot(),
    "reboot reply": m.RebootReply(),
    "set baud": m.SetBaud(921600),
    "set baud reply": m.SetBaudReply(921600, 500),
    "booted": m.Booted(0x0123456789ABCDEF),
    "reject": m.Reject(m.RejectReason.CORRUPT, 17),
    "error": m.ErrorReply(m.ErrorCode.HASH_MISMATCH, 6, 0, "the upload differs"),
    "long, all zeros": m.UploadData(0, bytes(600)),
    "long, no zeros": m.UploadData(0x01010101, b"\x55" * 600),
    "long, random": m.UploadData(0, random.Random(1).randbytes(1000)),
    # header and offset hold zeros; the last block of exactly 254 comes from here on
    "full last block": m.ReadResultReply(0x01010101, b"\x11" * (254 - 4 - 4)),
    "chunk reply, vector unit": m.ChunkReply(5, 2, 0x71, 0, 0, 0, 0, 9, 1, b"\x01"),
}


def message_vector(index: int, name: str, message: m.Message) -> dict[str, object]:
    """Return one entry of ``messages``."""
    is_reply = bool(message.TYPE & m.REPLY)
    session, seq, granted = 0xC0FFEE00 + index, 0xFFFFFFF0 + index & 0xFFFFFFFF, 8 * is_reply
    return {
        "name": name,
        "message": type(message).__name__,
        "type": message.TYPE,
        "session": session,
        "seq": seq,
        "credits": granted,
        "fields": to_json(message),
        "frame": m.encode(message, session=session, seq=seq, granted=granted).hex(),
    }


def to_json(value: object) -> object:
    """Return *value* as JSON: dataclasses as objects, bytes as hex."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    return int(value) if isinstance(value, int) else value


def flip(frame: bytes, position: int, mask: int = 0x40) -> bytes:
    """Return *frame* with bits of one byte inverted."""
    return frame[:position] + bytes([frame[position] ^ mask]) + frame[position + 1 :]


def streams() -> dict[str, bytes]:
    """Return named byte streams: good and bad frames among console text."""
    good = m.encode(m.Chunk(5, 0, 0, b"data"), session=1, seq=2)
    other = m.encode(m.Reset(1), session=1, seq=3)
    body = framing.cobs_decode(good[1:-1])
    bad_version = bytes([body[0], 2]) + body[2:-4]
    bad_version += framing.zlib.crc32(bad_version).to_bytes(4, "little")
    too_long = m.encode(m.UploadData(0, bytes(100)), session=1, seq=2)
    return {
        "text around frames": b"boot\r\n" + good + b"I (12) app: up\n" + other + b"bye\n",
        "frames share a zero": good + other[1:],
        "doubled zeros": b"\0\0\0" + good + b"\0\0" + other,
        "text only": b"rst:0x1 (POWERON)\n",
        "text after a lone zero": b"\0Guru Meditation Error\n",
        "text of one byte between zeros": b"\0x\0" + good,
        "flipped bit in the payload": flip(good, 20) + other,
        "flipped bit in a COBS code": flip(good, 1, 0x02) + other,
        "zero in the middle": good[:12] + b"\0" + good[12:] + other,
        "panic in the middle": good[:15] + b"\r\nGuru Meditation Error: Core 0 panic'ed" + other,
        "closing zero lost": good[:-1] + b"text\n" + other,
        "opening zero lost": good[1:] + other,
        "another version": b"\0" + framing.cobs_encode(bad_version) + b"\0" + other,
        "length over the limit": too_long + other,
        "reset in the middle": good[:10]
        + b"ESP-ROM:esp32s3-20210327\r\nBuild:Mar 27 2021\r\n"
        + good,
        "truncated at the end": good + other[:9],
    }


def stream_vector(name: str, data: bytes) -> dict[str, object]:
    """Return one entry of ``streams``, read by the Python decoder."""
    decoder = framing.Decoder(max_length=64)
    packets, faults, console = [], [], b""
    for event in decoder.feed(data) + decoder.flush():
        if isinstance(event, framing.Packet):
            packets.append({"type": event.type, "seq": event.seq, "payload": event.payload.hex()})
        elif isinstance(event, framing.DamagedFrame):
            faults.append(event.reason.value)
        else:
            console += event
    return {
        "name": name,
        "max_length": 64,
        "bytes": data.hex(),
        "packets": packets,
        "faults": faults,
        "console": console.hex(),
    }


def main() -> None:
    """Write the file."""
    vectors = {
        "messages": [
            message_vector(index, name, message)
            for index, (name, message) in enumerate(MESSAGES.items())
        ],
        "streams": [stream_vector(name, data) for name, data in streams().items()],
    }
    VECTORS.write_text(json.dumps(vectors, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
