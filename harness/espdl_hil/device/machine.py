"""An emulated devkit: the emulator's process, its flash image, its reset. Not what is said to it.

Command lines are those of ESP-IDF's ``idf.py qemu`` and of pytest-embedded's ``Qemu`` and
``EspEmu``, but for the UART: these put it on standard output, where the emulator's monitor takes
one of its byte values. Here it is a TCP socket on the loopback interface.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Self

from espdl_hil.device.errors import TransportError
from espdl_hil.device.flash_image import replace_models, write_image
from espdl_hil.errors import ConfigError
from espdl_hil.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from espdl_hil.device.firmware import Firmware

HOST: Final = "127.0.0.1"
STOP_S: Final = 10.0
VERSION_S: Final = 30.0  # the first start of a program from a slow disk
QMP_S: Final = 10.0
QEMU_FLASH_MB: Final = (2, 4, 8, 16)  # with an image of another size QEMU boots without a flash
TAIL_LINES: Final = 5


class Machine(ABC):
    """One emulator with a private flash image, from entering the ``with`` block to leaving it.

    However the process that entered it ends, the emulator ends with it.

    Args:
        firmware: The build that boots.
        models: Models package in flash, if any.
        program: Path of the emulator; None looks for it on ``PATH``.
        arguments: Added to its command line.

    Attributes:
        label: Name and version.
        url: pyserial URL of the UART.
    """

    title: ClassVar[str]
    advice: ClassVar[str]  # how to install what provides {tool}
    variants: ClassVar[tuple[str, ...]] = ()  # sdkconfig files that the firmware needs under it
    targets: ClassVar[Mapping[str, tuple[str, ...]]]  # program, and what each one's machine needs

    def __init__(
        self,
        firmware: Firmware,
        models: bytes | None,
        *,
        program: str | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.firmware = firmware
        self._program = self.find(firmware.target, program)
        self.label = f"{self.title} {self._version()}"
        self._models = models
        self._arguments = tuple(arguments)
        self._port = _free_port()
        self._stack = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self, image: Path) -> list[str]:
        """The emulator's arguments."""

    @abstractmethod
    def reset(self) -> None:
        """Start the chip anew from the flash as it is.

        Raises:
            TransportError: The emulator does not do it.
        """

    @classmethod
    def find(cls, target: str, program: str | None = None) -> str:
        """Find the program that emulates a target.

        Raises:
            ConfigError: It has no machine of the target, or is not installed.
        """
        cls.require(target)
        wanted = program or cls.targets[target][0]
        found = shutil.which(wanted)
        if found is None:
            raise ConfigError(
                f"{cls.title} for {target} is not installed: there is no {wanted}",
                hint=cls._advice(target),
            )
        return found

    @classmethod
    def _advice(cls, target: str) -> str:
        return cls.advice.format(tool=cls.targets[target][0].replace("-system", ""))

    @classmethod
    def require(cls, target: str) -> None:
        """Refuse a target that the emulator does not have.

        Raises:
            ConfigError: It does not.
        """
        if target not in cls.targets:
            raise ConfigError(
                f"{cls.title} does not emulate {target}; it does: {', '.join(cls.targets)}",
                hint="name another target, or another emulator",
            )

    def __enter__(self) -> Self:
        """Merge the image and start.

        Raises:
            ConfigError: The models do not fit.
            ArtifactError: A file of the build is damaged.
        """
        folder = tempfile.TemporaryDirectory(prefix="espdl-hil-")
        self._folder = Path(self._stack.enter_context(folder))
        self._stack.callback(self._stop)
        try:
            write_image(self.firmware, self._models, self._image)
            self.start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """URL of the UART, for pyserial; the same after each start."""
        return f"socket://{HOST}:{self._port}"

    @property
    def ended(self) -> str:
        """How the emulator ended by itself, with its last words; empty while it runs."""
        code = self._process.poll() if self._process is not None else None
        if code is None:
            return ""
        words = self._log.read_text(errors="replace").strip().splitlines()[-TAIL_LINES:]
        return "\n  ".join((f"{self.label} ended with exit code {code}", *words))

    def start(self) -> None:
        """Start the emulator, or start it anew."""
        self._stop()
        command = [self._program, *self.command(self._image), *self._arguments]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "espdl_hil.device.launcher", str(self._folder), *command],
                stdin=subprocess.PIPE,  # the launcher ends the emulator when this closes
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def flash(self, models: bytes) -> None:
        """Start anew from a flash with another models package.

        Raises:
            ConfigError: The package does not fit.
        """
        self._stop()
        replace_models(self.firmware, models, self._image)
        self.start()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.communicate(b"stop", timeout=STOP_S)

    def _version(self) -> str:
        try:
            done = subprocess.run(
                [self._program, "--version"],
                capture_output=True,
                text=True,
                timeout=VERSION_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigError(f"{self._program} does not run: {error}") from None
        found = re.search(r"\d+(\.\d+)+\S*", done.stdout)
        if found is None:
            said = (done.stdout + done.stderr).strip().partition("\n")[0]
            raise ConfigError(
                f"{self._program} --version names no version (exit code {done.returncode}): {said}",
                hint=self._advice(self.firmware.target),
            )
        return found.group()

    @property
    def _image(self) -> Path:
        return self._folder / "flash.bin"

    @property
    def _log(self) -> Path:
        return self._folder / "emulator.log"


class Qemu(Machine):
    """Espressif's QEMU."""

    title = "QEMU"
    advice = (
        "python $IDF_PATH/tools/idf_tools.py install {tool}, then . $IDF_PATH/export.sh; "
        "or name it with --qemu-prog-path"
    )
    variants = ("sdkconfig.qemu",)
    targets: ClassVar = {  # the C3 has no PSRAM
        # Timer groups were those of the C3 at first; QEMU only warns of a name it does not have.
        "esp32s3": (
            "qemu-system-xtensa",
            # As on the N16R8 module. IDF gives PSRAM all addresses that it can fill, and 32 MB, as
            # `idf.py qemu` has, leave none to map the models partition at.
            *("-m", "8M"),
            *("-global", "driver=timer.esp32c3.timg,property=wdt_disable,value=true"),
        ),
        "esp32": ("qemu-system-xtensa", "-m", "4M"),
        "esp32c3": ("qemu-system-riscv32",),
    }

    def command(self, image: Path) -> list[str]:
        """The arguments of ``idf.py qemu``, the UART and QMP on sockets, and no monitor."""
        target = self.firmware.target
        command = ["-nographic", "-machine", target, *self.targets[target][1:]]
        if self.firmware.app.sdkconfig.get("SPIRAM_MODE_OCT"):
            command += ["-global", "driver=ssi_psram,property=is_octal,value=true"]
        return [
            *command,
            *("-global", f"driver=timer.{target}.timg,property=wdt_disable,value=true"),
            *("-drive", f"file={image},if=mtd,format=raw"),
            *("-drive", f"file={self._efuse_path},if=none,format=raw,id=efuse"),
            *("-global", f"driver=nvram.{target}.efuse,property=drive,value=efuse"),
            *("-serial", f"tcp:{HOST}:{self._port},server,nowait"),
            *("-monitor", "none"),
            *("-qmp", f"unix:{self._qmp_path},server,nowait"),
        ]

    def start(self) -> None:
        """Start QEMU on eFuses that say which revision the chip is of; zeros would be v0.0.

        Raises:
            ConfigError: QEMU has no flash of that size.
        """
        flash_mb = self._image.stat().st_size >> 20
        if flash_mb not in QEMU_FLASH_MB:
            raise ConfigError(
                f"{self.firmware.build_dir} was built for a flash of {flash_mb} MB; QEMU has "
                f"those of {', '.join(map(str, QEMU_FLASH_MB))} MB",
                hint="set CONFIG_ESPTOOLPY_FLASHSIZE in the build's sdkconfig",
            )
        size, burned = _EFUSES[self.firmware.target]
        efuses = bytearray(size)
        for offset, value in burned.items():
            efuses[offset] = value
        self._efuse_path.write_bytes(efuses)
        super().start()

    def reset(self) -> None:
        """Reset the machine over QMP.

        Raises:
            TransportError: QEMU does not take the command.
        """
        try:
            with socket.socket(socket.AF_UNIX) as endpoint:
                endpoint.settimeout(QMP_S)
                endpoint.connect(str(self._qmp_path))
                with endpoint.makefile("rw", encoding="utf-8") as stream:
                    for command in ("qmp_capabilities", "system_reset"):
                        stream.write(json.dumps({"execute": command}) + "\n")
                        stream.flush()
                        _require_return(stream)
        except (OSError, ValueError) as error:
            raise TransportError(
                f"{self.label} did not reset its machine over QMP: {error}",
                port=self.url,
                console_tail=self.ended,
            ) from None

    @property
    def _efuse_path(self) -> Path:
        return self._folder / "efuse.bin"

    @property
    def _qmp_path(self) -> Path:
        return self._folder / "qmp"


class EspEmu(Machine):
    """Espressif's esp-emu."""

    title = "esp-emu"
    advice = (
        "install a release of github.com/espressif/esp-emulator on PATH, or name it with "
        "--espemu-prog-path"
    )
    targets: ClassVar = {"esp32c3": ("esp-emu",), "esp32p4": ("esp-emu",)}

    def command(self, image: Path) -> list[str]:
        """Chip, flash and UART."""
        chip = ["--chip", self.firmware.target, "--firmware", str(image)]
        return [*chip, "--uart-tcp", f"{HOST}:{self._port}"]

    def reset(self) -> None:
        """Start anew: esp-emu has no reset."""
        self.start()


# Bytes, and those that are not zero: v3.0 of the ESP32 and v0.3 of the others, as `idf.py qemu`.
_EFUSES = {
    "esp32": (124, {13: 0x80, 22: 0x10}),
    "esp32c3": (1024, {38: 0x0C}),
    "esp32s3": (1024, {38: 0x0C}),
}

MACHINES: dict[str, type[Machine]] = {"qemu": Qemu, "espemu": EspEmu}


def emulated_targets(kind: str) -> tuple[str, ...]:
    """Targets that an emulator has, in the order of ``TARGETS``."""
    return tuple(target for target in TARGETS if target in MACHINES[kind].targets)


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])


def _require_return(lines: Iterable[str]) -> None:
    """Read answers of QMP up to that of the command; events come between.

    Raises:
        ValueError: It was refused, or the connection ended.
    """
    for line in lines:
        answer = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"].get("desc", "refused"))
        if "return" in answer:
            return
    raise ValueError("the connection ended")
