"""Reliable requests over a port that may lose or damage bytes: ``wire/protocol.md`` section 2.

A reader thread turns bytes into packets and console text. Requests are sent by
the caller's thread, which also repeats them: nothing here sends on its own.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from espdl_hil.device.errors import TransportError
from espdl_hil.device.failures import Failures
from espdl_hil.device.replies import check_echo, check_hello
from espdl_hil.device.timing import Pending
from espdl_hil.errors import DeviceError, WireError
from espdl_hil.wire.framing import DamagedFrame, Decoder, Event, Packet
from espdl_hil.wire.messages import (
    Booted,
    DeviceFlag,
    ErrorCode,
    ErrorReply,
    Hello,
    HelloReply,
    Message,
    QueryMemory,
    QueryMemoryReply,
    Reject,
    SetBaud,
    SetBaudReply,
    decode,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from espdl_hil.device.console import Console
    from espdl_hil.device.timing import Timing

_Reply = TypeVar("_Reply", bound=Message)

READ_TIMEOUT_S: Final = 0.5  # a line silent for this long inside a frame has lost its end
JOIN_TIMEOUT_S: Final = 5.0
CRASH_GRACE_S: Final = 0.3  # for the backtrace that follows the first line of a crash
RESEND_SOON_S: Final = 0.02  # after one packet was lost, those behind it were dropped as well
MAX_REPEAT_S: Final = 1.0  # a first repeat waits no longer, however slow the device usually is
USUAL_OVER: Final = 8  # replies that an average is made of
BITS_PER_BYTE: Final = 10  # on a UART: start bit, eight data bits, stop bit
TRIAL_REPEAT_S: Final = 0.05  # between requests at a rate that is on trial
LOOK_BACK_S: Final = 0.25  # for an answer at the rate of the boot
LOOK_BACK_AFTER: Final = 2  # repeats without one


class Transport:
    """One session on one open port.

    Owns the reader thread, not the port. One thread at a time may call it. The first
    failure latches: every later call raises it again.

    Args:
        port: Open pyserial port.
        name: The port as the user names it, for errors.
        console: Takes the text between packets.
        baud: Rate of the line as the device boots; 0 when it has none.
        timing: Deadlines.
    """

    def __init__(
        self, port: Any, name: str, console: Console, *, baud: int, timing: Timing
    ) -> None:
        self.name = name
        self.timing = timing
        self.stats: Counter[str] = Counter()
        self.hello: HelloReply | None = None
        self._port = port
        self._console = console
        self._boot_baud = self._baud = baud
        self._decoder = Decoder()
        self.failures = Failures(name, console, self._decoder)
        self._changed = threading.Condition()  # guards everything below
        self._in_flight: dict[int, Pending] = {}  # by sequence number, oldest first
        self._credits = 1
        self._usual_s = 0.0  # what a reply takes, smoothed
        self._doubted = (-1, 0.0)  # last repeated request: sequence number, seconds to its reply
        self._session = 0
        self._next_seq = 0
        self._resend_from: int | None = None
        self._failure: DeviceError | None = None
        self._lost: str | None = None  # why the reader thread ended
        self._restarted = False
        self._booted = False  # the app has just said that it is up
        self._boot_nonce: int | None = None  # and with which nonce
        self._console_seen = console.mark()
        self._heard_s = time.monotonic()  # when the last byte came
        self._stopping = False
        self._thread = threading.Thread(target=self._read_loop, name=f"dut {name}", daemon=True)
        port.timeout = READ_TIMEOUT_S
        port.write_timeout = timing.write_s
        self._thread.start()

    # -- life ----------------------------------------------------------------

    def stop(self) -> None:
        """End the reader thread; the port stays open."""
        with self._changed:
            self._stopping = True
            self._failure = self._failure or TransportError("the session is closed", port=self.name)
            self._changed.notify_all()
        cancel = getattr(self._port, "cancel_read", None)
        if cancel is not None and self._port.is_open:
            cancel()
        self._thread.join(JOIN_TIMEOUT_S)
        if self._thread.is_alive():
            raise TransportError("the reader thread does not end", port=self.name)

    def greet(self, timeout_s: float) -> HelloReply:
        """Open a session: HELLO until the device has booted and answered.

        Raises:
            BootError: No answer in time, or the console says why there will be none.
            HandshakeError: The device speaks another version of the protocol.
            TransportError: The port went away.
        """
        session = secrets.randbelow(2**32 - 1) + 1
        frame = encode(Hello(), session=session, seq=0)
        pending = Pending(Hello(), frame, 0, timeout_s)
        with self._changed:
            self._session = session
            self._in_flight = {0: pending}
        deadline = time.monotonic() + timeout_s
        quiet_s = self.timing.quiet_s * max(1.0, timeout_s / self.timing.boot_s)
        while pending.reply is None:
            self._send(frame)
            with self._changed:
                self._changed.wait_for(
                    lambda: pending.reply is not None or self._booted or self._lost is not None,
                    min(self.timing.hello_interval_s, max(0.0, deadline - time.monotonic())),
                )
                self._booted = False
                if pending.reply is None:
                    self._check_alive(booting=True)
                    now = time.monotonic()
                    over_s = timeout_s if now >= deadline else None
                    if now - self._heard_s >= quiet_s:
                        over_s = over_s or round(timeout_s - (deadline - now), 1)
                    failure = self.failures.boot_failure(over_s)
                    if failure is not None:
                        self._fail(failure)
        reply = self.expect(pending, HelloReply)
        try:
            check_hello(reply)
        except ValueError as error:
            raise self.failures.incompatible(f"its HELLO is wrong: {error}") from None
        with self._changed:
            self.hello = reply
            self._decoder.max_length = reply.max_payload
            if not reply.max_baud:
                self._boot_baud = self._baud = 0
            self._next_seq = 1
            if self._boot_nonce not in (None, reply.boot_nonce):
                self._fail(self.failures.restarted())
        return reply

    @contextlib.contextmanager
    def checking(self, what: str) -> Iterator[None]:
        """Turn an error in what the device said into the session's.

        Raises:
            TransportError: The device contradicts itself or the protocol.
        """
        try:
            yield
        except (ValueError, WireError) as error:
            raise self.failures.broken(f"{what}: the device contradicts itself: {error}") from None

    @property
    def baud(self) -> int:
        """Rate of the line; 0 when it has none."""
        return self._baud

    @property
    def max_payload(self) -> int:
        """Largest payload of the greeted device, bytes."""
        if self.hello is None:
            raise ValueError("the transport has not greeted the device")
        return self.hello.max_payload

    def use_boot_baud(self) -> None:
        """Meet a device that has just restarted at the rate that it has then."""
        if self._boot_baud:
            self._set_baud(self._boot_baud)

    def change_baud(self, baud: int) -> bool:
        """Go on at another rate of the line, at most ``hello.max_baud``.

        Returns:
            Whether anything is heard at *baud*; if not, the line stays as it was.

        Raises:
            DeviceError: As :meth:`wait`.
        """
        self.drain()
        before = self._baud
        agreed = self.ask(SetBaud(baud=baud), SetBaudReply)
        end_s = time.monotonic() + agreed.trial_ms / 1000
        is_set = self._set_baud(baud)
        first = self.submit(QueryMemory())
        works = is_set and self._is_answered(first, end_s)
        if not works:
            self._set_baud(before)
        self.expect(first, QueryMemoryReply)
        if works:  # the device keeps the rate once it sees that it was heard
            self.ask(QueryMemory(), QueryMemoryReply)
        return works

    def _set_baud(self, baud: int) -> bool:
        """Change this end of the line; False if the port or its driver does not have the rate."""
        self._baud = baud
        try:
            self._port.baudrate = baud
        except (OSError, ValueError):
            return False
        return True

    def _is_answered(self, pending: Pending, end_s: float) -> bool:
        """Repeat a request until it is answered or the time is over."""
        while pending.reply is None and (left_s := end_s - time.monotonic()) > 0:
            with self._changed:
                self._check_alive()
                self._changed.wait_for(
                    lambda: pending.reply is not None, min(left_s, TRIAL_REPEAT_S + self._line_s())
                )
            if pending.reply is None:
                self._send(pending.frame)
        return pending.reply is not None

    def _look_back(self, pending: Pending) -> None:
        """Repeat a request at the rate of the boot, and stay there if that is answered."""
        fast = self._baud
        self._set_baud(self._boot_baud)
        self._send(pending.frame)
        with self._changed:
            self._changed.wait_for(
                lambda: pending.reply is not None or self._restarted, LOOK_BACK_S + self._line_s()
            )
        if pending.reply is None and not self._restarted:
            self._set_baud(fast)

    # -- requests ------------------------------------------------------------

    def submit(self, request: Message, deadline_s: float | None = None) -> Pending:
        """Send a request as soon as the window has room for it.

        Args:
            request: Any but HELLO.
            deadline_s: How long the device may take, from when it has answered those before;
                None for ``timing.reply_s``.

        Raises:
            DeviceError: As :meth:`wait`, for a request before this one.
        """
        self._drive(self._has_room)
        with self._changed:
            seq = self._next_seq
            frame = encode(request, session=self._session, seq=seq)
            pending = Pending(request, frame, seq, deadline_s or self.timing.reply_s)
            self._next_seq = (seq + 1) % 2**32
            self._in_flight[seq] = pending
            if len(self._in_flight) == 1:
                self._start_clock(pending)
        self._send(frame)
        return pending

    def wait(self, pending: Pending) -> Message:
        """Wait for the reply to *pending*.

        Raises:
            RequestError: The firmware refused the request.
            CrashError: The device crashed.
            TransportError: Repeats did not help, the device restarted, or the port went away.
        """
        self._drive(lambda: pending.reply is not None)
        return self._interpret(pending)

    def expect(self, pending: Pending, kind: type[_Reply]) -> _Reply:
        """Wait for a reply of one kind; raises as :meth:`wait`."""
        reply = self.wait(pending)
        if not isinstance(reply, kind):
            raise self.failures.broken(
                f"{type(pending.request).__name__} was answered with {type(reply).__name__}"
            )
        with self.checking(type(reply).__name__):
            check_echo(pending.request, reply)
        return reply

    def ask(self, request: Message, kind: type[_Reply], deadline_s: float | None = None) -> _Reply:
        """Send a request and wait for its reply: :meth:`submit` and :meth:`expect`."""
        return self.expect(self.submit(request, deadline_s), kind)

    def drain(self) -> None:
        """Wait for what is in flight and drop the replies: an error ended a pipeline."""
        self._drive(lambda: not self._in_flight)

    # -- the caller's side -----------------------------------------------------

    def _drive(self, done: Callable[[], bool]) -> None:
        """Wait until *done*, repeating what is overdue."""
        while True:
            with self._changed:
                if self._failure is not None:
                    raise self._failure
                if done():  # even if the device restarts after its reply: REBOOT is answered
                    return
                self._check_alive()
                frames = self._overdue()
                oldest = next(iter(self._in_flight.values()))
                if not frames:
                    until = min(oldest.repeat_at, oldest.deadline, self._quiet_at(oldest))
                    self._changed.wait(max(0.0, until - time.monotonic()))
                    continue
            for frame in frames:
                self._send(frame)
            if oldest.repeats == LOOK_BACK_AFTER and self._baud != self._boot_baud:
                self._look_back(oldest)

    def _has_room(self) -> bool:
        """The window begins at the oldest unanswered request: so many replies the device keeps."""
        oldest = next(iter(self._in_flight), self._next_seq)
        return (self._next_seq - oldest) % 2**32 < self._credits

    def _overdue(self) -> list[bytes]:
        """Frames to send again now. Called with the lock held."""
        oldest = next(iter(self._in_flight.values()))
        now = time.monotonic()
        if now >= oldest.deadline:
            self._fail(self.failures.timed_out(oldest.request, oldest.deadline_s, oldest.repeats))
        if now >= self._quiet_at(oldest):
            self._fail(self.failures.quiet(oldest.request, self.timing.quiet_s, oldest.repeats))
        if self._resend_from is not None:
            start, self._resend_from = self._resend_from, None
            again = [p for p in self._in_flight.values() if (p.seq - start) % 2**32 < 2**31]
            self.stats["resent"] += len(again)
            return [pending.frame for pending in again]
        if now < oldest.repeat_at:
            return []
        oldest.repeats += 1
        oldest.repeat_at = now + self._patience() * 2**oldest.repeats
        self.stats["repeated"] += 1
        return [oldest.frame]

    def _quiet_at(self, oldest: Pending) -> float:
        """When a device that pulses has said nothing for too long; never for another one."""
        if self.hello is None or not self.hello.flags & DeviceFlag.PULSES:
            return oldest.deadline
        return max(oldest.started, self._heard_s) + self.timing.quiet_s

    def _start_clock(self, pending: Pending) -> None:
        pending.started = now = time.monotonic()
        pending.deadline = now + pending.deadline_s + self._line_s()
        pending.repeat_at = now + self._patience()

    def _patience(self) -> float:
        """Seconds until a repeat makes sense."""
        slow_s = max(self.timing.repeat_s, MAX_REPEAT_S)
        return min(slow_s, self.timing.repeat_s + 2 * self._usual_s) + self._line_s()

    def _line_s(self) -> float:
        """Seconds that what is in flight and one reply take on the line."""
        if not self._baud:
            return 0.0
        queued = sum(len(other.frame) for other in self._in_flight.values())
        reply = self.hello.max_payload if self.hello is not None else 0
        return (queued + reply) * BITS_PER_BYTE / self._baud

    def _soon(self) -> float:
        """When to repeat what was lost, most likely."""
        return time.monotonic() + min(MAX_REPEAT_S, RESEND_SOON_S + 2 * self._usual_s)

    def _send(self, frame: bytes) -> None:
        try:
            self._port.write(frame)
        except OSError as error:
            with self._changed:
                self._fail(self.failures.broken(f"the port failed: {error}"))

    def _interpret(self, pending: Pending) -> Message:
        if pending.reply is None:
            raise AssertionError("interpreted before it was answered")
        try:
            reply = decode(pending.reply)
        except WireError as error:
            raise self.failures.broken(f"unreadable reply: {error.message}") from error
        if isinstance(reply, ErrorReply):
            if reply.code == ErrorCode.NO_SESSION:
                with self._changed:
                    self._fail(self.failures.restarted())
            raise self.failures.refused(pending.request, reply)
        return reply

    # -- failures ----------------------------------------------------------------

    def _fail(self, error: DeviceError) -> NoReturn:
        self._failure = self._failure or error
        raise self._failure

    def _check_alive(self, *, booting: bool = False) -> None:
        if self._failure is not None:
            raise self._failure
        if not booting:
            self._check_console()
        if self._lost is not None:
            self._fail(self.failures.broken(f"the port failed: {self._lost}"))
        if self._restarted:
            self._fail(self.failures.restarted())

    def _check_console(self) -> None:
        """Raise CrashError once a crash shows on the console."""
        mark, seen = self._console.mark(), self._console_seen
        if mark == seen:
            return
        self._console_seen = mark
        if not self.failures.is_suspicious(seen):
            return
        failure = self.failures.crash()
        if failure is not None and failure.ends_app:
            self._changed.wait_for(lambda: self._restarted or self._lost, CRASH_GRACE_S)
            self._fail(self.failures.crashed(self.failures.crash() or failure))

    # -- the reader thread ---------------------------------------------------------

    def _read_loop(self) -> None:
        try:
            while not self._stopping:
                data = self._port.read(1)
                if data:
                    self._heard_s = time.monotonic()
                    data += self._port.read(self._port.in_waiting)
                    events = self._decoder.feed(data)
                else:
                    events = self._decoder.flush()
                for event in events:
                    self._take(event)
        except OSError as error:
            reason = str(error)
        except TypeError:  # pyserial's own, when the port is closed under a read
            reason = "closed"
        else:
            return
        with self._changed:
            self._lost = reason
            self._changed.notify_all()

    def _take(self, event: Event) -> None:
        if isinstance(event, bytes):
            self._console.feed(event)
        with self._changed:
            if isinstance(event, Packet):
                self._take_packet(event)
            elif isinstance(event, DamagedFrame):
                self.stats["damaged"] += 1
                self._hurry()  # it was a reply, most likely
            self._changed.notify_all()

    def _hurry(self) -> None:
        oldest = next(iter(self._in_flight.values()), None)
        if oldest is not None:
            oldest.repeat_at = min(oldest.repeat_at, self._soon())

    def _take_packet(self, packet: Packet) -> None:
        if packet.type in (Booted.TYPE, Reject.TYPE):
            self._take_event(packet)
            return
        pending = self._in_flight.get(packet.seq)
        if packet.session != self._session or pending is None:
            self.stats["duplicates"] += 1
            if packet.session == self._session and packet.seq == self._doubted[0]:
                self._learn(self._doubted[1])  # there was no need to repeat it
            return
        window = self.hello.window if self.hello is not None else 1
        self._credits = max(1, min(packet.credits, window))
        del self._in_flight[packet.seq]
        pending.reply = packet
        took_s = time.monotonic() - pending.started
        if pending.repeats:
            self._doubted = (packet.seq, took_s)
        elif pending.started:
            self._learn(took_s)
        following = next(iter(self._in_flight.values()), None)
        if following is not None and not following.deadline:
            self._start_clock(following)
            if pending.repeats:
                following.repeat_at = self._soon()
                following.repeats = 1  # so that the next one in line is hurried as well

    def _learn(self, took_s: float) -> None:
        self._usual_s += (took_s - self._usual_s) / USUAL_OVER

    def _take_event(self, packet: Packet) -> None:
        try:
            message = decode(packet)
        except WireError:
            self.stats["damaged"] += 1
            return
        if isinstance(message, Booted):
            self._booted = True
            self._boot_nonce = message.boot_nonce
            if self.hello is not None and message.boot_nonce != self.hello.boot_nonce:
                self._restarted = True
        elif isinstance(message, Reject) and packet.session in (self._session, 0):
            self.stats["rejected"] += 1
            if message.expected in self._in_flight:
                self._resend_from = message.expected
            else:
                self._hurry()  # it has executed all of them: the replies were lost
