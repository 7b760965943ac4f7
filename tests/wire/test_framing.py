"""COBS, frames and resynchronisation, each with the damage that must be noticed."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espdl_hil.errors import WireError
from espdl_hil.wire.framing import (
    MAX_LENGTH,
    DamagedFrame,
    DamageReason,
    Decoder,
    Event,
    Packet,
    cobs_decode,
    cobs_encode,
    encode_packet,
    max_encoded,
)

PACKET = Packet(type=0x0C, session=0xDEADBEEF, seq=7, payload=b"\0data\0", credits=3)
FRAME = encode_packet(PACKET)

packets = st.builds(
    Packet,
    type=st.integers(0, 255),
    session=st.integers(0, 2**32 - 1),
    seq=st.integers(0, 2**32 - 1),
    payload=st.binary(max_size=600),
    credits=st.integers(0, 255),
)
text = st.binary(max_size=80).map(lambda data: data.replace(b"\0", b"?"))


def console_of(events: list[Event]) -> bytes:
    return b"".join(event for event in events if isinstance(event, bytes))


def packets_of(events: list[Event]) -> list[Packet]:
    return [event for event in events if isinstance(event, Packet)]


@pytest.mark.parametrize(
    ("data", "encoded"),
    [
        (b"", b"\x01"),
        (b"\0", b"\x01\x01"),
        (b"\0\0", b"\x01\x01\x01"),
        (b"\x11\x22\0\x33", b"\x03\x11\x22\x02\x33"),
        (b"\x11\0\0\0", b"\x02\x11\x01\x01\x01"),
        (b"\x01" * 254, b"\xff" + b"\x01" * 254),
        (b"\0" + b"\x01" * 254, b"\x01\xff" + b"\x01" * 254),
        (b"\x01" * 255, b"\xff" + b"\x01" * 254 + b"\x02\x01"),
        (b"\x01" * 254 + b"\0", b"\xff" + b"\x01" * 254 + b"\x01\x01"),
        (b"\x01" * 253 + b"\0\x02", b"\xfe" + b"\x01" * 253 + b"\x02\x02"),
    ],
)
def test_cobs_known_encodings(data: bytes, encoded: bytes) -> None:
    assert cobs_encode(data) == encoded
    assert cobs_decode(encoded) == data


@given(
    st.one_of(st.binary(max_size=1100), st.lists(st.sampled_from([0, 1]), max_size=900).map(bytes))
)
def test_cobs_round_trip(data: bytes) -> None:
    encoded = cobs_encode(data)
    assert 0 not in encoded
    assert len(data) < len(encoded) <= max_encoded(len(data))
    assert cobs_decode(encoded) == data


@pytest.mark.parametrize("encoded", [b"", b"\x02", b"\x03\x01", b"\x02\0", b"\x01\xff\x01"])
def test_cobs_refuses_what_is_no_encoding(encoded: bytes) -> None:
    with pytest.raises(WireError, match=r"^COBS data (is empty or holds a zero|ends inside)"):
        cobs_decode(encoded)


def test_frame_layout_by_hand() -> None:
    frame = encode_packet(Packet(type=0x01, session=0x04030201, seq=0x08070605, payload=b""))
    # magic, version, type, credits | session | seq | length | crc; only credits and length are zero
    assert frame.hex(" ") == (
        "00 04 f5 01 01 09 01 02 03 04 05 06 07 08 01 01 01 05 " + frame[-5:-1].hex(" ") + " 00"
    )
    crc = int.from_bytes(frame[-5:-1], "little")
    assert crc == bitwise_crc32(bytes.fromhex("f5010100 01020304 05060708 00000000"))


def bitwise_crc32(data: bytes) -> int:
    """CRC-32 from its definition, so that the codec is not its own judge."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xEDB88320 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_bitwise_crc32_is_the_standard_one() -> None:
    assert bitwise_crc32(b"123456789") == 0xCBF43926


@given(packets)
def test_packet_round_trip(packet: Packet) -> None:
    assert Decoder().feed(encode_packet(packet)) == [packet]


