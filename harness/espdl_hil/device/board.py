"""A devkit on a port, through pytest-embedded's classes: connect, flash, reset.

pytest-embedded's redirect thread, manager queue and listener process are not
started: the session reads the port, and :class:`Console` keeps the log.
"""

from __future__ import annotations

import contextlib
import copy
import re
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from esptool.loader import ESPLoader
from esptool.reset import HardReset
from esptool.util import FatalError
from pytest_embedded_idf.app import FlashFile
from pytest_embedded_idf.serial import IdfSerial

from espdl_hil.device.console import clean, readable_lines
from espdl_hil.device.errors import BootError, TransportError
from espdl_hil.device.patient_esptool import PART_BYTES, patient, quick
from espdl_hil.device.ports import ESPRESSIF_JTAG, UsbPort, list_usb_ports
from espdl_hil.device.rfc2217_handler import event_url, register
from espdl_hil.errors import ConfigError, DeviceError, HarnessError
from espdl_hil.scratch import scratch_folder
from espdl_hil.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_embedded_idf.app import IdfApp

    from espdl_hil.device.console import Console
    from espdl_hil.device.firmware import Firmware

REAPPEAR_S: Final = 5.0  # a port that vanished is back by then, or never
GONE_S: Final = 0.5  # for one that was waited for already
REAPPEAR_POLL_S: Final = 0.1  # the operating systems share no event for it
SKIP_UNCHANGED = "--skip-flashed"  # esptool compares MD5 sums on the device, file by file
ATTEMPTS: Final = 5  # what was flashed in one is skipped in the next
ATTEMPTS_S: Final = 12.0  # no further attempt after that
PROGRESS_BYTES: Final = 2 * PART_BYTES  # after an attempt that has flashed so much both start anew
LOADER_ATTEMPTS: Final = 2  # of esptool, to hear whether anything answers at all; about 2 s

_WROTE = re.compile(r"Wrote\s+(\d+)\s+bytes")


class _Serial(IdfSerial):
    """``IdfSerial`` that leaves reading to the session."""

    def start_redirect_thread(self) -> None:
        """The session has a reader of its own."""


