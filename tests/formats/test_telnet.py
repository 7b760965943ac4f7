"""Telnet framing, and the server's side of RFC 2217."""

from __future__ import annotations

import random
import time

import pytest

from espdl_hil.formats import telnet
from espdl_hil.formats.telnet import ComPort, Line, Negotiation, TelnetParser, TelnetServer, escape

EVERY_BYTE = bytes(range(256))
ASK_BAUD = bytes.fromhex("fffa2c0100000000fff0")
SET_BAUD = bytes.fromhex("fffa2c01000e1000fff0")  # 921600
RTS_ON, RTS_OFF = bytes.fromhex("fffa2c050bfff0"), bytes.fromhex("fffa2c050cfff0")
DTR_ON, DTR_OFF = bytes.fromhex("fffa2c0508fff0"), bytes.fromhex("fffa2c0509fff0")


@pytest.fixture
def server():
    server = TelnetServer()
    server.take_replies()
    return server


def test_the_greeting_offers_binary_and_the_com_port():
    assert TelnetServer().take_replies().hex() == "fffb00fffb01fffb03fffb2cfffd00"


def test_data_passes_in_any_cut(server):
    stream = escape(EVERY_BYTE * 20) + RTS_ON + escape(EVERY_BYTE)
    expected = [EVERY_BYTE * 20, Line("rts", True), EVERY_BYTE]
    dice = random.Random(1)
    for _ in range(50):
        server = TelnetServer()
        events, position = [], 0
        while position < len(stream):
            size = dice.randint(1, 40)
            for event in server.feed(stream[position : position + size]):
                if events and isinstance(event, bytes) and isinstance(events[-1], bytes):
                    events[-1] += event
                else:
                    events.append(event)
            position += size
        assert events == expected


def test_a_doubled_iac_inside_a_subnegotiation_is_one_byte(server):
    server.feed(bytes.fromhex("fffa2c0100ffff0000fff0"))  # 0x00ff0000
    assert server.baudrate == 0x00FF0000
    assert server.take_replies().hex() == "fffa2c6500ffff0000fff0"


def test_settings_are_acknowledged_and_remembered(server):
    assert server.feed(ASK_BAUD) == []
    assert server.take_replies().hex() == "fffa2c650001c200fff0"  # 115200
    server.feed(SET_BAUD)
    assert server.take_replies().hex() == "fffa2c65000e1000fff0"
    server.feed(ASK_BAUD)
    assert server.take_replies().hex() == "fffa2c65000e1000fff0"
    assert server.baudrate == 921600


@pytest.mark.parametrize(
    ("request_hex", "answer_hex"),
    [
        ("fffa2c0208fff0", "fffa2c6608fff0"),  # data size
        ("fffa2c0301fff0", "fffa2c6701fff0"),  # parity
        ("fffa2c0401fff0", "fffa2c6801fff0"),  # stop bits
        ("fffa2c0501fff0", "fffa2c6901fff0"),  # no flow control
        ("fffa2c0500fff0", "fffa2c6901fff0"),  # which flow control?
        ("fffa2c0507fff0", "fffa2c6909fff0"),  # DTR? off
        ("fffa2c050afff0", "fffa2c690cfff0"),  # RTS? off
        ("fffa2c0c01fff0", "fffa2c7001fff0"),  # purge
        ("fffa2c0c03fff0", "fffa2c7003fff0"),
        ("fffa2c06fff0", "fffa2c6a00fff0"),  # line state
        ("fffa2c07fff0", "fffa2c6bb0fff0"),  # modem state
        ("fffd01", ""),  # an option that is on already
        ("fffd18", "fffc18"),  # an unknown one: WONT
        ("fffb18", "fffe18"),  # DONT
        ("fffb2c", "fffd2c"),  # the client will speak RFC 2217
        ("fffe01", "fffc01"),  # DONT ECHO: WONT
        ("fff1", ""),  # NOP
        ("fffa2cfff0", ""),  # no command in it
        ("fffa18aafff0", ""),  # not the COM port
        ("fffa2c05fff0", ""),  # control without a value
    ],
)
def test_requests_and_answers(server, request_hex, answer_hex):
    assert server.feed(bytes.fromhex(request_hex)) == []
    assert server.take_replies().hex() == answer_hex


