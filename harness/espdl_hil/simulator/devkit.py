"""The simulated devkit: port, flash and chip on one thread, owned by a context manager."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from espdl_hil.errors import DeviceError
from espdl_hil.simulator import abi
from espdl_hil.simulator.application import Application
from espdl_hil.simulator.boot import boot, download_banner
from espdl_hil.simulator.build import core_library
from espdl_hil.simulator.chips import ResetReason, chip_for, efuse_words, mac_words
from espdl_hil.simulator.faults import Fault, StuckBoot
from espdl_hil.simulator.flash import NorFlash
from espdl_hil.simulator.image import app_sha256
from espdl_hil.simulator.injection import Injection
from espdl_hil.simulator.port import HOST, EnableLow, PowerOff, SerialPort
from espdl_hil.simulator.rom import LeaveDownload, serve_download

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FLASH_BYTES = 16 << 20  # what the devkits carry
RETRY_S = 1.0  # between two attempts of a chip that cannot boot
JOIN_S = 10.0


class Devkit:
    """A devkit that exists in this process, behind an RFC 2217 port on 127.0.0.1.

    Use it as a context manager: it boots from its flash when it is entered, and
    when it is left its thread has ended and its port is free.

    Args:
        target: ``esp32s3`` or ``esp32p4``.
        port: TCP port; 0 takes a free one.
        flash_bytes: Size of the flash.
        flash_file: Where the flash's contents outlive the devkit; None forgets them.
        revision: Chip revision, major * 100 + minor; None is the target's usual one.
        mac: MAC of the chip, ``7c:df:a1:00:11:22``; None for the one that all have.
        faults: Faults that are active from the first boot.
        paced: Let bytes take the time that they take on a UART, which has a rate then.

    Attributes:
        target: The target.
        flash: The flash chip.

    Raises:
        ConfigError: Unknown target, impossible flash or revision, port taken, or
            the firmware core cannot be compiled.
    """

    def __init__(
        self,
        target: str,
        *,
        port: int = 0,
        flash_bytes: int = FLASH_BYTES,
        flash_file: Path | None = None,
        revision: int | None = None,
        mac: str | None = None,
        faults: Iterable[Fault] = (),
        paced: bool = False,
    ) -> None:
        self._chip = chip_for(target)
        self.target = target
        self._revision = self._chip.target.revision if revision is None else revision
        self._efuses = efuse_words(self._chip, self._revision)
        if mac is not None:
            self._efuses |= mac_words(self._chip, mac)
        self._wanted_port = port
        self._paced = paced
        self._flash_bytes = flash_bytes
        self._flash_file = flash_file
        self._injection = Injection()
        for fault in faults:
            self._injection.inject(fault)
        self._crash: BaseException | None = None

    def __enter__(self) -> Self:
        self._core_api = abi.bind(core_library())
        self._core_sha256 = app_sha256(self.target)
        self.flash = NorFlash(self._flash_bytes, self._flash_file)
        try:
            self._port = SerialPort(self._wanted_port, paced=self._paced)
        except BaseException:
            self.flash.close()
            raise
        self._thread = threading.Thread(
            target=self._run, name=f"simulated {self.target}", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._port.power_off()
        self._thread.join(JOIN_S)
        if self._thread.is_alive():
            raise DeviceError(
                f"the simulated devkit did not stop within {JOIN_S:.0f} s",
                port=self.url,
                hint="a model step or the firmware core hangs; this is a defect of the harness",
            )
        self._port.close()
        self.flash.close()
        if self._crash is not None:
            raise DeviceError(
                f"the simulated devkit crashed: {type(self._crash).__name__}: {self._crash}",
                port=self.url,
                hint="this is a defect of the harness, not of your model",
            ) from self._crash

    @property
    def port(self) -> int:
        """TCP port on 127.0.0.1."""
        return self._port.number

    @property
    def url(self) -> str:
        """What ``--port`` takes, in esptool, pyserial and pytest-embedded."""
        return f"rfc2217://{HOST}:{self.port}"

    def inject(self, fault: Fault) -> None:
        """Make a fault active; it joins those that are."""
        self._injection.inject(fault)

    def clear(self) -> None:
        """Make all faults inactive. A chip that they brought down stays down until a reset."""
        self._injection.clear()

    def _run(self) -> None:
        reason, download = ResetReason.POWER_ON, False
        try:
            while True:
                try:
                    if download:
                        self._download(reason)
                    reason = self._boot(reason)
                    self._port.read(0)  # what came while the chip restarted is lost
                except EnableLow:
                    download = self._port.wait_enable_high()
                    reason = ResetReason.POWER_ON
                except LeaveDownload as leave:
                    download, reason = not leave.run_flash, leave.reason
        except PowerOff:
            pass
        except BaseException as crash:  # noqa: BLE001 - told by __exit__
            self._crash = crash
            self._port.hang_up()

    def _download(self, reason: ResetReason) -> None:
        self._port.write(download_banner(self._chip, reason).encode())
        serve_download(self._port, self._chip, self._efuses, self.flash)

    def _boot(self, reason: ResetReason) -> ResetReason:
        """Start from flash and run until something restarts the chip."""
        result = boot(self.flash, self._chip, self._revision, reason)
        if self._injection.strike(StuckBoot) is not None:
            half = result.console[: len(result.console) // 2]
            self._port.write(half.encode())
            self._port.halt()
        self._port.write(result.console.encode())
        if result.app is None:
            self._port.idle(RETRY_S)
            return result.retry
        application = Application(
            result.app,
            self._port,
            self._chip,
            self._revision,
            self._injection,
            self._core_api,
            self._core_sha256,
        )
        return application.run(self.flash)