class Board:
    """A connected devkit; owns the open port until :meth:`close`.

    Args:
        port: Device path or pyserial URL, as the user names it.
        firmware: What is flashed when it is connected, as far as it differs.
        console: Gets esptool's output.
        baud: Baud rate of the console and of the session.
        models: Models package to flash in the same go; None leaves the partition alone.

    Raises:
        ConfigError: The port cannot be opened, another chip is behind it, or *models* is too large.
        BootError: No ROM loader answers.
        TransportError: The port went away, or flashing failed.
    """

    label: Final = ""  # nothing emulates it

    def __init__(
        self,
        port: str,
        firmware: Firmware,
        console: Console,
        *,
        baud: int,
        models: bytes | None = None,
    ) -> None:
        register()
        self.name = port
        self.flashed: list[int] = []  # bytes of each file written last, in order
        self.flashed_bytes = 0  # of all, ever
        self._firmware = firmware
        self._baud = baud
        self._usb = _usb_identity(port)
        self._is_gone = False  # the port, when it was looked for last
        self._output = _Output(console)
        if models is not None:
            self.check(models)
        self._repeat(lambda patiently: self._connect(models, patiently=patiently))
        self.reopen_if_gone()

    def _connect(self, models: bytes | None, *, patiently: bool) -> None:
        with self._esptool(patiently=patiently), self._app(models, in_parts=patiently) as app:
            self._serial = _Serial(
                pexpect_proc=None,
                msg_queue=self._output,
                app=app,
                target=self._firmware.target,
                port=event_url(self.name),
                baud=self._baud,
            )

    @property
    def port(self) -> Any:
        """The open pyserial port."""
        return self._serial.proc

    @property
    def is_usb_jtag(self) -> bool:
        """The port is the chip's own USB-Serial/JTAG: it may vanish in a reset."""
        return self._usb is not None and self._usb.ids[:2] == ESPRESSIF_JTAG

    def check(self, models: bytes) -> None:
        """Refuse a package that does not fit the partition; raises ``ConfigError``."""
        self._firmware.require_fit(models)

    def flash(self, models: bytes | None = None, *, everything: bool = False) -> None:
        """Flash what differs by content, then start the app.

        Args:
            models: Models package for the ``models`` partition, as :meth:`check` accepts it.
            everything: Bootloader, partition table and app as well; for a board in trouble.

        Raises:
            BootError: No ROM loader answers.
            TransportError: The port went away, or flashing failed.
        """
        if everything:
            self._require_loader()
        self._repeat(lambda patiently: self._flash(models, base=everything, patiently=patiently))
        self.reopen_if_gone()

    def _require_loader(self) -> None:
        """See that anything answers, which costs less time than to flash in vain."""
        with self._esptool():
            self.port.baudrate = self._baud  # esptool forgets to when it fails
            self._serial.esp.connect(attempts=LOADER_ATTEMPTS)

    def _flash(self, models: bytes | None, *, base: bool, patiently: bool) -> None:
        self.reopen_if_gone()
        self.port.baudrate = self._baud  # esptool forgets to when it fails
        with (
            self._esptool(patiently=patiently),
            self._app(models, base=base, in_parts=patiently) as app,
        ):
            self._serial.flash(app)

    def _repeat(self, attempt: Callable[[bool], None]) -> None:
        """Repeat patiently what a damaged byte may have ended.

        No answer, another chip and a port that does not open are believed when they come twice:
        the byte that says so may be the damaged one.
        """
        self.flashed = []
        seen: list[str] = []
        left, deadline = ATTEMPTS, time.monotonic() + ATTEMPTS_S
        while True:
            try:
                return attempt(bool(seen))
            except HarnessError as error:
                final = not isinstance(error, TransportError)
                if final and str(error) in seen:
                    raise
                seen.append(str(error))
                left -= 1
                if sum(map(int, _WROTE.findall(self._output.text))) >= PROGRESS_BYTES:
                    left, deadline = ATTEMPTS, time.monotonic() + ATTEMPTS_S
                if not left or time.monotonic() > deadline:
                    if isinstance(error, DeviceError):
                        raise
                    raise TransportError(error.message, port=self.name, hint=error.hint) from error

    def reset(self) -> None:
        """Pulse EN: the app starts anew. What was received before is dropped.

        Not through ``EspSerial.hard_reset``: esptool's loaders talk to the chip first, which
        costs 3 s when an app is running instead of them.
        """
        with self._esptool():
            self.port.reset_input_buffer()
            self.port.baudrate = self._baud
            HardReset(self.port, uses_usb=self.is_usb_jtag)()
        self.reopen_if_gone()

    def reopen_if_gone(self, *, is_powered_anew: bool = False) -> None:
        """Open the port again if USB or network dropped it; waits for it once.

        Args:
            is_powered_anew: It is worth waiting for again.

        Raises:
            TransportError: It did not come back.
        """
        if _is_alive(self.port):
            self._is_gone = False
            return
        wait_s = REAPPEAR_S if is_powered_anew or not self._is_gone else min(GONE_S, REAPPEAR_S)
        self.port.close()
        self.port.rts = self.port.dtr = False  # opening must not reset the chip again
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            device = self._find_again()
            if device is not None:
                with contextlib.suppress(OSError):
                    self.port.port = device
                    self.port.open()
                    self._is_gone = False
                    return
            time.sleep(REAPPEAR_POLL_S)
        self._is_gone = True
        raise TransportError(
            f"the port did not come back within {REAPPEAR_S:g} s",
            port=self.name,
            hint="USB-Serial/JTAG can hang in a reset: press EN (RST) on the board, or replug it"
            if self.is_usb_jtag
            else "check cable and power, or the server of the remote port",
        )

    def _find_again(self) -> str | None:
        """Where the port is now; a USB device may come back under another name."""
        if self._usb is None:
            return str(self.port.port)
        same = (found for found in list_usb_ports() if found.ids == self._usb.ids)
        return next((found.device for found in same), None)

    def close(self) -> None:
        """Close the port; closing twice does nothing."""
        self._serial.close()

    @contextlib.contextmanager
    def _app(
        self, models: bytes | None, *, base: bool = True, in_parts: bool = False
    ) -> Iterator[IdfApp]:
        """The files to flash, as pytest-embedded wants them."""
        app = copy.copy(self._firmware.app)
        arguments = dict(app.flash_args)
        arguments["write_flash_args"] = [*arguments["write_flash_args"], SKIP_UNCHANGED]
        app.flash_args = arguments
        files = list(app.flash_files) if base else []
        with scratch_folder() as folder:
            if models is not None and self._firmware.models is not None:
                package = folder / "models.pdl"
                package.write_bytes(models)
                files.append(FlashFile(self._firmware.models.offset, str(package)))
            if in_parts:
                files = [part for file in files for part in self._parts(file, folder)]
            app.flash_files = files
            yield app

    def _parts(self, file: FlashFile, folder: Path) -> Iterator[FlashFile]:
        """Pieces of a file, so that what arrived of it need not be sent again.

        The bootloader stays whole: esptool writes the flash's settings and a hash into it.
        """
        data = Path(file.file_path).read_bytes()
        if file.offset == TARGETS[self._firmware.target].bootloader_offset:
            yield file
            return
        for start in range(0, len(data), PART_BYTES):
            part = folder / f"{file.offset + start:x}.bin"
            part.write_bytes(data[start : start + PART_BYTES])
            yield FlashFile(file.offset + start, str(part), file.encrypted)

    @contextlib.contextmanager
    def _esptool(self, *, patiently: bool = False) -> Iterator[None]:
        """Collect esptool's output, and turn its failures into ours."""
        output = self._output
        output.text = ""
        try:
            with (
                contextlib.redirect_stdout(output),
                contextlib.redirect_stderr(output),
                quick(),
                patient() if patiently else contextlib.nullcontext(),
            ):
                yield
        except HarnessError:
            raise
        except SystemExit as error:
            raise TransportError(
                f"esptool ended with {error.code}", port=self.name, console_tail=output.tail()
            ) from None
        except Exception as error:  # noqa: BLE001 - esptool trusts what a chip answers
            _close_forgotten(error)
            raise self._explain(error) from None
        finally:
            written = [int(size) for size in _WROTE.findall(output.text)]
            self.flashed += written
            self.flashed_bytes += sum(written)

    def _explain(self, error: Exception) -> HarnessError:
        reason = clean(str(error).encode(errors="replace")).strip() or "no reason given"
        first = reason.splitlines()[0]
        if isinstance(error, OSError):
            return TransportError(f"the port failed: {first}", port=self.name)
        if not isinstance(error, FatalError):
            first = f"esptool cannot read an answer ({type(error).__name__}: {first})"
        if "no answer to COM port" in reason or "the server refused" in reason:
            return TransportError(f"the port failed: {reason.splitlines()[-1]}", port=self.name)
        if "Could not open" in reason:
            detail = reason.splitlines()[1:2]
            return ConfigError(
                f"port {self.name} cannot be opened {detail[0] if detail else ''}".strip(),
                hint="check the name, that the board is connected, that no other program has the "
                "port open, and your permission (group dialout)",
            )
        if "Wrong chip argument" in reason:
            return ConfigError(
                f"port {self.name}: {first.split(' Wrong chip')[0]}",
                hint="name the board's own --target, or another --port",
            )
        if "Failed to connect" in reason:
            return BootError(
                f"no ROM loader answers: {first}",
                port=self.name,
                hint="hold BOOT, tap EN (RST), release BOOT, and try again; check the cable",
            )
        return TransportError(f"flashing failed: {first}", port=self.name)


