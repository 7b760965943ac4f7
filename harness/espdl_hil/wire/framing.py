"""COBS frames, CRC-32 and resynchronisation. Knows packets, not messages.

The grammar is ``protocol.md`` section 1.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Final

from espdl_hil.errors import WireError

MAGIC: Final = 0xF5
VERSION: Final = 1
MAX_LENGTH: Final = 65536  # payload bytes that a reader accepts before HELLO told max_payload

_HEADER: Final = struct.Struct("<BBBBIII")
_CRC: Final = struct.Struct("<I")
_OVERHEAD: Final = _HEADER.size + _CRC.size
_BLOCK: Final = 254  # data bytes of the longest COBS block
_CODES: Final = tuple(bytes([size + 1]) for size in range(_BLOCK + 1))


class DamageReason(Enum):
    """Why a frame was given up."""

    COBS = "cobs"
    CRC = "crc"
    LENGTH = "length"
    VERSION = "version"
    TRUNCATED = "truncated"


@dataclass(frozen=True)
class Packet:
    """One packet: a header, ``protocol.md`` section 1, and a payload not yet interpreted."""

    type: int
    session: int  # 0 only in events without a session
    seq: int
    payload: bytes
    credits: int = 0  # requests that may be unanswered; 0 from the host


@dataclass(frozen=True)
class DamagedFrame:
    """A frame of *size* raw bytes that was given up; they follow as console bytes."""

    reason: DamageReason
    size: int


Event = Packet | DamagedFrame | bytes  # bytes are the console's


def cobs_encode(data: bytes) -> bytes:
    """Encode *data* so that it holds no zero byte.

    Returns:
        ``len(data) + 1`` to ``max_encoded(len(data))`` bytes, none of them zero.
    """
    runs = data.split(b"\0")
    if max(map(len, runs)) < _BLOCK:  # quick where zeros are frequent
        return b"".join([part for run in runs for part in (_CODES[len(run)], run)])
    parts: list[bytes] = []
    last = len(runs) - 1
    for index, run in enumerate(runs):
        start = 0
        while len(run) - start >= _BLOCK:
            parts += (b"\xff", run[start : start + _BLOCK])
            start += _BLOCK
            if start == len(run) and index == last:
                return b"".join(parts)  # a full block at the very end needs no code after it
        parts += (_CODES[len(run) - start], run[start:])
    return b"".join(parts)


def cobs_decode(data: bytes) -> bytes:
    """Invert :func:`cobs_encode`; *data* is without delimiters.

    Raises:
        WireError: *data* is empty, holds a zero, or its last block is cut short.
    """
    if not data or 0 in data:
        raise WireError("COBS data is empty or holds a zero byte")
    buffer = bytearray(data)
    size = len(buffer)
    full_blocks: list[int] = []
    position = 0
    while position < size:
        code = buffer[position]
        buffer[position] = 0
        position += code
        if code == _BLOCK + 1 and position < size:
            full_blocks.append(position)
    if position != size:
        raise WireError("COBS data ends inside a block")
    for position in reversed(full_blocks):
        del buffer[position]  # a full block is not followed by a zero
    return bytes(buffer[1:])


def max_encoded(size: int) -> int:
    """Return the longest COBS encoding of *size* bytes, without delimiters."""
    return size + size // _BLOCK + 1


def encode_packet(packet: Packet) -> bytes:
    """Return *packet* as a frame, both zero bytes included."""
    body = (
        _HEADER.pack(
            MAGIC,
            VERSION,
            packet.type,
            packet.credits,
            packet.session,
            packet.seq,
            len(packet.payload),
        )
        + packet.payload
    )
    return b"\0" + cobs_encode(body + _CRC.pack(zlib.crc32(body))) + b"\0"


class Decoder:
    """Turns received bytes into packets, console bytes and damaged frames.

    Every byte fed, other than zeros, is part of a returned packet or comes out
    as console bytes, in order.

    Args:
        max_length: Largest payload accepted, bytes; may be lowered or raised at any time.

    Attributes:
        damaged: Damaged frames so far, by reason.
    """

    def __init__(self, max_length: int = MAX_LENGTH) -> None:
        self.max_length = max_length
        self.damaged: Counter[DamageReason] = Counter()
        self._candidate: bytearray | None = None  # None: outside, bytes are console
        self._limit: int | None = None  # raw bytes the candidate may have; None: header incomplete

    def feed(self, data: bytes) -> list[Event]:
        """Consume received bytes, cut anywhere.

        Returns:
            What became complete, in order: packets, damaged frames, and console
            bytes (never empty).
        """
        events: list[Event] = []
        segments = data.split(b"\0")
        for index, segment in enumerate(segments):
            if index:
                self._close(events)
            if segment:
                self._append(segment, events)
        return events

    def flush(self) -> list[Event]:
        """Give up a pending candidate: the line went silent inside a frame.

        Returns:
            Console bytes, after a damaged frame if they began like one; empty if nothing was
            pending.
        """
        events: list[Event] = []
        if self._candidate:
            self._give_up(events, DamageReason.TRUNCATED if len(self._candidate) > 1 else None)
        return events

    def _append(self, segment: bytes, events: list[Event]) -> None:
        if self._candidate is None:
            _console(events, segment)
            return
        self._candidate += segment
        raw = self._candidate
        if self._limit is None:
            if raw[0] == 1 or (len(raw) > 1 and raw[1] != MAGIC):
                self._give_up(events, None)
                return
            if len(raw) < _HEADER.size + 1:
                return
            header = _decoded_prefix(bytes(raw[: _HEADER.size + 1]))
            length = int(_HEADER.unpack(header)[6])
            if length > self.max_length:
                self._give_up(events, DamageReason.LENGTH)
                return
            self._limit = max_encoded(length + _OVERHEAD)
        if len(raw) > self._limit:
            self._give_up(events, DamageReason.LENGTH)

    def _close(self, events: list[Event]) -> None:
        raw = self._candidate
        if raw:
            result = None if len(raw) == 1 else _parse(bytes(raw))
            if isinstance(result, Packet):
                events.append(result)
            else:
                self._give_up(events, result)
        self._candidate = bytearray()
        self._limit = None

    def _give_up(self, events: list[Event], reason: DamageReason | None) -> None:
        raw = bytes(self._candidate or b"")
        if reason is not None:
            self.damaged[reason] += 1
            events.append(DamagedFrame(reason, len(raw)))
        _console(events, raw)
        self._candidate = None
        self._limit = None


def _console(events: list[Event], data: bytes) -> None:
    """Append console bytes, merged with those just before."""
    if events and isinstance(events[-1], bytes):
        events[-1] += data
    else:
        events.append(data)


def _decoded_prefix(raw: bytes) -> bytes:
    """Decode the first bytes of a COBS encoding: ``len(raw) - 1`` bytes, under one full block."""
    buffer = bytearray(raw)
    position = 0
    while position < len(buffer):
        code = buffer[position]
        buffer[position] = 0
        position += code
    return bytes(buffer[1:])


def _parse(raw: bytes) -> Packet | DamageReason:
    try:
        body = cobs_decode(raw)
    except WireError:
        return DamageReason.COBS
    if len(body) < _OVERHEAD:
        return DamageReason.TRUNCATED
    _, version, kind, granted, session, seq, length = _HEADER.unpack_from(body)
    if len(body) != length + _OVERHEAD:
        return DamageReason.TRUNCATED if len(body) < length + _OVERHEAD else DamageReason.LENGTH
    if zlib.crc32(body[: -_CRC.size]) != _CRC.unpack_from(body, len(body) - _CRC.size)[0]:
        return DamageReason.CRC
    if version != VERSION:
        return DamageReason.VERSION
    return Packet(kind, session, seq, body[_HEADER.size : -_CRC.size], granted)
