"""The port handler against well-behaved, sparing, rude and dying servers."""

from __future__ import annotations

import queue
import random
import socket
import threading
import time
from typing import Any

import pytest
import serial
from esp_rfc2217_server.esp_port_manager import EspPortManager
from pytest_embedded_serial.serial import Serial

from espdl_hil.device import rfc2217_handler
from espdl_hil.device.rfc2217_handler.link import MAX_UNREAD_BYTES
from espdl_hil.formats import telnet

EVERY_BYTE = bytes(range(256))


def drain(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


# -- bytes -----------------------------------------------------------------


def test_every_byte_survives_the_round_trip(loopback, open_port):
    port = open_port(loopback.serve, timeout=2)
    assert port.write(EVERY_BYTE * 40) == 256 * 40
    assert port.read(256 * 40) == EVERY_BYTE * 40


def test_a_read_returns_what_came_when_its_time_is_over(loopback, open_port):
    port = open_port(loopback.serve, timeout=0.1)
    port.write(b"abc")
    started = time.monotonic()
    assert port.read(10) == b"abc"
    assert 0.08 <= time.monotonic() - started < 5


def test_a_read_without_timeout_takes_what_is_there(loopback, open_port):
    port = open_port(loopback.serve, timeout=2)
    port.write(b"abcd")
    assert port.read(4) == b"abcd"
    port.timeout = 0
    assert port.read(4) == b""


def test_in_waiting_counts(loopback, open_port):
    port = open_port(loopback.serve, timeout=2)
    port.write(b"abcd")
    assert port.read(1) == b"a"
    assert port.in_waiting == port.inWaiting() == 3


def test_a_cancelled_read_returns(loopback, open_port):
    port = open_port(loopback.serve, timeout=None)
    timer = threading.Timer(0.05, port.cancel_read)
    timer.start()
    assert port.read(1) == b""
    timer.join()


def test_it_is_not_a_file(loopback, open_port):
    with pytest.raises(OSError, match="fileno"):
        open_port(loopback.serve).fileno()


def test_a_closed_port_says_so(loopback, open_port):
    port = open_port(loopback.serve)
    port.close()
    port.close()
    for use in (lambda: port.read(1), lambda: port.write(b"x"), lambda: port.in_waiting):
        with pytest.raises(serial.PortNotOpenError):
            use()


def test_closing_ends_the_reader_thread(loopback, open_port):
    before = set(threading.enumerate())
    port = open_port(loopback.serve)
    (reader,) = (t for t in set(threading.enumerate()) - before if t.name.startswith("rfc2217"))
    port.close()
    assert not reader.is_alive()


def test_pytest_embeddeds_serial_reads_through_it(loopback, start_server):
    heard = queue.SimpleQueue()
    port = Serial(heard, port=start_server(loopback.serve).url, baud=115200)
    try:
        loopback.send(b"I (1) main: hello\n")
        text = b""
        while not text.endswith(b"\n"):
            text += heard.get(timeout=2)  # empty when there was nothing to read
        assert text == b"I (1) main: hello\n"
    finally:
        port.close()


# -- settings and lines ----------------------------------------------------


def test_settings_and_lines_arrive_in_order(loopback, open_port):
    port = open_port(loopback.serve, baudrate=115200)
    loopback.uart.log.clear()
    port.dtr = False
    port.rts = True
    port.dtr = True
    port.rts = False
    port.baudrate = 921600
    assert loopback.uart.log == [
        ("dtr", False),
        ("rts", True),
        ("dtr", True),
        ("rts", False),
        ("baudrate", 921600),
    ]


def test_a_timeout_change_costs_no_request(loopback, open_port):
    port = open_port(loopback.serve)
    loopback.uart.log.clear()
    port.timeout = 0.25
    port.write_timeout = 10
    port.reset_output_buffer()
    assert loopback.uart.log == [("purge", "out")]


def test_lines_set_before_opening_are_kept(loopback, start_server):
    port = serial.serial_for_url(start_server(loopback.serve).url, do_not_open=True)
    port.rts = port.dtr = False
    with port:  # opens it
        assert port.is_open
    assert ("rts", False) in loopback.uart.log
    assert ("rts", True) not in loopback.uart.log


def test_a_refused_baud_rate_is_an_error(loopback, open_port):
    class Stubborn(type(loopback.uart)):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, 115200 if name == "baudrate" else value)

    loopback.uart = Stubborn()
    port = open_port(loopback.serve, baudrate=115200)
    with pytest.raises(serial.SerialException, match="refused baudrate 921600, it keeps 0001c200"):
        port.baudrate = 921600


