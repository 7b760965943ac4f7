"""Telnet framing with the COM port option (RFC 854, RFC 2217). Knows bytes, not sockets."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

IAC: Final = 0xFF  # every command starts with it; doubled, it is a data byte
DONT: Final = 0xFE
DO: Final = 0xFD
WONT: Final = 0xFC
WILL: Final = 0xFB
SB: Final = 0xFA  # a subnegotiation starts
SE: Final = 0xF0  # and ends

OPTION_BINARY: Final = 0x00
OPTION_ECHO: Final = 0x01
OPTION_SUPPRESS_GO_AHEAD: Final = 0x03
OPTION_COM_PORT: Final = 0x2C
OPTIONS: Final = frozenset(
    {OPTION_BINARY, OPTION_ECHO, OPTION_SUPPRESS_GO_AHEAD, OPTION_COM_PORT}
)  # what both sides accept

SIGNATURE: Final = 0  # commands of a client
SET_BAUDRATE: Final = 1
SET_DATASIZE: Final = 2
SET_PARITY: Final = 3
SET_STOPSIZE: Final = 4
SET_CONTROL: Final = 5
ASK_LINESTATE: Final = 6
ASK_MODEMSTATE: Final = 7
PURGE_DATA: Final = 12
ANSWER: Final = 100  # a server's answer to command n is command n + 100
NOTIFY_MODEMSTATE: Final = 107
FLOWCONTROL_SUSPEND: Final = (8, 108)  # servers disagree on which of the two they send
FLOWCONTROL_RESUME: Final = (9, 109)

CONTROL_FLOW_QUERY: Final = 0
CONTROL_NO_FLOW: Final = 1
CONTROL_XONXOFF: Final = 2
CONTROL_RTSCTS: Final = 3
CONTROL_BREAK_ON: Final = 5
CONTROL_BREAK_OFF: Final = 6
CONTROL_DTR_QUERY: Final = 7
CONTROL_DTR_ON: Final = 8
CONTROL_DTR_OFF: Final = 9
CONTROL_RTS_QUERY: Final = 10
CONTROL_RTS_ON: Final = 11
CONTROL_RTS_OFF: Final = 12

PURGE_RECEIVED: Final = 1
PURGE_TO_SEND: Final = 2

MODEM_CTS: Final = 0x10
MODEM_DSR: Final = 0x20
MODEM_RI: Final = 0x40
MODEM_CD: Final = 0x80

MAX_SUBNEGOTIATION_BYTES: Final = 256  # RFC 2217 needs 6; more is garbage that opened with IAC SB

_RUN: Final = re.compile(rb"(?:[^\xff]++|\xff\xff)++")  # data, up to a command or its first byte


@dataclass(frozen=True)
class Negotiation:
    """``IAC verb option``: the peer wants, refuses, offers or withdraws an option."""

    verb: int
    option: int


@dataclass(frozen=True)
class ComPort:
    """``IAC SB COM-PORT command value IAC SE``: a request, an answer or a notice."""

    command: int
    value: bytes


Event = bytes | Negotiation | ComPort


def escape(data: bytes) -> bytes:
    """Double every ``IAC`` so that *data* travels as data.

    >>> escape(bytes([1, 255])).hex()
    '01ffff'
    """
    return data.replace(b"\xff", b"\xff\xff")


def com_port(command: int, value: bytes) -> bytes:
    """Encode one COM port request, answer or notice.

    >>> com_port(SET_CONTROL, bytes([CONTROL_RTS_ON])).hex()
    'fffa2c050bfff0'
    """
    return bytes((IAC, SB, OPTION_COM_PORT, command)) + escape(value) + bytes((IAC, SE))


@dataclass(frozen=True)
class Line:
    """The client drives ``dtr`` or ``rts``; *asserted*, as pyserial has it, is electrically low."""

    name: str
    asserted: bool


_LINE_CHANGES: Final = {
    CONTROL_DTR_ON: Line("dtr", True),
    CONTROL_DTR_OFF: Line("dtr", False),
    CONTROL_RTS_ON: Line("rts", True),
    CONTROL_RTS_OFF: Line("rts", False),
}


class TelnetParser:
    """Splits a telnet stream into data and commands, across any packet boundaries.

    Garbage never raises: unknown commands are skipped, and a subnegotiation that does not end
    within ``MAX_SUBNEGOTIATION_BYTES`` is dropped; what follows is data. Every byte is looked at
    once, and no more than one subnegotiation is kept.
    """

    def __init__(self) -> None:
        self._after_iac = False
        self._verb: int | None = None  # WILL, WONT, DO or DONT seen, its option is due
        self._sub: bytearray | None = None  # collected since IAC SB

    def feed(self, chunk: bytes) -> list[Event]:
        """Parse the next bytes of the stream.

        Returns:
            Data runs and commands in stream order; data runs are never empty.
        """
        events: list[Event] = []
        position = 0
        while position < len(chunk):
            if self._after_iac or self._verb is not None:
                self._command_byte(chunk[position], events)
                position += 1
                continue
            run = _RUN.match(chunk, position)
            if run is not None:
                self._plain(run[0].replace(b"\xff\xff", b"\xff"), events)
                position = run.end()
            if position < len(chunk):
                self._after_iac = True
                position += 1
        return events

    def _plain(self, run: bytes, events: list[Event]) -> None:
        if self._sub is not None:
            room = MAX_SUBNEGOTIATION_BYTES - len(self._sub)
            self._sub += run[:room]
            run = run[room:]
            if not run:
                return
            self._sub = None
        events.append(run)

    def _command_byte(self, byte: int, events: list[Event]) -> None:
        if self._verb is not None:
            events.append(Negotiation(self._verb, byte))
            self._verb = None
            return
        self._after_iac = False
        if byte == IAC:
            self._plain(b"\xff", events)
        elif byte == SB:
            self._sub = bytearray()
        elif byte == SE:
            sub, self._sub = self._sub, None
            if sub is not None and len(sub) >= 2 and sub[0] == OPTION_COM_PORT:
                events.append(ComPort(sub[1], bytes(sub[2:])))
        elif byte in (WILL, WONT, DO, DONT):
            self._verb = byte


class TelnetServer:
    """The server's side for one client: what it sent, and what it must be answered.

    The port has no baud rate: every rate and framing that a client sets is
    acknowledged, and bytes arrive whatever it is.

    Args:
        signature: What the server calls itself.
    """

    def __init__(self, signature: bytes = b"") -> None:
        self._signature = signature
        self._parser = TelnetParser()
        self._settings = {
            SET_BAUDRATE: struct.pack("!I", 115200),
            SET_DATASIZE: b"\x08",
            SET_PARITY: b"\x01",
            SET_STOPSIZE: b"\x01",
        }
        self._lines = {"dtr": False, "rts": False}
        self._ours = set(OPTIONS)
        self._theirs = {OPTION_BINARY}
        self._replies = bytearray()
        for option in sorted(self._ours):
            self._replies += bytes((IAC, WILL, option))
        for option in sorted(self._theirs):
            self._replies += bytes((IAC, DO, option))

    @property
    def baudrate(self) -> int:
        """The rate that the client set last, bit/s."""
        return int.from_bytes(self._settings[SET_BAUDRATE], "big")

    def feed(self, data: bytes) -> list[bytes | Line]:
        """Take bytes from the client, cut anywhere.

        Returns:
            Data runs and line changes in the order in which they were sent.
            Answers collect for :meth:`take_replies`.
        """
        events: list[bytes | Line] = []
        for event in self._parser.feed(data):
            if isinstance(event, bytes):
                events.append(event)
            elif isinstance(event, Negotiation):
                self._negotiate(event)
            elif event.command == SET_CONTROL and len(event.value) == 1:
                events.extend(self._control(event.value[0]))
            else:
                self._answer_request(event)
        return events

    def take_replies(self) -> bytes:
        """Return the answers that are due, once."""
        replies = bytes(self._replies)
        self._replies.clear()
        return replies

    def _negotiate(self, heard: Negotiation) -> None:
        about_them = heard.verb in (WILL, WONT)
        state = self._theirs if about_them else self._ours
        yes, no = (DO, DONT) if about_them else (WILL, WONT)
        if heard.verb in (WILL, DO):
            if heard.option in state:
                return
            accepted = heard.option in OPTIONS
            if accepted:
                state.add(heard.option)
            self._replies += bytes((IAC, yes if accepted else no, heard.option))
        elif heard.option in state:
            state.discard(heard.option)
            self._replies += bytes((IAC, no, heard.option))

    def _answer_request(self, request: ComPort) -> None:
        command, value = request.command, request.value
        if command == SIGNATURE:
            self._answer(command, self._signature)
        elif command in self._settings:
            if len(value) == len(self._settings[command]) and any(value):  # zero only asks
                self._settings[command] = value
            self._answer(command, self._settings[command])
        elif command == PURGE_DATA and value:  # this server queues nothing that could be purged
            self._answer(command, value)
        elif command == ASK_LINESTATE:
            self._answer(command, b"\x00")
        elif command == ASK_MODEMSTATE:
            self._answer(command, bytes((MODEM_CD | MODEM_DSR | MODEM_CTS,)))

    def _control(self, value: int) -> list[Line]:
        if value == CONTROL_DTR_QUERY:
            value = CONTROL_DTR_ON if self._lines["dtr"] else CONTROL_DTR_OFF
        elif value == CONTROL_RTS_QUERY:
            value = CONTROL_RTS_ON if self._lines["rts"] else CONTROL_RTS_OFF
        elif value == CONTROL_FLOW_QUERY:
            value = CONTROL_NO_FLOW
        self._answer(SET_CONTROL, bytes((value,)))
        change = _LINE_CHANGES.get(value)
        if change is None or self._lines[change.name] == change.asserted:
            return []
        self._lines[change.name] = change.asserted
        return [change]

    def _answer(self, command: int, value: bytes) -> None:
        self._replies += com_port(command + ANSWER, value)
