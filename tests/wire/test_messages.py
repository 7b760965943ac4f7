"""Messages: every one round trips, and every malformed payload is refused with its name."""

from __future__ import annotations

import dataclasses
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espdl_hil.errors import WireError
from espdl_hil.wire import messages as m
from espdl_hil.wire.framing import Decoder, Packet, encode_packet

VECTORS = json.loads(Path(m.__file__).with_name("vectors.json").read_text())
MAKER = runpy.run_path(str(Path(__file__).with_name("make_vectors.py")))
MESSAGES: dict[str, m.Message] = MAKER["MESSAGES"]


def by_name(vectors: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in vectors]


@pytest.mark.parametrize("vector", by_name(VECTORS["messages"]))
def test_message_vector(vector: dict[str, Any]) -> None:
    message = MESSAGES[vector["name"]]
    frame = bytes.fromhex(vector["frame"])
    assert MAKER["to_json"](message) == vector["fields"]
    encoded = m.encode(
        message, session=vector["session"], seq=vector["seq"], granted=vector["credits"]
    )
    assert encoded == frame
    (packet,) = Decoder().feed(frame)
    assert isinstance(packet, Packet)
    assert (packet.type, packet.session, packet.seq, packet.credits) == (
        vector["type"],
        vector["session"],
        vector["seq"],
        vector["credits"],
    )
    assert m.decode(packet) == message


@pytest.mark.parametrize("vector", by_name(VECTORS["streams"]))
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_stream_vector(vector: dict[str, Any], step: int) -> None:
    data = bytes.fromhex(vector["bytes"])
    decoder = Decoder(max_length=vector["max_length"])
    events = [e for at in range(0, len(data), step) for e in decoder.feed(data[at : at + step])]
    events += decoder.flush()
    assert [
        {"type": e.type, "seq": e.seq, "payload": e.payload.hex()}
        for e in events
        if isinstance(e, Packet)
    ] == vector["packets"]
    faults = [e.reason.value for e in events if not isinstance(e, (Packet, bytes))]
    assert faults == vector["faults"]
    assert b"".join(e for e in events if isinstance(e, bytes)).hex() == vector["console"]


def test_vectors_are_what_their_maker_writes(tmp_path: Path) -> None:
    fresh = tmp_path / "vectors.json"
    MAKER["main"].__globals__["VECTORS"] = fresh
    MAKER["main"]()
    assert json.loads(fresh.read_text()) == VECTORS


def test_vectors_cover_every_message_and_fault() -> None:
    covered = {vector["message"] for vector in VECTORS["messages"]}
    assert covered == {cls.__name__ for cls, _ in m._CLASSES.values()}
    faults = {fault for vector in VECTORS["streams"] for fault in vector["faults"]}
    assert faults == {"cobs", "crc", "length", "version", "truncated"}


def test_requests_and_replies_pair_up() -> None:
    requests = {kind for kind in m._CLASSES if not kind & m.REPLY}
    assert requests == set(range(0x01, 0x14))
    for kind in requests:
        request, reply = m._CLASSES[kind][0], m._CLASSES[kind | m.REPLY][0]
        assert reply.__name__ == f"{request.__name__}Reply"


def packet_of(message: m.Message) -> Packet:
    return Packet(message.TYPE, 1, 1, m.encode_payload(message))


@pytest.mark.parametrize("message", MESSAGES.values(), ids=list(MESSAGES))
def test_every_shortened_payload_is_refused(message: m.Message) -> None:
    packet = packet_of(message)
    name = type(message).__name__
    ends_with_data = any(field.name == "data" for field in dataclasses.fields(message))
    fixed = len(packet.payload) - (len(message.data) if ends_with_data else 0)  # type: ignore[attr-defined]
    for size in range(fixed):
        with pytest.raises(WireError, match=f"^{name}: payload of {size} bytes ends early"):
            m.decode(dataclasses.replace(packet, payload=packet.payload[:size]))


@pytest.mark.parametrize("message", MESSAGES.values(), ids=list(MESSAGES))
def test_every_lengthened_payload_is_refused(message: m.Message) -> None:
    packet = packet_of(message)
    longer = dataclasses.replace(packet, payload=packet.payload + b"\0")
    if any(field.name == "data" for field in dataclasses.fields(message)):
        assert m.decode(longer) != message
    else:
        name = type(message).__name__
        with pytest.raises(WireError, match=f"^{name}: 1 bytes left over after the last field$"):
            m.decode(longer)


def test_unknown_type_is_refused() -> None:
    with pytest.raises(WireError, match=r"^unknown message type 0x3F$"):
        m.decode(Packet(0x3F, 1, 1, b""))


@pytest.mark.parametrize(
    "message",
    [
        m.Reset(2**32),
        m.Reset(-1),
        m.Booted(2**64),
        m.UploadBegin(1, b"short", "x"),
        m.Load("x" * 65536),
    ],
)
def test_values_that_do_not_fit_are_refused(message: m.Message) -> None:
    with pytest.raises(WireError, match="field"):
        m.encode(message, session=1, seq=1)


def test_bad_utf8_is_refused() -> None:
    with pytest.raises(WireError, match=r"^string field is not UTF-8"):
        m.decode(Packet(m.Load.TYPE, 1, 1, b"\x01\x00\xff"))


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nb", "\x00", "\u202e"])
def test_control_characters_are_refused(name: str) -> None:
    with pytest.raises(WireError, match=r"^string field holds control characters"):
        m.decode(Packet(m.Load.TYPE, 1, 1, m.encode_payload(m.Load(name))))


@given(
    st.lists(
        st.builds(
            m.WireTensor,
            name=st.text(max_size=20).filter(str.isprintable),
            dtype=st.integers(0, 255),
            exponent=st.integers(-(2**15), 2**15 - 1),
            flags=st.integers(0, 2**16 - 1),
            bytes=st.integers(0, 2**32 - 1),
            dims=st.lists(st.integers(0, 2**32 - 1), max_size=8).map(tuple),
        ),
        max_size=5,
    ).map(tuple)
)
def test_lists_round_trip(tensors: tuple[m.WireTensor, ...]) -> None:
    message = m.DescribeReply(1, 2, len(tensors), 0, tensors)
    (packet,) = Decoder().feed(encode_packet(packet_of(message)))
    assert isinstance(packet, Packet)
    assert m.decode(packet) == message


@given(st.sampled_from(sorted(m._CLASSES)), st.binary(max_size=120))
def test_any_payload_decodes_to_itself_or_is_refused(kind: int, payload: bytes) -> None:
    try:
        message = m.decode(Packet(kind, 1, 1, payload))
    except WireError:
        return
    assert m.encode_payload(message) == payload
