"""Small RFC 2217 servers to point the handler at."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
import serial
from serial import rfc2217

from harness.device import rfc2217_handler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class FakeUart:
    """What pyserial's ``PortManager`` drives: it records lines and settings in order."""

    def __init__(self) -> None:
        object.__setattr__(self, "log", [])
        self.baudrate, self.bytesize, self.parity, self.stopbits = 9600, 8, "N", 1
        self.cts = self.dsr = True
        self.ri = self.cd = False
        self.log.clear()

    def __setattr__(self, name: str, value: Any) -> None:
        self.log.append((name, value))
        object.__setattr__(self, name, value)

    def reset_input_buffer(self) -> None:
        self.log.append(("purge", "in"))

    def reset_output_buffer(self) -> None:
        self.log.append(("purge", "out"))


class PortServer:
    """Accepts connections one at a time and hands each to *serve*, in a thread that it owns."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{rfc2217_handler.SCHEME}://{self.address}"

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            with connection, contextlib.suppress(OSError):
                self._serve(connection)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        assert not self._thread.is_alive()


class Loopback:
    """An RFC 2217 server whose UART echoes; *silent* requests are taken and not answered."""

    def __init__(self, manager: type[rfc2217.PortManager] = rfc2217.PortManager) -> None:
        self.uart = FakeUart()
        self.manager_class = manager
        self.silent: set[int] = set()
        self.manager: rfc2217.PortManager | None = None
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()
        self._echo = bytearray()  # what precedes the next answer

    def serve(self, connection: socket.socket) -> None:
        self._connection = connection
        self.manager = self._make_manager()
        while data := connection.recv(65536):
            for byte in self.manager.filter(data):
                self._echo += byte
            self._flush()

    def _make_manager(self) -> rfc2217.PortManager:
        return self.manager_class(self.uart, self)

    def send(self, data: bytes) -> None:
        self._send_raw(data.replace(b"\xff", b"\xff\xff"))

    def write(self, raw: bytes) -> None:
        if raw[:3] == b"\xff\xfa\x2c" and raw[3] - 100 in self.silent:
            return
        self._flush()
        self._send_raw(raw)

    def _flush(self) -> None:
        echo, self._echo = bytes(self._echo), bytearray()
        if echo:
            self.send(echo)

    def _send_raw(self, raw: bytes) -> None:
        with self._lock:
            assert self._connection is not None
            self._connection.sendall(raw)


@pytest.fixture
def start_server() -> Iterator[Callable[[Callable[[socket.socket], None]], PortServer]]:
    rfc2217_handler.register()
    with contextlib.ExitStack() as stack:

        def start(serve: Callable[[socket.socket], None]) -> PortServer:
            server = PortServer(serve)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def loopback() -> Loopback:
    return Loopback()


@pytest.fixture
def open_port(
    start_server: Callable[..., PortServer],
) -> Iterator[Callable[..., serial.SerialBase]]:
    with contextlib.ExitStack() as stack:

        def open_(serve: Callable[[socket.socket], None], query: str = "", **settings: Any) -> Any:
            server = start_server(serve)
            port = serial.serial_for_url(server.url + query, **settings)
            stack.callback(port.close)
            return port

        yield open_
