"""Finding the board: which serial ports there are, and which chip answers on them."""

from __future__ import annotations

import contextlib
import fnmatch
import io
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from espdl_hil.device.port_lock import PortLock
from espdl_hil.errors import ConfigError
from espdl_hil.targets import CHIP_TARGETS, TARGETS

PROBE_DEADLINE_S: Final = 3.5  # all ports together; they are probed side by side
PROBE_ATTEMPTS: Final = 3  # of one port, as far as there is time
CONNECT_S: Final = 1.5  # that one attempt of esptool takes where nothing answers, and some
LOCK_WAIT_S: Final = 1.0  # another process may be probing the same port right now

ESPRESSIF_JTAG: Final = (0x303A, 0x1001)  # vendor and product of USB-Serial/JTAG
BRIDGES: Final = {
    0x303A: "Espressif USB",
    0x10C4: "Silicon Labs CP210x",
    0x1A86: "WCH CH34x/CH910x",
    0x0403: "FTDI",
}  # USB vendors that are found on Espressif boards
_GLOBS = {
    "linux": "/dev/ttyUSB* /dev/ttyACM*",
    "darwin": "/dev/cu.usb* /dev/cu.SLAB* /dev/cu.wch*",
    "win32": "COM*",
}


@dataclass(frozen=True)
class UsbPort:
    """One serial port of the operating system.

    Attributes:
        device: Path or name to open.
        vid: USB vendor id; None when it is no USB port.
        pid: USB product id.
        serial_number: Of the USB device; None when it has none.
        description: The operating system's words.
    """

    device: str
    vid: int | None
    pid: int | None
    serial_number: str | None
    description: str

    def __str__(self) -> str:
        if self.vid is None:
            return f"{self.device} (no USB id)"
        return f"{self.device} ({self.vid:04X}:{self.pid or 0:04X} {self.description})"


ListPorts = Callable[[], Iterable[Any]]
IdentifyChip = Callable[[str, float], str]


def list_usb_ports(comports: ListPorts | None = None) -> list[UsbPort]:
    """All serial ports, Espressif's own USB first, then by name.

    Args:
        comports: Replaces ``serial.tools.list_ports.comports``.
    """
    if comports is None:
        from serial.tools import list_ports

        comports = list_ports.comports
    ports = [
        UsbPort(info.device, info.vid, info.pid, info.serial_number, info.description or "")
        for info in comports()
    ]
    return sorted(ports, key=lambda port: (port.vid != 0x303A, port.device))


def find_port(
    target: str,
    port: str | None = None,
    *,
    comports: ListPorts | None = None,
    probe: IdentifyChip | None = None,
    deadline_s: float = PROBE_DEADLINE_S,
) -> PortLock:
    """Find the board and take its port.

    A *port* that is a plain name or URL is taken as it is; with a ``*`` it
    limits the search, as pytest-embedded's ``--port`` does.

    Args:
        target: ESP-IDF target name.
        port: The user's ``--port``, if given.
        comports: Replaces ``serial.tools.list_ports.comports``.
        probe: Replaces the look at the chip behind a port: ``(device, deadline_s)`` to its target.
        deadline_s: Bound on all probing together.

    Returns:
        The lock of the port; the caller releases it.

    Raises:
        ConfigError: No such port, no board of *target* on any port, or the port is taken. Says
            what was looked for, what was seen, and how to run without a board.
    """
    if target not in CHIP_TARGETS:
        raise ConfigError(
            f"there is no board of target {target!r}",
            hint=f"boards exist of: {', '.join(CHIP_TARGETS)}",
        )
    if port is not None and "*" not in port:
        return PortLock(port).acquire(LOCK_WAIT_S)
    seen = list_usb_ports(comports)
    candidates = [
        found
        for found in seen
        if found.vid in BRIDGES and (port is None or fnmatch.fnmatch(found.device, port))
    ]
    lock, findings = _probe_all(candidates, target, probe or probe_chip, deadline_s)
    if lock is None:
        raise _not_found(target, port, seen, findings)
    return lock


