"""The port: modem lines, clients that come and go, and a socket that does not take."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time

import pytest

from espdl_hil.errors import ConfigError
from espdl_hil.simulator import line
from espdl_hil.simulator import port as port_module
from espdl_hil.simulator.port import MAX_UNREAD_BYTES, EnableLow, PowerOff, SerialPort

RTS = {True: bytes.fromhex("fffa2c050bfff0"), False: bytes.fromhex("fffa2c050cfff0")}
DTR = {True: bytes.fromhex("fffa2c0508fff0"), False: bytes.fromhex("fffa2c0509fff0")}
GREETING_BYTES = 15
ANSWER_BYTES = 7


@pytest.fixture
def port():
    port = SerialPort()
    yield port
    port.close()


@contextlib.contextmanager
def connected(port):
    """A client that has been greeted."""
    with socket.create_connection(("127.0.0.1", port.number)) as client:
        assert port.read(0.05) == b""
        client.recv(GREETING_BYTES)
        yield client


@pytest.fixture
def client(port):
    with connected(port) as client:
        yield client


def test_bytes_both_ways(port, client):
    client.sendall(b"to the \xff\xffchip")
    assert port.read(1) == b"to the \xffchip"
    port.write(b"to the \xffclient")
    assert client.recv(100) == b"to the \xff\xffclient"


def test_reading_ends_when_its_time_is_over(port, client):
    started = time.monotonic()
    assert port.read(0.05) == b""
    assert 0.04 < time.monotonic() - started < 5


def test_rts_alone_pulls_en_low_and_ends_what_runs(port, client):
    client.sendall(b"lost" + RTS[True])
    with pytest.raises(EnableLow):
        port.read(1)
    assert port.enable_low
    client.sendall(RTS[False])
    assert port.wait_enable_high() is False
    assert not port.enable_low


def test_the_acknowledgement_comes_although_the_reader_is_unwound(port, client):
    client.sendall(RTS[True])
    with pytest.raises(EnableLow):
        port.read(1)
    assert client.recv(100) == bytes.fromhex("fffa2c690bfff0")


def test_dtr_at_the_release_of_rts_asks_for_the_download_mode(port, client):
    client.sendall(RTS[True])
    with pytest.raises(EnableLow):
        port.read(1)
    # All arrive in one piece; what counts is DTR when RTS was released.
    client.sendall(b"lost" + DTR[True] + RTS[False] + DTR[False] + b"sync")
    assert port.wait_enable_high() is True
    assert port.read(1) == b"sync"


def test_a_pulse_in_one_piece_is_a_reset(port, client):
    client.sendall(b"lost" + RTS[True] + RTS[False] + b"kept")
    with pytest.raises(EnableLow):
        port.read(1)
    assert port.wait_enable_high() is False
    assert port.read(1) == b"kept"


def test_both_lines_asserted_is_no_reset(port, client):
    """What every opening of a port does; the two transistors block each other."""
    client.sendall(DTR[True] + RTS[True] + b"alive")
    assert port.read(1) == b"alive"
    client.sendall(RTS[False] + DTR[False] + b"still")
    assert port.read(1) == b"still"


def test_releasing_dtr_first_is_a_reset(port, client):
    client.sendall(DTR[True] + RTS[True])
    assert port.read(0.05) == b""
    client.sendall(DTR[False])
    with pytest.raises(EnableLow):
        port.read(1)


def test_a_client_that_leaves_releases_en(port, client):
    client.sendall(RTS[True])
    with pytest.raises(EnableLow):
        port.read(1)
    client.close()
    assert port.wait_enable_high() is False


def test_the_next_client_waits_for_the_first_to_leave(port, client):
    with socket.create_connection(("127.0.0.1", port.number)) as second:
        second.settimeout(0.05)
        assert port.read(0.05) == b""
        with pytest.raises(TimeoutError):
            second.recv(1)
        client.close()
        assert port.read(0.05) == b""
        second.settimeout(1)
        assert len(second.recv(GREETING_BYTES)) == GREETING_BYTES
        second.sendall(b"mine now")
        assert port.read(1) == b"mine now"


def test_a_client_that_died_does_not_block_the_next(port, client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    client.close()  # a reset instead of an orderly end
    port.write(b"x" * 100)
    assert port.read(0.05) == b""
    with socket.create_connection(("127.0.0.1", port.number)) as second:
        second.sendall(b"hello")
        assert port.read(1) == b"hello"


def test_bytes_for_nobody_are_lost(port):
    port.write(b"anyone?")
    with socket.create_connection(("127.0.0.1", port.number)) as client:
        assert port.read(0.05) == b""
        assert len(client.recv(1000)) == GREETING_BYTES


def test_a_client_that_does_not_read_is_waited_for(port, client):
    payload = bytes(16 << 20)
    received = bytearray()

    def read_late():
        time.sleep(0.1)
        client.sendall(b"meanwhile")
        while len(received) < len(payload):
            received.extend(client.recv(1 << 20))

    reader = threading.Thread(target=read_late)
    reader.start()
    port.write(payload)
    reader.join(5)
    assert len(received) == len(payload)
    assert port.read(1) == b"meanwhile"


def test_power_off_ends_a_write_to_a_client_that_does_not_read(port, client):
    timer = threading.Timer(0.1, port.power_off)
    timer.start()
    with pytest.raises(PowerOff):
        port.write(bytes(64 << 20))
    timer.join()


def test_power_off_ends_a_read(port):
    timer = threading.Timer(0.05, port.power_off)
    timer.start()
    with pytest.raises(PowerOff):
        port.read(None)
    timer.join()


def test_idling_keeps_what_comes(port, client):
    client.sendall(b"early")
    started = time.monotonic()
    port.idle(0.1)
    assert time.monotonic() - started >= 0.1
    assert port.read(0) == b"early"


def test_a_port_that_is_taken(port):
    with pytest.raises(ConfigError) as error:
        SerialPort(port.number)
    assert str(error.value) == (
        f"cannot serve a simulated devkit on 127.0.0.1:{port.number}: Address already in use\n"
        "  hint: choose another --port, or leave it out to take a free one"
    )


def test_a_forked_child_does_not_keep_the_port():
    port = SerialPort()
    number = port.number
    with socket.create_connection(("127.0.0.1", number)) as client:
        port.read(0.01)
        child = os.fork()
        if child == 0:
            signal.pause()
        try:
            port.close()
            client.settimeout(1)
            assert len(client.recv(100)) == GREETING_BYTES
            assert client.recv(1) == b""
            SerialPort(number).close()
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_a_closed_port_is_free_at_once():
    port = SerialPort()
    number = port.number
    with socket.create_connection(("127.0.0.1", number)):
        port.read(0.01)
        port.close()
    again = SerialPort(number)
    assert again.number == number
    again.close()


def test_a_client_that_asks_and_never_reads_is_hung_up(port, client):
    ask = bytes.fromhex("fffa2c0100000000fff0") * 5000
    port._client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # else the kernel takes MiB
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    deadline_s = time.monotonic() + 60
    while port._client is not None:
        assert time.monotonic() < deadline_s, f"{len(port._unsent)} bytes pile up"
        with contextlib.suppress(OSError):  # it takes no more, or has hung up
            client.send(ask)
        port.read(0)
    assert port.read(0.05) == b""
    with socket.create_connection(("127.0.0.1", port.number)) as following:
        assert port.read(0.05) == b""
        assert len(following.recv(100)) == GREETING_BYTES


def test_a_client_that_asks_much_and_reads_stays(port, client):
    for _ in range(200):
        client.sendall(bytes.fromhex("fffa2c0100000000fff0") * 50)
        port.read(0.01)
        assert client.recv(1 << 16)


def test_a_flood_while_the_chip_is_busy_is_lost_beyond_a_bound(port, client):
    def flood():
        with contextlib.suppress(OSError):
            for _ in range(40):
                client.sendall(b"x" * 100_000)

    sender = threading.Thread(target=flood)
    sender.start()
    while sender.is_alive():
        port.idle(0.02)
    sender.join()
    for _ in range(25):  # what the system still holds of it
        port.idle(0.02)
    assert len(port.read(0.5)) == MAX_UNREAD_BYTES
    client.sendall(b"and now")
    while not (data := port.read(0.5)).endswith(b"and now"):
        assert set(data) <= {ord("x")}  # what was still on its way


# -- a port with a line ----------------------------------------------------------------

BAUD = 115200
FRAME = bytes(range(1, 101)) * 10  # 87 ms at that rate


@pytest.fixture
def paced():
    port = SerialPort(paced=True)
    yield port
    port.close()


@pytest.fixture
def far(paced):
    with connected(paced) as client:
        yield client


def test_bytes_take_the_time_of_a_uart(paced, far):
    line_s = len(FRAME) * 10 / BAUD
    started = time.monotonic()
    paced.idle(0.01)  # from here on its clock is not before that
    paced.write(FRAME)
    assert time.monotonic() - started >= line_s * (1 - 128 / len(FRAME))  # the rest is in its FIFO
    paced.write(FRAME)
    assert time.monotonic() - started >= line_s * (2 - 128 / len(FRAME))
    assert far.recv(2 * len(FRAME), socket.MSG_WAITALL) == FRAME * 2

    started = time.monotonic()
    paced.idle(0.01)
    far.sendall(FRAME)
    received = b""
    while len(received) < len(FRAME):
        received += paced.read(1)
    assert received == FRAME
    assert time.monotonic() - started >= line_s


class HostTime:
    """Time that only passes while the port waits, so that a busy host changes nothing."""

    COST_S = 1e-5  # of a look

    def __init__(self, select):
        self.now_s, self.looks, self._select = 0.0, 0, select

    def monotonic(self):
        return self.now_s

    thread_time = monotonic

    def select(self, timeout_s):
        self.looks += 1
        ready = self._select(0)
        self.now_s += self.COST_S + (0 if ready else timeout_s)
        return ready


def test_bytes_come_when_the_fifo_is_full_or_no_more_follow(paced, far, monkeypatch):
    far.sendall(FRAME)
    assert select.select([paced._client], [], [], 10)[0]
    host = HostTime(paced._selector.select)
    with monkeypatch.context() as patched:  # over when the port is closed
        patched.setattr(paced._selector, "select", host.select)
        for module in (port_module, line):
            patched.setattr(module, "time", host)
        paced._looked_s = 0.0
        sizes = []
        while sum(sizes) < len(FRAME):
            if data := paced.read(0.001 if sizes else 1):
                sizes.append(len(data))
    assert len(sizes) == 9
    assert min(sizes[:-1]) >= 120
    assert host.looks < 200  # the thread sleeps in between
    assert host.now_s == pytest.approx(len(FRAME) * 10 / BAUD, abs=0.002)


def test_both_directions_go_at_once(paced, far):
    line_s = len(FRAME) * 10 / BAUD
    paced.idle(0.01)
    far.sendall(FRAME)
    paced.write(FRAME)
    paced.idle(128 * 10 / BAUD)
    assert len(paced.read(0)) > len(FRAME) / 2  # what comes second would not be here at all
    assert paced._to_chip.left_s() < line_s / 2


def test_a_higher_rate_is_faster_and_both_ends_need_it(paced, far):
    paced.set_baud(BAUD)
    far.sendall(bytes.fromhex(f"fffa2c01{921600:08x}fff0"))
    far.sendall(b"noise")
    assert paced.read(0.5) not in (b"", b"noise")
    assert paced.client_baud == 921600
    paced.write(b"noise")
    answers = far.recv(100)
    assert b"noise" not in answers
    paced.set_baud(921600)
    paced.write(b"text")
    assert far.recv(100) == b"text"
    far.sendall(b"back")
    assert paced.read(0.5) == b"back"


def test_a_port_without_pace_has_no_rate(port, client):
    assert port.max_baud == 0
    port.set_baud(BAUD)
    client.sendall(bytes.fromhex(f"fffa2c01{921600:08x}fff0") + b"text")
    started = time.monotonic()
    assert port.read(1) == b"text"
    port.write(b"t" * 200_000)
    assert time.monotonic() - started < 8  # 17 s on a line at 115200 baud