def test_modem_lines_are_read(loopback, open_port):
    port = open_port(loopback.serve)
    assert port.cts
    assert port.dsr
    assert not port.ri
    assert not port.cd


def test_a_purge_drops_what_was_received(loopback, open_port):
    port = open_port(loopback.serve, timeout=0.05)
    port.write(b"stale")
    port.reset_input_buffer()
    assert port.read(5) == b""
    port.write(b"fresh")
    port.timeout = 2
    assert port.read(5) == b"fresh"


def test_requests_do_not_poll(loopback, open_port):
    port = open_port(loopback.serve)
    started = time.monotonic()
    for _ in range(100):
        port.reset_input_buffer()
        port.rts = False
    assert time.monotonic() - started < 5  # pyserial's own client takes 10 s


# -- servers that leave things out ------------------------------------------


def test_a_server_that_acknowledges_no_purge_is_waited_for_once(loopback, open_port):
    loopback.silent = {telnet.PURGE_DATA}
    port = open_port(loopback.serve, "?timeout=0.2", timeout=0.05)
    port.write(b"stale")
    assert port.read(5) == b"stale"
    started = time.monotonic()
    for _ in range(20):
        port.reset_input_buffer()
    assert time.monotonic() - started < 2  # 4 s if each were waited for
    assert port.in_waiting == 0


def test_late_purge_answer_is_waited_for_again_and_drops_nothing(loopback, open_port):
    loopback.silent = {telnet.PURGE_DATA}
    port = open_port(loopback.serve, "?timeout=0.2", timeout=2)
    loopback.silent = set()
    port.write(b"kept")
    port.reset_output_buffer()  # not waited for; its answer, and "kept", come later
    assert port.read(4) == b"kept"
    assert loopback.uart.log[-1] == ("purge", "out")


def test_espressifs_server_acknowledges_no_lines(loopback, open_port):
    class Manager(EspPortManager):
        def __init__(self, uart: Any, connection: Any) -> None:
            super().__init__(uart, connection, esp32r0_delay=False)

        def _reset_thread(self) -> None:
            uart.log.append(("reset", "bootloader"))

        def _hard_reset_thread(self) -> None:
            uart.log.append(("reset", "app"))

    uart = loopback.uart
    loopback.manager_class = Manager
    port = open_port(loopback.serve, "?timeout=3")
    started = time.monotonic()
    port.dtr = False
    port.rts = True
    port.rts = False
    port.reset_input_buffer()
    assert time.monotonic() - started < 2.5
    assert uart.log[-2:] == [("reset", "app"), ("purge", "in")]


def test_ign_set_control_never_waits(loopback, open_port):
    loopback.silent = {telnet.SET_CONTROL}
    took_s = []
    for _ in range(3):
        started = time.monotonic()
        open_port(loopback.serve, "?ign_set_control")
        took_s.append(time.monotonic() - started)
    assert min(took_s) < 0.5, took_s


def test_a_silent_control_is_not_confused_with_a_lost_connection(loopback, open_port):
    loopback.silent = {telnet.SET_CONTROL}
    port = open_port(loopback.serve, "?timeout=0.1", timeout=1)
    port.write(b"ping")
    assert port.read(4) == b"ping"


# -- servers that are none ---------------------------------------------------


def test_a_server_without_telnet_is_refused(start_server):
    server = start_server(drain)
    with pytest.raises(serial.SerialException, match="is not an RFC 2217 server: no negotiation"):
        serial.serial_for_url(server.url + "?timeout=0.2")


def test_a_server_that_refuses_port_control_is_refused_at_once(start_server):
    def refuse(connection: socket.socket) -> None:
        connection.sendall(bytes((telnet.IAC, telnet.DONT, telnet.OPTION_COM_PORT)))
        drain(connection)

    server = start_server(refuse)
    started = time.monotonic()
    with pytest.raises(serial.SerialException, match="refuses port control"):
        serial.serial_for_url(server.url)
    assert time.monotonic() - started < 2.5