def _close_forgotten(error: Exception) -> None:
    """Close port and files that esptool leaves open when it fails."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        failed = frame.f_locals.get("self")
        if isinstance(failed, ESPLoader):
            failed._port.close()  # noqa: SLF001 - esptool has no other way
        params = getattr(failed, "params", None)  # of click's context, for the files
        for _, file in (params.get("addr_filename") or ()) if isinstance(params, dict) else ():
            file.close()


class _Output:
    """Takes what esptool prints, to the log and to look at; stands in for a ``MessageQueue``."""

    encoding = "utf-8"

    def __init__(self, console: Console) -> None:
        self._console = console
        self.text = ""

    def put(self, text: str | bytes) -> None:
        text = text if isinstance(text, str) else text.decode("utf-8", errors="replace")
        self.text += text
        self._console.log(text)

    def write(self, text: str) -> int:
        self.put(text)
        return len(text)

    def flush(self) -> None:
        """The log is not buffered."""

    def isatty(self) -> bool:
        return False

    def tail(self) -> str:
        return "\n".join(readable_lines(clean(self.text.encode()))[-5:])


def _usb_identity(port: str) -> UsbPort | None:
    if "://" in port:
        return None
    wanted = str(Path(port).resolve())
    return next((found for found in list_usb_ports() if found.device in (port, wanted)), None)


def _is_alive(port: Any) -> bool:
    try:
        return bool(port.is_open) and port.in_waiting >= 0
    except OSError:
        return False
