"""A booted application: its console, the firmware core behind the port, and how it ends."""

from __future__ import annotations

import secrets
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from espdl_hil.simulator.chips import ResetReason
from espdl_hil.simulator.core import Core, DeviceFacts
from espdl_hil.simulator.faults import BrownoutLoop, SlowBridge
from espdl_hil.simulator.image import PROJECT
from espdl_hil.simulator.line import CONSOLE_BAUD, garbled
from espdl_hil.simulator.port import MAX_UNREAD_BYTES
from espdl_hil.simulator.pulse import Pulse
from espdl_hil.simulator.runner import ModelRunner
from espdl_hil.targets import KNOWN_ESPDL_VERSIONS

if TYPE_CHECKING:
    from espdl_hil.simulator.boot import App
    from espdl_hil.simulator.chips import Chip
    from espdl_hil.simulator.flash import NorFlash
    from espdl_hil.simulator.injection import Injection
    from espdl_hil.simulator.port import SerialPort

ESPDL_VERSION = f"{KNOWN_ESPDL_VERSIONS[-1]} (simulated)"  # whose kernels the interpreter computes
CRASH_PAUSE_S = 0.1  # a chip that crashes for ever must not do it as fast as this host can
SLOW_SLICE_S = 0.02
LOOK_S = 0.05  # a port with a rate: whether its trial is over


class _Restart(Exception):  # noqa: N818 - an event that unwinds the application, not an error
    def __init__(self, reason: ResetReason) -> None:
        super().__init__()
        self.reason = reason


@dataclass(frozen=True)
class Application:
    """One run of an application, and what it runs on.

    Attributes:
        app: What the bootloader has accepted.
        port: The serial port.
        chip: The chip.
        revision: Chip revision, major * 100 + minor.
        injection: Active faults.
        core_api: The compiled firmware core.
        core_sha256: Hash of an application built from the same sources.
    """

    app: App
    port: SerialPort
    chip: Chip
    revision: int
    injection: Injection
    core_api: Any
    core_sha256: bytes

    def run(self, flash: NorFlash) -> ResetReason:
        """Run until the application restarts the chip.

        Returns:
            The reason of the restart.

        Raises:
            EnableLow: The client pulled EN low.
            PowerOff: The devkit is being closed.
        """
        self.port.set_baud(CONSOLE_BAUD)
        self.injection.begin_boot()
        try:
            self._start()
            models = self.app.models
            contents = b"" if models is None else flash.read(models.offset, models.size)
            runner = ModelRunner(self.chip, self.injection)
            with (
                Pulse(self._beat) as pulse,
                closing(Core(self.core_api, self._facts(), contents, runner)) as core,
            ):
                if core.store_error:
                    self._log("W", "hil", f"models partition: {core.store_error}")
                self._serve(core, runner, pulse)
        except _Restart as restart:
            return restart.reason
        finally:
            self.port.forget_baud()

    def _facts(self) -> DeviceFacts:
        description = self.app.description
        return DeviceFacts(
            target=self.chip.name,
            idf_version=description.idf_version,
            espdl_version=ESPDL_VERSION,
            app_version=description.version,
            app_sha256=description.elf_sha256,
            boot_nonce=secrets.randbits(64),
            chip_revision=self.revision,
            cpu_mhz=self.chip.cpu_mhz,
            max_upload=self.chip.psram_bytes,
            max_baud=self.port.max_baud,
        )

    def _start(self) -> None:
        description = self.app.description
        self._log("I", "cpu_start", "Multicore app")
        self._log("I", "app_init", "Application information:")
        self._log("I", "app_init", f"Project name:     {description.project}")
        self._log("I", "app_init", f"App version:      {description.version}")
        self._log("I", "app_init", f"ELF file SHA256:  {description.elf_sha256.hex()[:9]}...")
        self._log("I", "app_init", f"ESP-IDF:          {description.idf_version}")
        if description.project != PROJECT:
            self._log(
                "E",
                "simulator",
                f"this application was built for a real chip; a simulated devkit runs {PROJECT}",
            )
            self.port.halt()
        if description.elf_sha256 != self.core_sha256:
            self._log(
                "W",
                "simulator",
                "the flashed application was built from other firmware sources than those "
                "that run here; flash it again",
            )
        self._log("I", "main_task", "Calling app_main()")
        if self.injection.strike(BrownoutLoop) is not None:
            self._log("E", "BOD", "Brownout detector was triggered\r\n")
            self.port.idle(CRASH_PAUSE_S)
            raise _Restart(ResetReason.SOFTWARE)

    def _serve(self, core: Core, runner: ModelRunner, pulse: Pulse) -> NoReturn:
        """Move bytes between port and core; the chip's thread spends its life here."""
        port, injection = self.port, self.injection
        idle_s = LOOK_S if port.max_baud else None
        pending = b""
        while True:
            pending = core.feed(pending) if pending else b""
            busy = pulse.during(core.poll)
            while runner.notes:
                self._log("W", "simulator", runner.notes.pop(0))
            while frame := core.drain():
                self._send(frame)
            if core.reboot_requested:
                raise _Restart(ResetReason.SOFTWARE)
            if core.baud_requested is not None:
                port.set_baud(core.baud_requested or CONSOLE_BAUD)
                core.baud_requested = None
            received = self._bridged(port.read(0 if busy or pending else idle_s))
            pending += injection.to_device(received)
            pending = pending[:MAX_UNREAD_BYTES]

    def _beat(self) -> None:
        if self.injection.to_host(b"\0"):
            self.port.pulse()

    def _log(self, level: str, tag: str, message: str) -> None:
        self._send(f"{level} (0) {tag}: {message}\r\n".encode())

    def _send(self, data: bytes) -> None:
        crash = self.injection.bytes_until_panic(len(data))
        if crash is not None:
            self._transmit(data[:crash])
            self._transmit(self._panic_text())
            self.port.idle(CRASH_PAUSE_S)
            raise _Restart(ResetReason.PANIC)
        self._transmit(data)

    def _bridged(self, data: bytes) -> bytes:
        limits = [fault.max_baud for fault in self.injection.active(SlowBridge)]
        fails = limits and self.port.client_baud > min(limits)
        return garbled(data) if fails else data

    def _transmit(self, data: bytes) -> None:
        data = self._bridged(self.injection.to_host(data))
        rate = self.injection.bytes_per_s
        if rate is None:
            self.port.write(data)
            return
        step = max(1, int(rate * SLOW_SLICE_S))
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            self.port.idle(len(piece) / rate)
            self.port.write(piece)

    def _panic_text(self) -> bytes:
        chip = self.chip
        sha = self.app.description.elf_sha256.hex()[:9]
        lines = (
            "",
            f"Guru Meditation Error: Core  0 panic'ed ({chip.fault}). Exception was unhandled.",
            "",
            "Core  0 register dump:",
            f"{chip.program_counter:<8}: 0x{chip.code_base + 0x1234:08x}",
            "",
            f"ELF file SHA256: {sha}",
            "",
            "Rebooting...",
        )
        return "\r\n".join(lines).encode() + b"\r\n"