@given(st.lists(st.one_of(packets, text), max_size=8), st.data())
def test_any_mix_of_text_and_packets_cut_anywhere(
    items: list[Packet | bytes], data: st.DataObject
) -> None:
    stream = b"".join(item if isinstance(item, bytes) else encode_packet(item) for item in items)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    decoder = Decoder()
    events: list[Event] = []
    for start, end in itertools.pairwise([0, *cuts, len(stream)]):
        events += decoder.feed(stream[start:end])
    events += decoder.flush()
    assert packets_of(events) == [item for item in items if isinstance(item, Packet)]
    # Text that looks like the start of a frame may be a fault, yet none of it is lost.
    assert console_of(events) == b"".join(item for item in items if isinstance(item, bytes))


@given(st.binary(max_size=400))
def test_nothing_is_lost_of_any_bytes(data: bytes) -> None:
    decoder = Decoder()
    events = decoder.feed(data) + decoder.flush()
    assert console_of(events) == data.replace(b"\0", b"")


def test_every_flipped_bit_is_noticed() -> None:
    for position in range(1, len(FRAME) - 1):
        for bit in range(8):
            damaged = bytearray(FRAME)
            damaged[position] ^= 1 << bit
            decoder = Decoder()
            events = decoder.feed(bytes(damaged) + FRAME) + decoder.flush()
            assert packets_of(events) == [PACKET], (position, bit)
            assert console_of(events) == bytes(damaged).replace(b"\0", b"")
            # Only damage to the magic (or the code before it) makes it plain console text.
            assert position <= 2 or sum(decoder.damaged.values()) >= 1, (position, bit)


def test_undamaged_frame_is_no_fault() -> None:
    decoder = Decoder()
    assert decoder.feed(FRAME) == [PACKET]
    assert not decoder.damaged


@pytest.mark.parametrize("cut", range(1, len(FRAME)))
def test_resynchronises_after_a_reset_anywhere_in_a_frame(cut: int) -> None:
    decoder = Decoder()
    boot = b"ESP-ROM:esp32s3-20210327\r\nrst:0x1 (POWERON)\r\n"
    events = decoder.feed(FRAME[:cut] + boot + FRAME + b"I (30) app: up\n") + decoder.flush()
    assert packets_of(events) == [PACKET]
    assert boot in console_of(events)
    assert console_of(events).endswith(b"I (30) app: up\n")


@pytest.mark.parametrize("lost", range(len(FRAME)))
def test_resynchronises_after_a_lost_byte(lost: int) -> None:
    decoder = Decoder()
    events = decoder.feed(FRAME[:lost] + FRAME[lost + 1 :] + b"log\n" + FRAME + FRAME)
    assert packets_of(events)[-1:] == [PACKET]
    assert packets_of(events)[:-1] in ([PACKET], [PACKET] * 2)  # a lost outer zero harms nothing
    assert b"log\n" in console_of(events)


def test_text_is_not_held_back() -> None:
    decoder = Decoder()
    assert decoder.feed(FRAME) == [PACKET]
    assert decoder.feed(b"E") == []  # could still be a COBS code
    assert decoder.feed(b" (") == [b"E ("]
    assert decoder.feed(b"4") == [b"4"]


def test_a_frame_that_never_ends_is_given_up_at_its_announced_length() -> None:
    decoder = Decoder()
    endless = FRAME[:-1] + b"x" * 100
    events = [event for byte in endless for event in decoder.feed(bytes([byte]))]
    assert decoder.damaged == {DamageReason.LENGTH: 1}
    assert console_of(events) == endless[1:]


def test_flush_gives_up_a_silent_frame() -> None:
    decoder = Decoder()
    assert decoder.feed(FRAME[:9]) == []
    assert decoder.flush() == [DamagedFrame(DamageReason.TRUNCATED, 8), FRAME[1:9]]
    assert decoder.flush() == []


def test_limit_refuses_and_admits() -> None:
    frame = encode_packet(Packet(1, 1, 1, bytes(100)))
    assert len(packets_of(Decoder(max_length=100).feed(frame))) == 1
    strict = Decoder(max_length=99)
    assert packets_of(strict.feed(frame)) == []
    assert strict.damaged == {DamageReason.LENGTH: 1}


def test_default_limit_holds_the_largest_payload() -> None:
    packet = Packet(5, 1, 1, random.Random(0).randbytes(MAX_LENGTH))
    assert Decoder().feed(encode_packet(packet)) == [packet]
