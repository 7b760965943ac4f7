"""Chips, flashed chips, cores and clients for the simulated devkit's tests."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import serial

from espdl_hil.device import rfc2217_handler
from espdl_hil.espdl import write_package
from espdl_hil.formats.partition_table import read_table
from espdl_hil.simulator import Devkit, abi, build_app
from espdl_hil.simulator.build import core_library
from espdl_hil.simulator.chips import CHIPS
from espdl_hil.simulator.core import Core, DeviceFacts
from espdl_hil.simulator.flash import NorFlash
from espdl_hil.simulator.injection import Injection
from espdl_hil.simulator.runner import ModelRunner
from espdl_hil.targets import DEVKIT_TARGETS
from espdl_hil.wire import framing, messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from espdl_hil.simulator.chips import Chip

FLASH_BYTES = 16 << 20
GOLDEN = Path(__file__).parents[1] / "golden"


class Golden:
    """A model, a stream through it, and what ESP-DL's own kernels made of it."""

    def __init__(self, name: str) -> None:
        with np.load(GOLDEN / f"{name}.npz") as archive:
            index = json.loads(archive["index"].tobytes())
            tensors = {path: archive[key] for key, path in index["tensors"].items()}
        self.model: bytes = tensors["model"].tobytes()
        stream = index["streams"][0]
        self.inputs, self.outputs, self.order = index["inputs"], stream["outputs"], stream["order"]
        self.steps = range(stream["steps"])
        self._tensors = tensors

    def tensor(self, step: int, way: str, name: str) -> np.ndarray:
        separator = "" if name.startswith("/") else "/"
        return self._tensors[f"s0/t{step}/{way}{separator}{name}"]

    def chunk(self, step: int) -> bytes:
        return b"".join(self.tensor(step, "in", name).tobytes() for name in self.inputs)

    def result(self, step: int) -> bytes:
        return b"".join(self.tensor(step, "out", name).tobytes() for name in self.outputs)


class Wire:
    """A minimal client: requests and their answers, whatever carries the bytes."""

    def __init__(self, exchange: Callable[[bytes], bytes]) -> None:
        self._exchange = exchange
        self._decoder = framing.Decoder()
        self._session = random.getrandbits(32) | 1
        self._seq = 0
        self.console = b""
        self.events: list[messages.Message] = []

    def ask(self, request: messages.Message) -> Any:
        frame = messages.encode(request, session=self._session, seq=self._seq)
        self._seq += 1
        received, answer = self._exchange(frame), None
        while True:
            for event in self._decoder.feed(received):
                if isinstance(event, bytes):
                    self.console += event
                elif isinstance(event, framing.Packet) and event.session == self._session:
                    answer = messages.decode(event)
                elif isinstance(event, framing.Packet):
                    self.events.append(messages.decode(event))
            if answer is not None:
                return answer
            received = self._exchange(b"")
            assert received, f"no answer to {request}; console: {self.console!r}"

    def load(self, name: str) -> messages.LoadReply:
        self.ask(messages.Hello())
        return self.ask(messages.Load(name))

    def stream(self, handle: int, chunks: list[bytes], *, reset: bool = True) -> list[Any]:
        flags = messages.StartFlag.RESET if reset else messages.StartFlag(0)
        started = self.ask(messages.Start(handle, flags))
        return [
            self.ask(messages.Chunk(started.stream, index, 0, chunk))
            for index, chunk in enumerate(chunks)
        ]


class Bench:
    """A firmware core without a devkit around it."""

    def __init__(self, target: str, models: dict[str, bytes] | bytes) -> None:
        chip = CHIPS[target]
        facts = DeviceFacts(
            target=target,
            idf_version="idf",
            espdl_version="espdl",
            app_version="app",
            app_sha256=bytes(range(32)),
            boot_nonce=0x1122334455667788,
            chip_revision=chip.target.revision,
            cpu_mhz=chip.cpu_mhz,
            max_upload=chip.psram_bytes,
        )
        self.injection = Injection()
        self.runner = ModelRunner(chip, self.injection)
        package = models if isinstance(models, bytes) else write_package(list(models.items()))
        self.core = Core(abi.bind(core_library()), facts, package, self.runner)
        self.wire = Wire(self.exchange)

    def exchange(self, data: bytes) -> bytes:
        rest = data
        received = b""
        while rest or not received:
            rest = self.core.feed(rest)
            busy = self.core.poll()
            while frame := self.core.drain():
                received += frame
            if not busy and not rest:
                break
        return received


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Golden]:
    return Golden


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """Makes benches and destroys their cores."""
    with contextlib.ExitStack() as stack:

        def make(target: str, models: dict[str, bytes] | bytes) -> Bench:
            bench = Bench(target, models)
            stack.callback(bench.core.close)
            return bench

        yield make


@pytest.fixture
def make_flash(builds: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """Writes a flash file that holds a build and models."""

    def make(target: str, models: dict[str, bytes]) -> Path:
        flash = bytearray(b"\xff" * FLASH_BYTES)
        build = builds[target]
        table = (build / "partition_table/partition-table.bin").read_bytes()
        partitions = {p.label: p for p in read_table(table, flash_bytes=FLASH_BYTES)}
        for offset, data in (
            (CHIPS[target].target.bootloader_offset, build / "bootloader/bootloader.bin"),
            (0x8000, build / "partition_table/partition-table.bin"),
            (partitions["factory"].offset, build / "espdl_hil_sim.bin"),
        ):
            flash[offset : offset + data.stat().st_size] = data.read_bytes()
        package = write_package(list(models.items())) if models else b""
        start = partitions["models"].offset
        flash[start : start + len(package)] = package
        file = tmp_path / f"{target}.flash"
        file.write_bytes(flash)
        return file

    return make


@pytest.fixture
def talk() -> Callable[[Any], Wire]:
    """A wire client on an open port."""

    def make(port: Any) -> Wire:
        def exchange(data: bytes) -> bytes:
            port.write(data)
            return port.read(1) + port.read(port.in_waiting)

        return Wire(exchange)

    return make


@pytest.fixture(params=DEVKIT_TARGETS)
def chip(request: pytest.FixtureRequest) -> Chip:
    return CHIPS[request.param]


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A build directory per target."""
    root = tmp_path_factory.mktemp("builds")
    return {target: build_app(target, root / target) for target in DEVKIT_TARGETS}


@pytest.fixture
def parts(builds: dict[str, Path], chip: Chip) -> dict[int, bytes]:
    """What a build flashes: bytes by offset."""
    build = builds[chip.name]
    return {
        chip.target.bootloader_offset: (build / "bootloader/bootloader.bin").read_bytes(),
        0x8000: (build / "partition_table/partition-table.bin").read_bytes(),
        0x10000: (build / "espdl_hil_sim.bin").read_bytes(),
    }


@pytest.fixture
def flash() -> Iterator[NorFlash]:
    flash = NorFlash(FLASH_BYTES)
    yield flash
    flash.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., Any]]:
    """Opens a port on a devkit with both modem lines released, and closes it."""
    rfc2217_handler.register()
    with contextlib.ExitStack() as stack:

        def open_(devkit: Devkit, **settings: Any) -> Any:
            url = rfc2217_handler.event_url(devkit.url)
            port = serial.serial_for_url(url, do_not_open=True, timeout=3, **settings)
            port.dtr = port.rts = False
            port.open()
            stack.callback(port.close)
            return port

        yield open_


@pytest.fixture
def reset() -> Callable[[Any], None]:
    """Pulses EN with IO0 high."""

    def pulse(port: Any) -> None:
        port.rts = True
        port.rts = False

    return pulse
