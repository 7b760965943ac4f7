"""One RFC 2217 connection: socket, reader thread and the waits on what it receives."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import Counter
from typing import Final

from serial import SerialException, SerialTimeoutException

from espdl_hil.formats import telnet
from espdl_hil.formats.telnet import ComPort, Event, Negotiation

CONNECT_TIMEOUT_S: Final = 5.0
OPTIONAL_ANSWER_S: Final = 1.0  # how long a server may take until it counts as one that is silent
CLOSE_TIMEOUT_S: Final = 5.0
RECEIVE_BYTES: Final = 65536
MAX_UNREAD_BYTES: Final = 4 << 20  # what comes then is lost, as on a UART; answers still count

_REQUESTED_AT_OPEN = (
    telnet.OPTION_COM_PORT,
    telnet.OPTION_BINARY,
    telnet.OPTION_SUPPRESS_GO_AHEAD,
)
_CONTROL_FEATURES = frozenset({"flow control", "break", "lines"})
_VERB_ANSWERS = {
    telnet.DO: (telnet.WILL, telnet.WONT),
    telnet.WILL: (telnet.DO, telnet.DONT),
}  # what the peer said: (our yes, our no)


class Link:
    """A connected and negotiated RFC 2217 client.

    Owns the socket and one reader thread until :meth:`close`. Any thread may
    call any method; requests are made one at a time.

    Args:
        host: Host name or address of the server.
        port: TCP port.
        answer_timeout_s: How long the server may take for an answer that it owes.
        ignore_controls: Never wait for answers to control requests.

    Raises:
        SerialException: No connection, or the server does not speak RFC 2217.
    """

    def __init__(
        self, host: str, port: int, answer_timeout_s: float, *, ignore_controls: bool = False
    ) -> None:
        self._peer = f"{host}:{port}"
        self._answer_timeout_s = answer_timeout_s
        self._ignored = _CONTROL_FEATURES if ignore_controls else frozenset()
        self._parser = telnet.TelnetParser()
        self._changed = threading.Condition()  # guards everything below, down to the blank line
        self._received = bytearray()
        self._answers: Counter[int] = Counter()  # answers so far, by command
        self._last_answer: dict[int, bytes] = {}
        self._clear_on_purge = False  # the next purge answer empties the received bytes
        self._silent: set[str] = set()  # optional features that went unanswered
        self._heard: set[tuple[int, int]] = set()  # negotiations: (verb, option)
        self._suspended = False
        self._reads_cancelled = 0
        self._modem_state: int | None = None
        self._lost: str | None = None  # why nothing more will be received

        self._request_lock = threading.Lock()
        self._send_lock = threading.Lock()
        try:
            self._socket = socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S)
        except OSError as error:
            raise SerialException(f"Could not connect to {self._peer}: {error}") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._thread = threading.Thread(
            target=self._receive, name=f"rfc2217 {self._peer}", daemon=True
        )
        self._thread.start()
        try:
            self._negotiate()
        except BaseException:
            self.close()
            raise

    # -- bytes ---------------------------------------------------------------

    def waiting(self) -> int:
        """Number of bytes that a read returns at once."""
        with self._changed:
            if not self._received:
                self._check_alive()
            return len(self._received)

    def read(self, size: int, timeout_s: float | None) -> bytes:
        """Read *size* bytes, or what has come when the time is over or the read is cancelled.

        Raises:
            SerialException: The connection is lost and nothing is left to read.
        """
        with self._changed:
            cancelled = self._reads_cancelled
            self._changed.wait_for(
                lambda: (
                    len(self._received) >= size
                    or self._reads_cancelled != cancelled
                    or self._lost is not None
                ),
                timeout_s,
            )
            if not self._received:
                self._check_alive()
            data = bytes(self._received[:size])
            del self._received[:size]
        return data

    def cancel_read(self) -> None:
        """Make a read that is waiting in another thread return what it has."""
        with self._changed:
            self._reads_cancelled += 1
            self._changed.notify_all()

    def write(self, data: bytes, timeout_s: float | None) -> None:
        """Send *data*, holding it back while the server has suspended the flow.

        Raises:
            SerialTimeoutException: The server did not take it in time.
            SerialException: The connection is lost.
        """
        deadline = _deadline(timeout_s)
        with self._changed:
            if not self._changed.wait_for(
                lambda: not self._suspended or self._lost is not None, timeout_s
            ):
                raise SerialTimeoutException(f"{self._peer}: the server suspended the flow")
        self._send(telnet.escape(data), deadline)

    def clear_received(self) -> None:
        """Drop what has come so far, here and, if it can purge, in the server."""
        with self._changed:
            self._clear_on_purge = True
        purged = self.request_optional(telnet.PURGE_DATA, telnet.PURGE_RECEIVED)
        with self._changed:
            self._clear_on_purge = False
            if not purged:
                self._received.clear()

    # -- requests ------------------------------------------------------------

    def request(self, command: int, value: bytes) -> bytes:
        """Send a COM port request that the server must answer; return the answer's value.

        Raises:
            SerialException: No answer in time, or the connection is lost.
        """
        answer = self._exchange(command, value, self._answer_timeout_s)
        if answer is None:
            raise SerialException(
                f"{self._peer}: no answer to COM port command {command} "
                f"within {self._answer_timeout_s:g} s"
            )
        return answer

    def request_optional(self, command: int, value: int) -> bool:
        """Send a request that some servers leave unanswered; say whether this one answered.

        After the first silence the server is not waited for again, until an
        answer comes after all.
        """
        feature = _feature(command, value)
        with self._changed:
            silent = feature in self._silent or feature in self._ignored
        if silent:
            deadline = _deadline(self._answer_timeout_s)
            self._send(telnet.com_port(command, bytes((value,))), deadline)
            return False
        timeout_s = min(OPTIONAL_ANSWER_S, self._answer_timeout_s)
        answered = self._exchange(command, bytes((value,)), timeout_s) is not None
        if not answered:
            with self._changed:
                self._silent.add(feature)
        return answered

    def modem_state(self) -> int:
        """Modem lines as the server last told them, ``MODEM_*`` bits.

        Raises:
            SerialException: The server never told.
        """
        with self._changed:
            if self._modem_state is None:
                raise SerialException(f"{self._peer}: the server sends no modem line state")
            return self._modem_state

    def close(self) -> None:
        """Close the connection and end the reader thread."""
        with self._changed:
            self._lost = self._lost or "closed"
            self._changed.notify_all()
        with contextlib.suppress(OSError):  # already disconnected; the reader has seen it
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread is not threading.current_thread():  # the garbage collector runs anywhere
            self._thread.join(CLOSE_TIMEOUT_S)
        self._socket.close()

    # -- inner workings ------------------------------------------------------

    def _negotiate(self) -> None:
        wanted = bytearray()
        for option in _REQUESTED_AT_OPEN:
            wanted += bytes((telnet.IAC, telnet.WILL, option, telnet.IAC, telnet.DO, option))
        self._send(bytes(wanted), _deadline(self._answer_timeout_s))
        accepted = (telnet.DO, telnet.OPTION_COM_PORT)
        refused = (telnet.DONT, telnet.OPTION_COM_PORT)
        with self._changed:
            self._changed.wait_for(
                lambda: bool({accepted, refused} & self._heard) or self._lost is not None,
                self._answer_timeout_s,
            )
            self._check_alive()
            if accepted not in self._heard:
                why = "it refuses port control" if refused in self._heard else "no negotiation"
                raise SerialException(f"{self._peer} is not an RFC 2217 server: {why}")

    def _exchange(self, command: int, value: bytes, timeout_s: float) -> bytes | None:
        deadline = _deadline(timeout_s)
        with self._request_lock:
            with self._changed:
                before = self._answers[command]
            self._send(telnet.com_port(command, value), deadline)
            with self._changed:
                answered = self._changed.wait_for(
                    lambda: self._answers[command] != before or self._lost is not None, timeout_s
                )
                self._check_alive()
                return self._last_answer[command] if answered else None

    def _check_alive(self) -> None:
        if self._lost is not None:
            raise SerialException(f"{self._peer}: connection lost ({self._lost})")

    def _send(self, data: bytes, deadline: float | None) -> None:
        rest = memoryview(data)
        with self._send_lock:
            while rest:
                with self._changed:
                    self._check_alive()
                try:
                    rest = rest[self._socket.send(rest) :]
                except BlockingIOError:
                    if not _writable(self._socket, _left(deadline)):
                        raise SerialTimeoutException(
                            f"{self._peer}: the server takes no more bytes"
                        ) from None
                except OSError as error:
                    raise SerialException(f"{self._peer}: connection lost ({error})") from error

    def _receive(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            while True:
                selector.select()
                try:
                    chunk = self._socket.recv(RECEIVE_BYTES)
                except (BlockingIOError, InterruptedError):
                    continue
                except OSError as error:
                    self._lose(str(error))
                    return
                if not chunk:
                    self._lose("the server closed it")
                    return
                self._dispatch(self._parser.feed(chunk))

    def _lose(self, why: str) -> None:
        with self._changed:
            self._lost = self._lost or why
            self._changed.notify_all()

    def _dispatch(self, events: list[Event]) -> None:
        replies = bytearray()
        with self._changed:
            for event in events:
                if isinstance(event, Negotiation):
                    replies += self._answer_negotiation(event)
                elif isinstance(event, ComPort):
                    self._take_com_port(event)
                else:
                    self._received += event[: MAX_UNREAD_BYTES - len(self._received)]
            self._changed.notify_all()
        if replies:
            try:
                self._send(bytes(replies), _deadline(self._answer_timeout_s))
            except SerialException as error:
                self._lose(str(error))

    def _answer_negotiation(self, heard: Negotiation) -> bytes:
        if (heard.verb, heard.option) in self._heard:  # 1024 at most
            return b""  # answered before; answering again could go on for ever
        self._heard.add((heard.verb, heard.option))
        if heard.verb not in _VERB_ANSWERS:
            return b""
        if heard.option in _REQUESTED_AT_OPEN:
            return b""  # this is itself the answer to what was requested at open
        yes, no = _VERB_ANSWERS[heard.verb]
        verb = yes if heard.option in telnet.OPTIONS else no
        return bytes((telnet.IAC, verb, heard.option))

    def _take_com_port(self, message: ComPort) -> None:
        if message.command == telnet.NOTIFY_MODEMSTATE and message.value:
            self._modem_state = message.value[0]
        elif message.command in telnet.FLOWCONTROL_SUSPEND:
            self._suspended = True
        elif message.command in telnet.FLOWCONTROL_RESUME:
            self._suspended = False
        elif message.command > telnet.ANSWER:
            command = message.command - telnet.ANSWER
            self._answers[command] += 1
            self._last_answer[command] = message.value
            if message.value:
                self._silent.discard(_feature(command, message.value[0]))
            if command == telnet.PURGE_DATA and self._clear_on_purge:
                self._received.clear()
                self._clear_on_purge = False


def _feature(command: int, value: int) -> str:
    """Name what a server answers as a whole or not at all; esp_rfc2217_server omits "lines"."""
    if command == telnet.PURGE_DATA:
        return "purge"
    if value <= telnet.CONTROL_RTSCTS:
        return "flow control"
    return "break" if value <= telnet.CONTROL_BREAK_OFF else "lines"


def _deadline(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _writable(sock: socket.socket, timeout_s: float | None) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_WRITE)
        return bool(selector.select(timeout_s))