def _probe_all(
    candidates: Sequence[UsbPort], target: str, probe: IdentifyChip, deadline_s: float
) -> tuple[PortLock | None, dict[str, str]]:
    """Look at all side by side; keep the lock of the first match, release the others."""
    deadline = time.monotonic() + deadline_s
    findings: dict[str, str] = {}
    locks: dict[str, PortLock] = {}
    closing = threading.Lock()
    over = False

    def examine(device: str) -> None:
        try:
            lock = PortLock(device)
            if not lock.try_acquire(LOCK_WAIT_S):
                findings[device] = f"in use by another process of this harness ({lock.owner()})"
                return
        except ConfigError as error:
            findings[device] = str(error)
            return
        try:
            found = probe(device, max(0.0, deadline - time.monotonic()))
        except OSError as error:
            found = _explain_open_failure(error)
        except Exception as error:  # noqa: BLE001 - one odd port must not hide the others
            found = (
                f"no answer ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
            )
        with closing:
            findings.setdefault(device, found)
            if found == target and not over:
                locks[device] = lock
                return
        lock.release()

    threads = [
        threading.Thread(target=examine, args=(port.device,), daemon=True) for port in candidates
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # esptool prints as it connects
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    with closing:
        over = True
        for port in candidates:
            findings.setdefault(port.device, f"no answer within {deadline_s:g} s")
    matches = [locks[port.device] for port in candidates if port.device in locks]
    for spare in matches[1:]:
        spare.release()
    return (matches[0] if matches else None), findings


def probe_chip(device: str, deadline_s: float) -> str:
    """Ask the chip behind *device* what it is; resets it into its ROM loader and back.

    Returns:
        ESP-IDF target name, such as ``esp32s3``.

    Raises:
        OSError: The port cannot be opened.
        esptool.util.FatalError: No chip answers.
    """
    deadline = time.monotonic() + deadline_s
    attempts = PROBE_ATTEMPTS
    while True:
        try:
            return _probe_once(device, max(0.0, deadline - time.monotonic()))
        except Exception:  # one damaged byte looks like no chip
            attempts -= 1
            if not attempts or time.monotonic() > deadline - CONNECT_S:
                raise


def _probe_once(device: str, deadline_s: float) -> str:
    import serial
    from esptool.cmds import detect_chip

    port = serial.serial_for_url(device, exclusive=True, do_not_open=True)
    port.write_timeout = deadline_s
    port.open()
    try:
        chip = detect_chip(port, connect_attempts=max(1, int(deadline_s / CONNECT_S)))
        chip.hard_reset()
        return str(chip.CHIP_NAME).lower().replace("-", "")
    finally:
        port.close()


def _explain_open_failure(error: OSError) -> str:
    text = str(error)
    if "ermission denied" in text:
        return "permission denied; add yourself to the group dialout (or uucp) and log in again"
    if "busy" in text or "exclusively lock" in text:
        return "busy, another program has it open"
    return f"cannot be opened ({text})"


def _not_found(
    target: str, port: str | None, seen: Sequence[UsbPort], findings: dict[str, str]
) -> ConfigError:
    title = TARGETS[target].title
    vendors = ", ".join(f"{name} ({vid:04X})" for vid, name in BRIDGES.items())
    where = port or _GLOBS.get(sys.platform, "serial ports")
    lines = [f"no {title} port was found", f"  looked for: {where} of {vendors}"]
    if not seen:
        lines.append("  seen: no serial port at all")
    for found in seen:
        what = findings.get(found.device, "not examined, it is none of these")
        lines.append(f"  seen: {found}: {TARGETS[what].title if what in TARGETS else what}")
    return ConfigError(
        "\n".join(lines),
        hint=f"connect an {title} board, or name its port with --port; to run without a board: "
        f"pytest --target {target} --hil-device sim",
    )