def test_nobody_listens():
    rfc2217_handler.register()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    with pytest.raises(serial.SerialException, match=f"Could not connect to 127.0.0.1:{free}"):
        serial.serial_for_url(f"{rfc2217_handler.SCHEME}://127.0.0.1:{free}")


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        ("host", "host or port is missing"),
        (":4000", "host or port is missing"),
        ("host:99999", "out of range"),
        ("host:4000?colour=red", "unknown option 'colour'"),
        ("host:4000?timeout=soon", "could not convert"),
    ],
)
def test_a_bad_url_is_explained(rest, why):
    rfc2217_handler.register()
    with pytest.raises(serial.SerialException, match=why) as caught:
        serial.serial_for_url(f"{rfc2217_handler.SCHEME}://{rest}")
    assert "expected rfc2217://HOST:PORT" in str(caught.value)


def test_a_server_that_dies_in_a_read_ends_it(loopback, start_server):
    server = start_server(loopback.serve)
    port = serial.serial_for_url(server.url, timeout=30)
    port.write(b"ab")
    assert port.read(2) == b"ab"
    loopback.send(b"xyz")
    timer = threading.Timer(0.05, server.close)
    timer.start()
    started = time.monotonic()
    assert port.read(100) == b"xyz"  # what came is not lost
    with pytest.raises(serial.SerialException, match="connection lost"):
        port.read(1)
    with pytest.raises(serial.SerialException, match="connection lost"):
        _ = port.in_waiting
    with pytest.raises(serial.SerialException, match="connection lost"):
        port.reset_input_buffer()
    assert time.monotonic() - started < 2
    timer.join()
    port.close()


def test_a_write_that_nobody_takes_times_out(loopback, open_port):
    full, done = threading.Event(), threading.Event()

    def stop_reading(connection: socket.socket) -> None:
        loopback._connection = connection
        manager = loopback._make_manager()
        while not full.is_set():
            tuple(manager.filter(connection.recv(4096)))
        done.wait(5)

    port = open_port(stop_reading, write_timeout=0.2)
    full.set()
    with pytest.raises(serial.SerialTimeoutException, match="takes no more bytes"):
        port.write(bytes(64 << 20))
    done.set()


def test_a_suspended_flow_holds_writes_back(loopback, open_port):
    port = open_port(loopback.serve, timeout=2, write_timeout=0.1)
    loopback.write(telnet.com_port(telnet.FLOWCONTROL_SUSPEND[0], b""))
    loopback.send(b"!")
    assert port.read(1) == b"!"  # so the suspension has been seen
    with pytest.raises(serial.SerialTimeoutException, match="suspended the flow"):
        port.write(b"held")
    loopback.write(telnet.com_port(telnet.FLOWCONTROL_RESUME[0], b""))
    loopback.send(b"?")
    assert port.read(1) == b"?"
    port.write(b"free")
    assert port.read(4) == b"free"


@pytest.mark.parametrize("seed", range(8))
def test_garbage_never_hangs(seed, start_server):
    noise = random.Random(seed)

    def babble(connection: socket.socket) -> None:
        telnetish = bytes((255, 255, 251, 252, 253, 254, 250, 240, 44, 105, 112)) + EVERY_BYTE
        connection.sendall(bytes(noise.choices(telnetish, k=20_000)))
        connection.shutdown(socket.SHUT_WR)
        drain(connection)

    server = start_server(babble)
    started = time.monotonic()
    with pytest.raises(serial.SerialException):
        serial.serial_for_url(server.url + "?timeout=0.2", timeout=0.2)
    assert time.monotonic() - started < 3


def test_a_flood_that_nobody_reads_is_lost_beyond_a_bound_and_answers_still_come(
    open_port, loopback
):
    port = open_port(loopback.serve)
    for _ in range(60):
        loopback.send(b"x" * 100_000)
    assert port.in_waiting <= MAX_UNREAD_BYTES
    port.rts = True  # waits for its answer, which comes behind the flood
    assert port.in_waiting == MAX_UNREAD_BYTES
    port.reset_input_buffer()
    port.write(b"echo")
    assert port.read(4) == b"echo"
