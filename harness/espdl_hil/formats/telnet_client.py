"""Telnet framing with the COM port option (RFC 854, RFC 2217). Knows bytes, not sockets."""

from __future__ import annotations

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

SET_BAUDRATE: Final = 1
SET_DATASIZE: Final = 2
SET_PARITY: Final = 3
SET_STOPSIZE: Final = 4
SET_CONTROL: Final = 5
PURGE_DATA: Final = 12
ANSWER: Final = 100  # a server's answer to command n is command n + 100
NOTIFY_LINESTATE: Final = 106
NOTIFY_MODEMSTATE: Final = 107
FLOWCONTROL_SUSPEND: Final = (8, 108)  # servers disagree on which of the two they send
FLOWCONTROL_RESUME: Final = (9, 109)

CONTROL_NO_FLOW: Final = 1
CONTROL_XONXOFF: Final = 2
CONTROL_RTSCTS: Final = 3
CONTROL_BREAK_ON: Final = 5
CONTROL_BREAK_OFF: Final = 6
CONTROL_DTR_ON: Final = 8
CONTROL_DTR_OFF: Final = 9
CONTROL_RTS_ON: Final = 11
CONTROL_RTS_OFF: Final = 12

PURGE_RECEIVED: Final = 1
PURGE_TO_SEND: Final = 2

MODEM_CTS: Final = 0x10
MODEM_DSR: Final = 0x20
MODEM_RI: Final = 0x40
MODEM_CD: Final = 0x80

MAX_SUBNEGOTIATION_BYTES: Final = 256  # RFC 2217 needs 6; more is garbage that opened with IAC SB


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
    """Encode one COM port request.

    >>> com_port(SET_CONTROL, bytes([CONTROL_RTS_ON])).hex()
    'fffa2c050bfff0'
    """
    return bytes((IAC, SB, OPTION_COM_PORT, command)) + escape(value) + bytes((IAC, SE))


class TelnetParser:
    """Splits a telnet stream into data and commands, across any packet boundaries.

    Garbage never raises: unknown commands are skipped, and a subnegotiation
    that does not end within ``MAX_SUBNEGOTIATION_BYTES`` is given up.
    """

    def __init__(self) -> None:
        self._after_iac = False
        self._verb: int | None = None  # WILL, WONT, DO or DONT seen, its option is due
        self._sub: bytearray | None = None  # collected since IAC SB

    def feed(self, chunk: bytes) -> list[Event]:
        """Parse the next bytes of the stream.

        Args:
            chunk: Bytes as received, any length.

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
            mark = chunk.find(IAC, position)
            end = len(chunk) if mark < 0 else mark
            self._plain(chunk[position:end], events)
            position = end
            if mark >= 0:
                self._after_iac = True
                position += 1
        return events

    def _plain(self, run: bytes, events: list[Event]) -> None:
        if not run:
            return
        if self._sub is None:
            events.append(run)
        else:
            self._sub += run
            if len(self._sub) > MAX_SUBNEGOTIATION_BYTES:
                self._sub = None

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
