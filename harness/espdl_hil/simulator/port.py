"""The devkit's serial port as an RFC 2217 server. Knows sockets, modem lines and EN; not chips.

Everything runs on the one thread that calls :meth:`SerialPort.read` and
:meth:`SerialPort.write`: there is no queue between the client's socket and the
chip, and no time-out but the caller's own.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from typing import NoReturn

from espdl_hil.errors import ConfigError
from espdl_hil.formats.telnet import Line, TelnetServer, escape
from espdl_hil.simulator.line import (
    BITS_PER_BYTE,
    FIFO_BYTES,
    FIFO_FULL_BYTES,
    MAX_BAUD,
    ChipClock,
    Lane,
    garbled,
)

HOST = "127.0.0.1"
RECEIVE_BYTES = 1 << 16
MAX_UNREAD_BYTES = 1 << 20  # what comes then is lost, as on a UART
MAX_UNSENT_ANSWERS_BYTES = 1 << 16  # of a client that asks and does not read
SIGNATURE = b"espdl-hil simulated devkit"
AT_ONCE_S = 0.0005  # a wait for bytes that ends so soon found them there


class EnableLow(Exception):  # noqa: N818 - an event that unwinds the chip, not an error
    """EN went low: whatever the chip was doing has ended."""


class PowerOff(Exception):  # noqa: N818 - an event that unwinds the chip, not an error
    """The devkit is being closed."""


class SerialPort:
    """One serial port, for one client at a time.

    EN follows the usual two-transistor circuit with its capacitor: asserting
    RTS while DTR is not asserted pulls EN low, whatever DTR does then keeps it
    low, and releasing RTS lets it rise; IO0 is low while DTR is asserted. A
    client that leaves releases both lines.

    Bytes for a client that is not there are lost, as on a UART. A second
    client waits in the listen queue until the first has left.

    A port that is *paced* has a line: bytes take their time on it, and are garbled unless both ends
    have the same rate. The client's bytes start as early as they can have been sent: while the chip
    computes nobody looks, so that is when it looked last.

    Whatever waits raises EnableLow when EN goes low meanwhile, and PowerOff when the devkit is
    being closed.

    Args:
        port: TCP port on 127.0.0.1; 0 takes a free one.
        paced: Let bytes take the time that they take on a UART.

    Raises:
        ConfigError: The TCP port is taken.
    """

    def __init__(self, port: int = 0, *, paced: bool = False) -> None:
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind((HOST, port))
        except OSError as error:
            self._listener.close()
            raise ConfigError(
                f"cannot serve a simulated devkit on {HOST}:{port}: {error.strerror}",
                hint="choose another --port, or leave it out to take a free one",
            ) from None
        self._listener.listen(4)
        self._listener.setblocking(False)
        self.number: int = self._listener.getsockname()[1]
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_in, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._client: socket.socket | None = None
        self._telnet = TelnetServer(SIGNATURE)
        self._received = bytearray()
        self._paced = paced
        self._baud: int | None = None  # of the chip's end; None is the client's
        self._to_chip, self._to_client = Lane(), Lane()
        self._looked_s = 0.0  # when all that had been sent was here
        self._clock = ChipClock()
        self._unsent = bytearray()
        self._lines = {"dtr": False, "rts": False}
        self._off = False
        self._boot_pin_low = False  # IO0 when EN rose last
        self.enable_low = False  # EN is held low

    def power_off(self) -> None:
        """Make the chip's thread leave with :class:`PowerOff`; from any thread."""
        self._off = True
        self._wake_out.send(b"\x00")

    def close(self) -> None:
        """Free the TCP port and drop the client; the chip's thread has ended."""
        self.hang_up()
        self._selector.close()
        for endpoint in (self._listener, self._wake_in, self._wake_out):
            _hang_up(endpoint)

    def read(self, timeout_s: float | None) -> bytes:
        """Wait for bytes from the client.

        Args:
            timeout_s: Seconds to wait at most; None waits for ever, 0 only looks.

        Returns:
            All bytes that have come; empty after *timeout_s*. What comes before EN goes low, and
            while it stays low, is lost.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self._pump(self._until_due(_remaining(deadline)))
            if data := self._arrived():
                return data
            if deadline is not None and time.monotonic() >= deadline:
                return b""

    def write(self, data: bytes) -> None:
        """Send bytes to the client, if there is one; waits while it does not take them."""
        if self._client is None:
            return
        if self._paced:
            baud = self._baud or self._telnet.baudrate
            self._to_client.put(len(data), baud, self._clock.now_s())
            self.idle(self._to_client.left_s() - FIFO_BYTES * BITS_PER_BYTE / baud)
            data = self._on_the_line(data)
        self._unsent += escape(data)
        self._flush()
        while self._unsent:
            self._pump(None)

    def pulse(self) -> None:
        """Say that the chip is there, while its thread is busy elsewhere; from any thread then."""
        self._unsent += b"\0"
        self._flush()

    @property
    def max_baud(self) -> int:
        """The highest rate of the chip's end; 0 for a port without pace, which has none."""
        return MAX_BAUD if self._paced else 0

    @property
    def client_baud(self) -> int:
        """The rate of the client's end."""
        return self._telnet.baudrate

    def forget_baud(self) -> None:
        """Let the chip's end take the client's rate, as a ROM loader does."""
        self._baud = None

    def set_baud(self, baud: int) -> None:
        """Give the chip's end a rate, once all is sent."""
        self.idle(self._to_client.left_s())
        self._baud = baud

    def idle(self, seconds: float) -> None:
        """Let time pass; bytes that come meanwhile wait for :meth:`read`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._pump(_remaining(deadline))

    def halt(self) -> NoReturn:
        """Do nothing until a reset; bytes that come are lost."""
        while True:
            self.read(None)

    def hang_up(self) -> None:
        """Drop the client, so that it does not wait for a chip that is gone."""
        if self._client is not None:
            self._selector.unregister(self._client)
            _hang_up(self._client)
            self._client = None
            self._unsent.clear()

    def wait_enable_high(self) -> bool:
        """Wait until EN is high; True when IO0 was low as it rose: the chip's download mode."""
        while self.enable_low:
            self._pump(None)
        return self._boot_pin_low

    def _pump(self, timeout_s: float | None) -> None:
        """Handle what the sockets have, waiting up to *timeout_s* for something."""
        if self._off:
            raise PowerOff
        before_s = time.monotonic()
        ready = self._selector.select(timeout_s)
        now_s = time.monotonic()
        if timeout_s != 0 and (now_s - before_s > AT_ONCE_S or not ready):
            self._looked_s = now_s
            self._clock.set(now_s if timeout_s is None else min(now_s, before_s + timeout_s))
        for key, _ in ready:
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is self._client:
                self._serve_client()
        self._looked_s = now_s
        if self._off:
            raise PowerOff

    def _arrived(self) -> bytes:
        """Take what has come over the line, as soon as the UART says so."""
        on_line = self._to_chip.left_bytes(self._telnet.baudrate) if self._paced else 0
        size = len(self._received) - on_line
        if on_line and size < FIFO_FULL_BYTES:
            return b""
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def _until_due(self, timeout_s: float | None) -> float | None:
        """Limit a wait to when the UART next says that bytes have come."""
        if not self._received or not self._paced:
            return timeout_s
        baud, left_s = self._telnet.baudrate, self._to_chip.left_s()
        behind = len(self._received) - FIFO_FULL_BYTES  # come after it is full
        due_s = max(0.0, left_s - max(0, behind) * BITS_PER_BYTE / baud)
        return due_s if timeout_s is None else min(due_s, timeout_s)

    def _on_the_line(self, data: bytes) -> bytes:
        return data if self._baud in (None, self._telnet.baudrate) else garbled(data)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:  # it left while it waited
            return
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client = client
        self._telnet = TelnetServer(SIGNATURE)
        self._selector.unregister(self._listener)
        self._selector.register(client, selectors.EVENT_READ)
        self._unsent += self._telnet.take_replies()
        self._flush()

    def _serve_client(self) -> None:
        assert self._client is not None
        try:
            data = self._client.recv(RECEIVE_BYTES)
        except BlockingIOError:  # only writable
            self._flush()
            return
        except OSError:
            data = b""
        if not data:
            self._lose_client()
            return
        went_low = False
        for event in self._telnet.feed(data):
            if isinstance(event, Line):
                went_low |= self._drive(event)
            else:
                event = event[: MAX_UNREAD_BYTES - len(self._received)]
                if self._paced:
                    self._to_chip.put(len(event), self._telnet.baudrate, self._looked_s)
                    event = self._on_the_line(event)
                self._received += event
        replies = self._telnet.take_replies()
        self._unsent += replies
        self._flush()
        if replies and len(self._unsent) > MAX_UNSENT_ANSWERS_BYTES:
            self._lose_client()
        if went_low:
            raise EnableLow

    def _lose_client(self) -> None:
        """The client is gone: its lines are released and the next may come."""
        self.hang_up()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._drive(Line("rts", False))
        self._drive(Line("dtr", False))

    def _drive(self, line: Line) -> bool:
        """Apply a line change; True when it took EN low."""
        self._lines[line.name] = line.asserted
        if self.enable_low and not self._lines["rts"]:
            self.enable_low = False
            self._boot_pin_low = self._lines["dtr"]
            self._received.clear()
            self._to_chip = Lane()
        elif self._lines["rts"] and not self._lines["dtr"] and not self.enable_low:
            self.enable_low = True
            return True
        return False

    def _flush(self) -> None:
        if self._client is None:
            self._unsent.clear()
            return
        try:
            while self._unsent:
                del self._unsent[: self._client.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # the client left; reading will say so
            self._unsent.clear()
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        if self._selector.get_key(self._client).events != wanted:
            self._selector.modify(self._client, wanted)


def _hang_up(endpoint: socket.socket) -> None:
    """Close a socket for everyone, children that were forked with a copy included."""
    with contextlib.suppress(OSError):
        endpoint.shutdown(socket.SHUT_RDWR)
    endpoint.close()


def _remaining(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
