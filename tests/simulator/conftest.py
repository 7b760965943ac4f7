"""Chips, flashed chips and clients for the simulated devkit's tests."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import serial

from harness.device import rfc2217_handler
from harness.simulator import Devkit, build_app
from harness.simulator.chips import CHIPS
from harness.simulator.flash import NorFlash
from harness.targets import DEVKIT_TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness.simulator.chips import Chip

FLASH_BYTES = 16 << 20


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
