"""Small RFC 2217 servers to point the handler at, and simulated devkits with models on them."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import serial
from serial import rfc2217

from espdl_hil.device import rfc2217_handler
from espdl_hil.device.dut import Dut, DutConfig
from espdl_hil.device.timing import Timing
from espdl_hil.espdl import write_package
from espdl_hil.simulator.devkit import Devkit
from espdl_hil.simulator.image import build_app

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


# -- simulated devkits ---------------------------------------------------------------

GOLDEN = Path(__file__).parents[1] / "golden"
QUICK = Timing(boot_s=2.0, repeat_s=0.1, reply_s=1.0, slow_reply_s=2.0, step_s=2.0)


class Golden:
    """One golden case: a model with its inputs and what ESP-DL's kernels made of them."""

    def __init__(self, name: str) -> None:
        archive = np.load(GOLDEN / f"{name}.npz")
        self.index = json.loads(archive["index"].tobytes())
        self._tensors = {path: archive[key] for key, path in self.index["tensors"].items()}
        self.model = self._tensors["model"].tobytes()
        self.outputs = self.index["streams"][0]["outputs"]
        self.order = self.index["streams"][0]["order"]
        self.steps = range(self.index["streams"][0]["steps"])
        self.chunks = [
            {name: self.tensor(step, "in", name) for name in self.index["inputs"]}
            for step in self.steps
        ]

    def tensor(self, step: int, way: str, name: str) -> Any:
        separator = "" if name.startswith("/") else "/"
        return self._tensors[f"s0/t{step}/{way}{separator}{name}"]


@pytest.fixture(scope="session")
def streaming() -> Golden:
    return Golden("stream_residual.streaming.esp32s3.int8")


@pytest.fixture(scope="session")
def offline() -> Golden:
    return Golden("stream_residual.offline.esp32s3.int8")


@pytest.fixture(scope="session")
def package(streaming: Golden, offline: Golden) -> bytes:
    return write_package([("streaming", streaming.model), ("offline", offline.model)])


@pytest.fixture(scope="session")
def build_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_app("esp32s3", tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="session")
def flashed(tmp_path_factory: pytest.TempPathFactory, build_dir: Path, package: bytes) -> Path:
    """Contents of a flash that holds app and models, so that tests need not flash."""
    file = tmp_path_factory.mktemp("flash") / "flash.bin"
    with (
        Devkit("esp32s3", flash_file=file) as devkit,
        Dut(DutConfig("esp32s3", build_dir, port=devkit.url), models=package),
    ):
        pass
    return file


@pytest.fixture
def devkit(tmp_path: Path, flashed: Path) -> Iterator[Devkit]:
    file = Path(shutil.copy(flashed, tmp_path / "flash.bin"))
    with Devkit("esp32s3", flash_file=file) as kit:
        yield kit


@pytest.fixture
def config(devkit: Devkit, build_dir: Path, tmp_path: Path) -> DutConfig:
    return DutConfig(
        "esp32s3", build_dir, port=devkit.url, log_path=tmp_path / "dut.log", timing=QUICK
    )
