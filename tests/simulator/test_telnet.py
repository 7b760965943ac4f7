"""The server's half of telnet and RFC 2217."""

from __future__ import annotations

import random

import pytest

from espdl_hil.formats.telnet_server import Line, TelnetServer, escape

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


def test_a_command_that_never_ends_does_not_hold_the_stream(server):
    events = server.feed(b"\xff\xfa" + b"x" * 300)
    assert b"".join(event for event in events if isinstance(event, bytes)).endswith(b"x" * 290)
