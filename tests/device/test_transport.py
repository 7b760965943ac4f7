"""Sequence numbers, window, repeats and failures, against a scripted device."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
import tty
import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
import serial

from espdl_hil.device.console import Console
from espdl_hil.device.errors import BootError, HandshakeError, RequestError, TransportError
from espdl_hil.device.timing import Timing
from espdl_hil.device.transport import Transport
from espdl_hil.wire.framing import Decoder, Packet, cobs_decode, cobs_encode, encode_packet
from espdl_hil.wire.messages import (
    Booted,
    DeviceFlag,
    ErrorCode,
    ErrorReply,
    Hello,
    HelloReply,
    Memory,
    Message,
    QueryMemory,
    QueryMemoryReply,
    Reject,
    Reset,
    ResetReply,
    decode,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MEMORY = Memory(1, 2, 3, 4, 5, 6)
HELLO = HelloReply(
    boot_nonce=7,
    app_sha256=bytes(32),
    chip_revision=2,
    cpu_mhz=240,
    flags=1,
    window=4,
    max_models=1,
    max_payload=1024,
    max_upload=1 << 20,
    max_baud=0,
    max_watch=8,
    max_name=64,
    memory=MEMORY,
    target="esp32s3",
    idf_version="",
    espdl_version="",
    app_version="",
)
TIMING = Timing(boot_s=0.5, hello_interval_s=0.05, repeat_s=0.05, reply_s=0.4, slow_reply_s=1)


@dataclass
class Device:
    """Answers in sequence like the firmware, but for what a test breaks."""

    window: int = 4
    lose: Callable[[str, int], bool] = lambda _way, _count: False
    hello: HelloReply = HELLO
    replies: dict[int, bytes] = field(default_factory=dict)
    executed: list[int] = field(default_factory=list)
    expected: int = 0
    session: int = 0
    counts: dict[str, int] = field(default_factory=lambda: {"in": 0, "out": 0})

    def take(self, packet: Packet) -> bytes:
        self.counts["in"] += 1
        if self.lose("in", self.counts["in"]):
            return b""
        if packet.type == Hello.TYPE and packet.session != self.session:
            self.session, self.expected, self.replies = packet.session, packet.seq, {}
        if packet.seq != self.expected:
            if packet.seq in self.replies:
                return self.send(self.replies[packet.seq])
            if packet.seq < self.expected:
                raise AssertionError(f"{packet.seq} is older than the kept replies")
            return encode(Reject(reason=1, expected=self.expected), session=self.session, seq=0)
        self.executed.append(packet.seq)
        self.expected += 1
        reply = self.answer(decode(packet))
        frame = encode(reply, session=packet.session, seq=packet.seq, granted=self.window)
        self.replies[packet.seq] = frame
        self.replies = dict(list(self.replies.items())[-self.window :])
        return self.send(frame)

    def send(self, frame: bytes) -> bytes:
        self.counts["out"] += 1
        return b"" if self.lose("out", self.counts["out"]) else frame

    def answer(self, request: Message) -> Message:
        if isinstance(request, Hello):
            return self.hello
        if isinstance(request, QueryMemory):
            return QueryMemoryReply(memory=MEMORY)
        assert isinstance(request, Reset)
        return ResetReply(handle=request.handle)


class Port:
    """A port with *device* behind it; a test may also make it say things by itself."""

    is_open = True

    def __init__(self, device: Any) -> None:
        self.timeout: float | None = None
        self.write_timeout: float | None = None
        self._device = device
        self._decoder = Decoder()
        self._changed = threading.Condition()
        self._waiting = bytearray()
        self._cancelled = False
        self.broken: str | None = None

    def write(self, data: bytes) -> int:
        if self.broken:
            raise OSError(self.broken)
        for event in self._decoder.feed(data):
            if isinstance(event, Packet):
                self.say(self._device.take(event))
        return len(data)

    def say(self, data: bytes) -> None:
        with self._changed:
            self._waiting += data
            self._changed.notify_all()

    def read(self, size: int) -> bytes:
        with self._changed:
            self._changed.wait_for(
                lambda: len(self._waiting) >= size or self._cancelled or self.broken, self.timeout
            )
            self._cancelled = False
            if self.broken and not self._waiting:
                raise OSError(self.broken)
            data = bytes(self._waiting[:size])
            del self._waiting[:size]
            return data

    @property
    def in_waiting(self) -> int:
        return len(self._waiting)

    def cancel_read(self) -> None:
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()

    def unplug(self) -> None:
        with self._changed:
            self.broken = "gone"
            self._changed.notify_all()


@pytest.fixture
def connect() -> Iterator[Callable[..., tuple[Transport, Port]]]:
    with contextlib.ExitStack() as stack:

        def start(device: Any, *, greet: bool = True) -> tuple[Transport, Port]:
            port = Port(device)
            transport = Transport(port, "port", Console(), baud=0, timing=TIMING)
            stack.callback(transport.stop)
            if greet:
                transport.greet(20)
            return transport, port

        yield start


def resets(transport, count, reply_s=20):
    pending = [transport.submit(Reset(handle=index), reply_s) for index in range(count)]
    return [transport.expect(sent, ResetReply).handle for sent in pending]


# -- requests --------------------------------------------------------------------


def test_a_pipeline_is_answered_in_order_and_once(connect):
    device = Device()
    transport, _ = connect(device)
    assert resets(transport, 50) == list(range(50))
    assert device.executed == list(range(51))


@pytest.mark.parametrize("way", ["in", "out"])
@pytest.mark.parametrize("every", [2, 3, 7])
def test_what_is_lost_is_sent_again_and_never_run_twice(connect, way, every):
    device = Device(lose=lambda lost, count: lost == way and count % every == 0)
    transport, _ = connect(device)
    assert resets(transport, 20) == list(range(20))
    assert device.executed == list(range(21))
    assert sum(transport.stats[what] for what in ("repeated", "resent")) > 0


def test_the_window_begins_at_the_oldest_unanswered_request(connect):
    lost = iter((False, True))
    device = Device(lose=lambda way, _: way == "out" and next(lost, False))
    transport, _ = connect(device)
    assert resets(transport, 20) == list(range(20))  # a request beyond it fails in Device.take


def test_a_window_of_one_works(connect):
    transport, _ = connect(Device(window=1))
    assert resets(transport, 5) == list(range(5))


def test_a_damaged_reply_is_asked_for_at_once(connect):
    class Damaging(Device):
        def send(self, frame: bytes) -> bytes:
            self.counts["out"] += 1
            if self.counts["out"] != 2:
                return frame
            return frame[:-3] + bytes([frame[-3] ^ 1 or 2]) + frame[-2:]

    transport, _ = connect(Damaging())
    transport.timing = replace(TIMING, repeat_s=5, reply_s=20)
    started = time.monotonic()
    assert resets(transport, 1) == [0]
    assert time.monotonic() - started < 4
    assert transport.stats["damaged"] == 1


class Mute(Device):
    """Executes and loses its first replies; may say which request it expects next."""

    says: bool = True
    lost: int = 2

    def send(self, frame: bytes) -> bytes:
        self.counts["out"] += 1
        if 1 < self.counts["out"] <= 1 + self.lost:
            reject = encode(Reject(reason=2, expected=self.expected), session=self.session, seq=0)
            return reject if self.says else b""
        return frame


@pytest.mark.parametrize("says", [True, False])
def test_a_reject_behind_what_is_in_flight_hurries_the_repeat(connect, says):
    device = Mute()
    device.says = says
    transport, _ = connect(device)
    transport.timing = replace(TIMING, repeat_s=1, reply_s=20)
    started = time.monotonic()
    transport.expect(transport.submit(Reset(handle=0), 20), ResetReply)
    assert (time.monotonic() - started < 0.9) == says
    assert device.executed == [0, 1]


def test_rejects_for_ever_end_at_the_deadline(connect):
    class Rejecting(Device):
        def take(self, packet: Packet) -> bytes:
            if packet.type == Hello.TYPE:
                return super().take(packet)
            return encode(Reject(reason=2, expected=packet.seq), session=self.session, seq=0)

    transport, _ = connect(Rejecting())
    started = time.monotonic()
    with pytest.raises(TransportError, match=r"no reply to Reset within 0\.4 s"):
        resets(transport, 1, TIMING.reply_s)
    assert time.monotonic() - started < 5


def test_a_device_that_is_slow_always_is_not_asked_twice_each_time(connect):
    class Slow(Device):
        def take(self, packet: Packet) -> bytes:
            threading.Timer(0.1, lambda: port.say(super(Slow, self).take(packet))).start()
            return b""

    transport, port = connect(Slow(), greet=False)
    transport.greet(2)
    assert [resets(transport, 1) for _ in range(20)] == [[0]] * 20
    first = transport.stats["repeated"]
    assert [resets(transport, 1) for _ in range(20)] == [[0]] * 20
    assert transport.stats["repeated"] - first <= 2 < first


def test_silence_ends_at_the_deadline(connect):
    silent = False
    transport, _ = connect(Device(lose=lambda way, _: way == "out" and silent))
    silent = True
    started = time.monotonic()
    with pytest.raises(TransportError, match=r"no reply to Reset within 0\.4 s \(\d repeats\)"):
        resets(transport, 1, TIMING.reply_s)
    assert 0.3 < time.monotonic() - started < 5


def test_a_slow_step_has_the_time_of_one_step_each(connect):
    class Slow(Device):
        def answer(self, request: Message) -> Message:
            time.sleep(0.15)
            return super().answer(request)

    device = Slow()
    packets: queue.SimpleQueue[Packet | None] = queue.SimpleQueue()

    class Behind:
        """Executes in a thread of its own, as a device does."""

        def take(self, packet: Packet) -> bytes:
            packets.put(packet)
            return b""

    def work() -> None:
        while (packet := packets.get()) is not None:
            port.say(device.take(packet))

    transport, port = connect(Behind(), greet=False)
    worker = threading.Thread(target=work)
    worker.start()
    transport.greet(2)
    assert resets(transport, 4) == [0, 1, 2, 3]  # 0.6 s in all, 0.4 s allowed each
    packets.put(None)
    worker.join()
    assert device.executed == list(range(5))


def test_refusals_carry_code_and_words(connect):
    class Refusing(Device):
        def answer(self, request: Message) -> Message:
            if isinstance(request, Hello):
                return self.hello
            return ErrorReply(
                code=ErrorCode.OUT_OF_MEMORY, request=request.TYPE, done=0, text="no room"
            )

    transport, _ = connect(Refusing())
    with pytest.raises(RequestError) as caught:
        resets(transport, 1)
    assert caught.value.code == "OUT_OF_MEMORY"
    assert str(caught.value) == "port: Reset was refused: OUT_OF_MEMORY (no room)"
    transport.drain()


def test_an_unknown_code_is_still_told(connect):
    class Odd(Device):
        def answer(self, request: Message) -> Message:
            if isinstance(request, Hello):
                return self.hello
            return ErrorReply(code=999, request=request.TYPE, done=0, text="")

    transport, _ = connect(Odd())
    with pytest.raises(RequestError, match="Reset was refused: error 999"):
        resets(transport, 1)


def test_a_reply_of_another_kind_is_a_transport_fault(connect):
    class Confused(Device):
        def answer(self, request: Message) -> Message:
            return self.hello if isinstance(request, Hello) else QueryMemoryReply(memory=MEMORY)

    transport, _ = connect(Confused())
    with pytest.raises(TransportError, match="Reset was answered with QueryMemoryReply"):
        resets(transport, 1)


def test_an_unreadable_reply_is_a_transport_fault(connect):
    class Short(Device):
        def take(self, packet: Packet) -> bytes:
            if packet.type == Hello.TYPE:
                return super().take(packet)
            return encode_packet(Packet(ResetReply.TYPE, packet.session, packet.seq, b"", 4))

    transport, _ = connect(Short())
    with pytest.raises(TransportError, match="unreadable reply: ResetReply"):
        resets(transport, 1)


def test_console_text_between_packets_reaches_the_console(connect):
    class Chatty(Device):
        def send(self, frame: bytes) -> bytes:
            return b"I (1) main: busy\n" + frame + b"and done\n"

    transport, _ = connect(Chatty())
    assert resets(transport, 3) == [0, 1, 2]
    assert transport._console.tail().count("I (1) main: busy") == 4


# -- the device goes away ------------------------------------------------------------


def test_another_boot_nonce_is_a_restart(connect):
    transport, port = connect(Device())
    port.say(encode(Booted(boot_nonce=8), session=0, seq=0))
    time.sleep(0.02)
    with pytest.raises(TransportError, match="the device restarted") as caught:
        resets(transport, 1)
    with pytest.raises(TransportError) as again:
        resets(transport, 1)
    assert again.value is caught.value


def test_the_same_boot_nonce_is_none(connect):
    transport, port = connect(Device())
    port.say(encode(Booted(boot_nonce=7), session=0, seq=0))
    time.sleep(0.02)
    assert resets(transport, 1) == [0]


def test_a_forgotten_session_is_a_restart(connect):
    class Forgetful(Device):
        def answer(self, request: Message) -> Message:
            if isinstance(request, Hello):
                return self.hello
            return ErrorReply(code=ErrorCode.NO_SESSION, request=request.TYPE, done=0, text="")

    transport, _ = connect(Forgetful())
    with pytest.raises(TransportError, match="the device restarted, or another program opened"):
        resets(transport, 1)


def test_an_unplugged_port_ends_a_wait_at_once(connect):
    silent = False
    transport, port = connect(Device(lose=lambda way, _: way == "out" and silent))
    transport.timing = replace(TIMING, reply_s=30)
    silent = True
    timer = threading.Timer(0.1, port.unplug)
    timer.start()
    started = time.monotonic()
    with pytest.raises(TransportError, match="the port failed: gone"):
        transport.wait(transport.submit(QueryMemory(), 30))
    assert time.monotonic() - started < 5
    timer.join()


@pytest.mark.parametrize("way", ["read", "write"])
def test_a_device_file_that_vanishes_ends_a_wait_at_once(way):
    """pyserial raises what the kernel says: EIO, or a read of nothing."""
    main, side = os.openpty()
    tty.setraw(side)
    port = serial.Serial(os.ttyname(side), timeout=5)
    os.close(side)
    transport = Transport(port, "port", Console(), baud=115200, timing=TIMING)
    if way == "read":
        threading.Timer(0.1, os.close, (main,)).start()
    else:
        os.close(main)
    started = time.monotonic()
    with pytest.raises(TransportError, match="the port failed: "):
        transport.greet(10)
    assert time.monotonic() - started < 4
    with pytest.raises(TransportError, match="the port failed: "):
        transport.submit(QueryMemory(), 1)  # it stands
    transport.stop()
    port.close()


def test_a_stopped_transport_says_so(connect):
    transport, _ = connect(Device())
    transport.stop()
    with pytest.raises(TransportError, match="the session is closed"):
        resets(transport, 1)


# -- the greeting ----------------------------------------------------------------------


def test_hello_is_repeated_while_the_device_boots(connect):
    device = Device(lose=lambda way, count: way == "in" and count < 4)
    transport, _ = connect(device)
    assert transport.hello == HELLO
    assert device.counts["in"] == 4


def test_a_device_that_says_it_is_up_is_greeted_at_once(connect):
    class Booting(Device):
        up = False

        def take(self, packet: Packet) -> bytes:
            return super().take(packet) if self.up else b""

    device = Booting()
    transport, port = connect(device, greet=False)
    transport.timing = replace(TIMING, hello_interval_s=5)

    def boot() -> None:
        device.up = True
        port.say(encode(Booted(boot_nonce=7), session=0, seq=0))

    timer = threading.Timer(0.05, boot)
    timer.start()
    started = time.monotonic()
    assert transport.greet(5) == HELLO
    assert time.monotonic() - started < 1
    timer.join()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "nothing came"),
        (b"hello, I am another app\n", "text came"),
        (b"\0\x03\xf5\x01\x02damaged\0", "1 damaged packets came"),
    ],
)
def test_no_greeting_says_what_came_instead(connect, said, why):
    transport, port = connect(Device(lose=lambda *_: True), greet=False)
    port.say(said)
    with pytest.raises(BootError, match=rf"no answer to HELLO within 0\.5 s; {why}"):
        transport.greet(0.5)


def test_a_hopeless_boot_is_told_before_the_deadline(connect):
    transport, port = connect(Device(lose=lambda *_: True), greet=False)
    port.say(b"rst:0x1 (POWERON),boot:0x0\nwaiting for download\n")
    started = time.monotonic()
    with pytest.raises(BootError, match="the chip is in its ROM loader") as caught:
        transport.greet(10)
    assert time.monotonic() - started < 1
    assert caught.value.hint == "release the BOOT button (IO0), then reset the board"


def test_another_version_in_the_frame_is_a_handshake_error(connect):
    class Newer(Device):
        def take(self, packet: Packet) -> bytes:
            frame = super().take(packet)
            body = bytearray(body_of(frame))
            body[1] = 2
            return reframe(bytes(body[:-4]))

    transport, _ = connect(Newer(), greet=False)
    with pytest.raises(HandshakeError, match="speaks another version of the protocol"):
        transport.greet(0.3)


def test_another_version_in_an_error_is_a_handshake_error(connect):
    class Strict(Device):
        def answer(self, request: Message) -> Message:
            return ErrorReply(
                code=ErrorCode.VERSION, request=request.TYPE, done=0, text="I speak 2"
            )

    transport, _ = connect(Strict(), greet=False)
    with pytest.raises(HandshakeError, match="another version of the protocol: I speak 2"):
        transport.greet(0.3)


def body_of(frame: bytes) -> bytes:
    return cobs_decode(frame[1:-1])


def reframe(body: bytes) -> bytes:
    return b"\0" + cobs_encode(body + zlib.crc32(body).to_bytes(4, "little")) + b"\0"


# -- silence ------------------------------------------------------------------------------


@dataclass
class Busy(Device):
    """Answers no reset at all, and pulses meanwhile or not."""

    def answer(self, request: Message) -> Message:
        if isinstance(request, Reset):
            self.lose = lambda _way, _count: True
        return super().answer(request)


PULSING = replace(HELLO, flags=HELLO.flags | DeviceFlag.PULSES)


def test_a_device_that_pulses_and_falls_silent_is_given_up_long_before_its_deadline(connect):
    transport, _ = connect(Busy(hello=PULSING))
    transport.timing = replace(TIMING, quiet_s=0.3)
    started = time.monotonic()
    with pytest.raises(TransportError, match=r"silent: not a byte came within 0\.3 s of Reset"):
        transport.wait(transport.submit(Reset(handle=1), 30))
    assert 0.3 <= time.monotonic() - started < 5


def test_a_device_that_pulses_has_the_time_of_its_deadline(connect):
    transport, port = connect(Busy(hello=PULSING))
    transport.timing = replace(TIMING, quiet_s=0.4)
    over = threading.Event()

    def pulse():
        while not over.wait(0.05):
            port.say(b"\0")

    thread = threading.Thread(target=pulse)
    thread.start()
    with pytest.raises(TransportError, match="no reply to Reset within 1 s"):
        transport.wait(transport.submit(Reset(handle=1), 1))
    over.set()
    thread.join()


def test_one_that_does_not_pulse_is_waited_for(connect):
    transport, _ = connect(Busy())
    transport.timing = replace(TIMING, quiet_s=0.1)
    with pytest.raises(TransportError, match=r"no reply to Reset within 0\.5 s"):
        transport.wait(transport.submit(Reset(handle=1), 0.5))


def test_a_boot_without_a_byte_is_given_up_early(connect):
    transport, _ = connect(Device(lose=lambda _way, _count: True), greet=False)
    transport.timing = replace(TIMING, boot_s=30, quiet_s=0.3)
    started = time.monotonic()
    with pytest.raises(BootError, match=r"no answer to HELLO within 0\.[345] s; nothing came"):
        transport.greet(30)
    assert time.monotonic() - started < 5
