"""A simulated devkit without flash, boot and TCP: the firmware core behind the real client.

Session, model, wire and firmware core are those of the product; only the port is a queue.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Self

from espdl_hil.device.console import Console
from espdl_hil.device.session import DeviceInfo, Session
from espdl_hil.device.timing import Timing
from espdl_hil.device.transport import Channel
from espdl_hil.simulator import abi
from espdl_hil.simulator.build import core_library
from espdl_hil.simulator.chips import CHIPS
from espdl_hil.simulator.core import Core, DeviceFacts
from espdl_hil.simulator.injection import Injection
from espdl_hil.simulator.runner import ModelRunner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from espdl_hil.simulator.faults import Fault


class CorePort:
    """What pyserial offers of an open port, with a firmware core at its other end."""

    is_open = True
    timeout = write_timeout = 1.0

    def __init__(self, core: Core) -> None:
        self._core = core
        self._answer = bytearray()
        self._changed = threading.Condition()

    @property
    def in_waiting(self) -> int:
        return len(self._answer)

    def write(self, data: bytes) -> None:
        """Let the core work off what arrives, in the caller's thread."""
        rest, busy = data, True
        while rest or busy:
            rest = self._core.feed(rest) if rest else b""
            busy = self._core.poll()
            frames = b"".join(iter(self._core.drain, b""))
            if frames:
                with self._changed:
                    self._answer += frames
                    self._changed.notify()

    def read(self, size: int) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: self._answer or not self.is_open, self.timeout)
            data = bytes(self._answer[:size])
            del self._answer[:size]
        return data

    def cancel_read(self) -> None:
        with self._changed:
            self.is_open = False
            self._changed.notify()


class Device:
    """A device of one target, into which faults can be injected.

    Args:
        target: ``esp32s3`` or ``esp32p4``.
    """

    def __init__(self, target: str) -> None:
        chip = CHIPS[target]
        facts = DeviceFacts(
            target=target,
            idf_version="none",
            espdl_version="none (simulated)",
            app_version="campaign",
            app_sha256=bytes(32),
            boot_nonce=1,
            chip_revision=chip.target.revision,
            cpu_mhz=chip.cpu_mhz,
            max_upload=chip.psram_bytes,
        )
        self._injection = Injection()
        runner = ModelRunner(chip, self._injection)
        self._core = Core(abi.bind(core_library()), facts, b"", runner)
        timing = Timing()
        self._channel = Channel(CorePort(self._core), target, Console(), baud=0, timing=timing)
        info = DeviceInfo.from_hello(self._channel.greet(timing.boot_s), target)
        self.session = Session(self._channel, info, {})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.stop()
        self._core.close()

    @contextlib.contextmanager
    def broken(self, faults: Sequence[Fault]) -> Iterator[None]:
        """Have faults for a while."""
        for fault in faults:
            self._injection.inject(fault)
        try:
            yield
        finally:
            self._injection.clear()