def test_lines_are_events_only_when_they_change(server):
    assert server.feed(RTS_ON + RTS_ON + DTR_ON) == [Line("rts", True), Line("dtr", True)]
    assert server.take_replies() == b"".join(
        bytes.fromhex(text) for text in ("fffa2c690bfff0", "fffa2c690bfff0", "fffa2c6908fff0")
    )
    assert server.feed(DTR_OFF + RTS_OFF) == [Line("dtr", False), Line("rts", False)]


# -- the parser alone ----------------------------------------------------------


def feed_in_pieces(stream, sizes):
    parser, events, at = TelnetParser(), [], 0
    while at < len(stream):
        size = sizes()
        events += parser.feed(stream[at : at + size])
        at += size
    return events


def join_data(events):
    joined = []
    for event in events:
        if isinstance(event, bytes) and joined and isinstance(joined[-1], bytes):
            joined[-1] += event
        else:
            joined.append(event)
    return joined


STREAM = (
    b"one"
    + telnet.escape(EVERY_BYTE)
    + bytes((telnet.IAC, telnet.WILL, telnet.OPTION_BINARY))
    + telnet.com_port(telnet.SET_BAUDRATE + telnet.ANSWER, b"\xff\xff\x00\x01")
    + bytes((telnet.IAC, 0xF1))  # no operation
    + b"two"
)
EVENTS = [
    b"one" + EVERY_BYTE,
    Negotiation(telnet.WILL, telnet.OPTION_BINARY),
    ComPort(telnet.SET_BAUDRATE + telnet.ANSWER, b"\xff\xff\x00\x01"),
    b"two",
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_the_parser_does_not_care_how_bytes_are_grouped(size):
    assert join_data(feed_in_pieces(STREAM, lambda: size)) == EVENTS


ENDLESS = bytes((telnet.IAC, telnet.SB, telnet.OPTION_COM_PORT, 105)) + b"x" * 1000


@pytest.mark.parametrize("size", [1, 3, 100, 256, 5000])
def test_an_endless_subnegotiation_is_given_up(size):
    rest = b"x" * (1000 + 2 - telnet.MAX_SUBNEGOTIATION_BYTES)
    events = feed_in_pieces(ENDLESS + RTS_ON + b"and data", lambda: size)
    on = ComPort(telnet.SET_CONTROL, bytes([telnet.CONTROL_RTS_ON]))
    assert join_data(events) == [rest, on, b"and data"]


def test_the_longest_subnegotiation_is_kept():
    value = bytes(telnet.MAX_SUBNEGOTIATION_BYTES - 2)
    longest = telnet.com_port(telnet.SIGNATURE, value)
    assert TelnetParser().feed(longest) == [ComPort(telnet.SIGNATURE, value)]


@pytest.mark.parametrize(
    "attack",
    [
        ENDLESS * 1000,
        b"\xff\xfa" * 500_000,
        b"\xff\xfa\x2c" + b"\xff" * 1_000_000,
        b"\xff\xfb" * 500_000,
        b"\xff\xfa\x2c\x05" * 250_000,
    ],
)
def test_garbage_costs_linear_time_and_no_memory(attack):
    def seconds(stream):
        parser, started = TelnetParser(), time.perf_counter()
        for at in range(0, len(stream), 4096):
            parser.feed(stream[at : at + 4096])
            assert len(parser._sub or b"") <= telnet.MAX_SUBNEGOTIATION_BYTES
        return time.perf_counter() - started

    part = attack[: len(attack) // 8]
    assert min(seconds(attack) for _ in range(2)) < 24 * min(seconds(part) for _ in range(3))


def test_garbage_never_raises_in_the_parser():
    noise = random.Random(1)
    for _ in range(300):
        stream = bytes(noise.choices([255, 255, 250, 240, 251, 44, 105, 7], k=200))
        feed_in_pieces(stream, lambda: noise.randint(1, 9))
