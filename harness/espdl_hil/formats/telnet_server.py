"""Telnet and RFC 2217, server side. Knows bytes, not sockets and not chips."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

DONT, DO, WONT, WILL = b"\xfe", b"\xfd", b"\xfc", b"\xfb"
BINARY, ECHO, SUPPRESS_GO_AHEAD, COM_PORT = b"\x00", b"\x01", b"\x03", b"\x2c"
SUPPORTED = frozenset((BINARY, ECHO, SUPPRESS_GO_AHEAD, COM_PORT))

# Client commands of RFC 2217; the server answers command n with n + 100.
SIGNATURE, SET_BAUDRATE, SET_DATASIZE, SET_PARITY, SET_STOPSIZE, SET_CONTROL = range(6)
NOTIFY_LINESTATE, NOTIFY_MODEMSTATE = 6, 7
PURGE_DATA = 12
ANSWER = 100

CONTROL_DTR_QUERY, CONTROL_DTR_ON, CONTROL_DTR_OFF = 7, 8, 9
CONTROL_RTS_QUERY, CONTROL_RTS_ON, CONTROL_RTS_OFF = 10, 11, 12
CONTROL_FLOW_QUERY, CONTROL_FLOW_NONE = 0, 1
MODEM_READY = 0xB0  # carrier detect, data set ready, clear to send

MAX_PENDING_BYTES = 256  # the longest real subnegotiation has 10; more is garbage

# One token: a run of data, a negotiation, a subnegotiation or another command.
_TOKEN = re.compile(
    rb"(?P<data>(?:[^\xff]++|\xff\xff)++)"
    rb"|\xff(?P<verb>[\xfb-\xfe])(?P<option>.)"
    rb"|\xff\xfa(?P<sub>(?:[^\xff]++|\xff\xff)*+)\xff\xf0"
    rb"|\xff[\xf1-\xf9]",
    re.DOTALL,
)


@dataclass(frozen=True)
class Line:
    """The client drives a modem line; ``asserted`` as pyserial means it.

    Attributes:
        name: ``dtr`` or ``rts``.
        asserted: True is electrically low.
    """

    name: str
    asserted: bool


Event = bytes | Line


class TelnetServer:
    """One client's telnet state: what it sent, and what it must be answered.

    The port has no baud rate: every rate and framing that a client sets is
    acknowledged, and bytes arrive whatever it is.
    """

    def __init__(self) -> None:
        self._pending = b""
        self._settings = {
            SET_BAUDRATE: struct.pack("!I", 115200),
            SET_DATASIZE: b"\x08",
            SET_PARITY: b"\x01",
            SET_STOPSIZE: b"\x01",
        }
        self._lines = {"dtr": False, "rts": False}
        self._ours: set[bytes] = {ECHO, SUPPRESS_GO_AHEAD, BINARY, COM_PORT}
        self._theirs: set[bytes] = {BINARY}
        self._replies = bytearray()
        for option in sorted(self._ours):
            self._replies += b"\xff" + WILL + option
        for option in sorted(self._theirs):
            self._replies += b"\xff" + DO + option

    @property
    def baudrate(self) -> int:
        """The rate that the client set last, bit/s."""
        rate: int = struct.unpack("!I", self._settings[SET_BAUDRATE])[0]
        return rate

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes from the client.

        Args:
            data: As received, cut anywhere.

        Returns:
            Data runs and line changes in the order in which they were sent.
            Answers collect for :meth:`take_replies`.
        """
        events: list[Event] = []
        stream = self._pending + data
        position = 0
        while position < len(stream):
            token = _TOKEN.match(stream, position)
            if token is None:  # an incomplete command, or garbage that never completes
                if len(stream) - position <= MAX_PENDING_BYTES:
                    break
                position += 1
                continue
            position = token.end()
            if token["data"] is not None:
                events.append(token["data"].replace(b"\xff\xff", b"\xff"))
            elif token["verb"] is not None:
                self._negotiate(token["verb"], token["option"])
            elif token["sub"] is not None:
                events.extend(self._subnegotiate(token["sub"].replace(b"\xff\xff", b"\xff")))
        self._pending = stream[position:]
        return events

    def take_replies(self) -> bytes:
        """Return the answers that are due, once."""
        replies = bytes(self._replies)
        self._replies.clear()
        return replies

    def _negotiate(self, verb: bytes, option: bytes) -> None:
        enable = verb in (WILL, DO)
        state = self._theirs if verb in (WILL, WONT) else self._ours
        yes, no = (DO, DONT) if verb in (WILL, WONT) else (WILL, WONT)
        if not enable:
            if option in state:
                state.discard(option)
                self._replies += b"\xff" + no + option
        elif option not in SUPPORTED:
            self._replies += b"\xff" + no + option
        elif option not in state:
            state.add(option)
            self._replies += b"\xff" + yes + option

    def _subnegotiate(self, body: bytes) -> list[Event]:
        if body[:1] != COM_PORT or len(body) < 2:
            return []
        command, value = body[1], body[2:]
        if command == SIGNATURE:
            self._answer(command, b"espdl-hil simulated devkit")
        elif command in self._settings:
            if len(value) == len(self._settings[command]) and any(value):  # zero only asks
                self._settings[command] = value
            self._answer(command, self._settings[command])
        elif command == SET_CONTROL and len(value) == 1:
            return self._control(value[0])
        elif command == PURGE_DATA and value:  # this server queues nothing that could be purged
            self._answer(command, value)
        elif command == NOTIFY_LINESTATE:
            self._answer(command, b"\x00")
        elif command == NOTIFY_MODEMSTATE:
            self._answer(command, bytes((MODEM_READY,)))
        return []

    def _control(self, value: int) -> list[Event]:
        changes = {
            CONTROL_DTR_ON: Line("dtr", True),
            CONTROL_DTR_OFF: Line("dtr", False),
            CONTROL_RTS_ON: Line("rts", True),
            CONTROL_RTS_OFF: Line("rts", False),
        }
        if value == CONTROL_DTR_QUERY:
            value = CONTROL_DTR_ON if self._lines["dtr"] else CONTROL_DTR_OFF
        elif value == CONTROL_RTS_QUERY:
            value = CONTROL_RTS_ON if self._lines["rts"] else CONTROL_RTS_OFF
        elif value == CONTROL_FLOW_QUERY:
            value = CONTROL_FLOW_NONE
        self._answer(SET_CONTROL, bytes((value,)))
        change = changes.get(value)
        if change is None or self._lines[change.name] == change.asserted:
            return []
        self._lines[change.name] = change.asserted
        return [change]

    def _answer(self, command: int, value: bytes) -> None:
        body = escape(bytes((command + ANSWER,)) + value)
        self._replies += b"\xff\xfa" + COM_PORT + body + b"\xff\xf0"


def escape(data: bytes) -> bytes:
    r"""Double every ``IAC`` byte, as telnet data must be.

    >>> escape(b"a\xffb")
    b'a\xff\xffb'
    """
    return data.replace(b"\xff", b"\xff\xff")
