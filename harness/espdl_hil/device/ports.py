"""Finding the board: which serial ports there are, and which chip answers on them."""

from __future__ import annotations

import contextlib
import fnmatch
import io
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from espdl_hil.device.claim import LOCK_WAIT_S, Candidate, Claim
from espdl_hil.errors import ArtifactError, BusyError, ConfigError
from espdl_hil.targets import CHIP_TARGETS, PARTITION_TABLE_OFFSET, TARGETS

PROBE_DEADLINE_S: Final = 3.5  # of one port
PROBE_ATTEMPTS: Final = 3  # as far as there is time
CONNECT_S: Final = 1.5  # that one attempt of esptool takes where nothing answers, and some

UNKNOWN_APP: Final = "an app without a name"

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

    @property
    def ids(self) -> tuple[int | None, int | None, str | None]:
        """What the device behind the port keeps when the port gets another name."""
        return self.vid, self.pid, self.serial_number

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
    wait_s: float = LOCK_WAIT_S,
    on_wait: Callable[[str], object] | None = None,
) -> Claim:
    """Find the board and take it.

    A *port* that is a plain name or URL is taken as it is; with a ``*`` it
    limits the search, as pytest-embedded's ``--port`` does. Espressif's own USB ports are looked at
    first, and no further port once the board is found: others may be in the middle of something.

    Args:
        target: ESP-IDF target name.
        port: The user's ``--port``, if given.
        comports: Replaces ``serial.tools.list_ports.comports``.
        probe: Replaces the look at the chip behind a port: ``(device, deadline_s)`` to its target.
        deadline_s: Bound on the look at one port.
        wait_s: How long to wait for ports that others use.
        on_wait: Told who is waited for.

    Returns:
        The claim of the port; the caller releases it.

    Raises:
        BusyError: The port is in use, or all that remain are.
        ConfigError: No such port, or no board of *target* on any port. Says what was looked for,
            what was seen, and how to run without a board.
    """
    if target not in CHIP_TARGETS:
        raise ConfigError(
            f"there is no board of target {target!r}",
            hint=f"boards exist of: {', '.join(CHIP_TARGETS)}",
        )
    if port is not None and "*" not in port:
        return Claim([[Candidate.of_port(port)]]).acquire(wait_s, on_wait)
    seen = list_usb_ports(comports)
    candidates = [
        Candidate.of_port(found.device)
        for found in seen
        if found.vid in BRIDGES and (port is None or fnmatch.fnmatch(found.device, port))
    ]
    search = _Search(target, probe or probe_chip, deadline_s)
    claim = search.free(candidates) or search.busy(max(wait_s, deadline_s), on_wait)
    if claim is None:
        raise _not_found(target, port, seen, search)
    return claim


class _Search:
    """A look at one port after the other: holds the one that it looks at, and never another."""

    def __init__(self, target: str, probe: IdentifyChip, deadline_s: float) -> None:
        self.findings: dict[str, str] = {}
        self.in_use: list[Candidate] = []
        self._target = target
        self._probe = probe
        self._deadline_s = deadline_s

    def free(self, candidates: Sequence[Candidate]) -> Claim | None:
        """Look at those that nobody uses."""
        for candidate in candidates:
            try:
                claim = Claim([[candidate]]).acquire()
            except BusyError as error:
                self.findings[candidate.label] = error.message.partition(" is ")[2]
                self.in_use.append(candidate)
            except ConfigError as error:
                self.findings[candidate.label] = str(error)
            else:
                if self._is_it(claim):
                    return claim
        return None

    def busy(self, wait_s: float, on_wait: Callable[[str], object] | None) -> Claim | None:
        """Look at the others as they are given back: many were only being looked at."""
        end_s = time.monotonic() + wait_s
        with contextlib.suppress(BusyError):
            while self.in_use:
                left_s = max(0.0, end_s - time.monotonic())
                claim = Claim([self.in_use]).acquire(left_s, on_wait)
                self.in_use = [c for c in self.in_use if c not in claim.held]
                if self._is_it(claim):
                    return claim
        return None

    def _is_it(self, claim: Claim) -> bool:
        """Whether the board is of the target; gives the port back if not, however late that is."""
        device, closing = claim.port, threading.Lock()
        over = False

        def examine() -> None:
            try:
                found = self._probe(device, self._deadline_s)
            except OSError as error:
                found = explain_open_failure(error)
            except Exception as error:  # noqa: BLE001 - one odd port must not hide the others
                first = str(error).splitlines()[0] if str(error) else type(error).__name__
                found = f"no answer ({first})"
            with closing:
                if not over:
                    self.findings[device] = found
                if over or found != self._target:
                    claim.release()

        thread = threading.Thread(target=examine, daemon=True)
        self.findings[device] = f"no answer within {self._deadline_s:g} s"
        with contextlib.redirect_stdout(io.StringIO()):  # esptool prints as it connects
            thread.start()
            thread.join(self._deadline_s)
        with closing:
            over = self.findings[device] != self._target
        return not over


@dataclass(frozen=True)
class ChipFacts:
    """What a chip's ROM loader says of it.

    Attributes:
        target: ESP-IDF target name.
        mac: Lower case with colons.
        revision: major * 100 + minor.
        app: Project name of the app in its flash, where that was asked for; empty for none.
    """

    target: str
    mac: str
    revision: int
    app: str = ""


def probe_chip(device: str, deadline_s: float) -> str:
    """Ask the chip behind *device* what it is; raises and resets as :func:`identify_chip`.

    Returns:
        ESP-IDF target name, such as ``esp32s3``.
    """
    return identify_chip(device, deadline_s).target


def identify_chip(device: str, deadline_s: float, *, read_app: bool = False) -> ChipFacts:
    """Ask the chip behind *device* who it is; resets it into its ROM loader and back.

    Args:
        device: Device path or pyserial URL.
        deadline_s: No further attempt after that.
        read_app: Look into its flash, too, which takes a second more.

    Raises:
        OSError: The port cannot be opened.
        esptool.util.FatalError: No chip answers.
    """
    deadline = time.monotonic() + deadline_s
    attempts = PROBE_ATTEMPTS
    while True:
        try:
            return _identify_once(device, max(0.0, deadline - time.monotonic()), read_app)
        except Exception:  # one damaged byte looks like no chip
            attempts -= 1
            if not attempts or time.monotonic() > deadline - CONNECT_S:
                raise


def _identify_once(device: str, deadline_s: float, read_app: bool) -> ChipFacts:
    import serial
    from esptool.cmds import detect_chip

    port = serial.serial_for_url(device, exclusive=True, do_not_open=True)
    port.write_timeout = deadline_s
    port.open()
    try:
        chip = detect_chip(port, connect_attempts=max(1, int(deadline_s / CONNECT_S)))
        facts = ChipFacts(
            target=str(chip.CHIP_NAME).lower().replace("-", ""),
            mac=":".join(f"{byte:02x}" for byte in chip.read_mac() or ()),
            revision=chip.get_chip_revision(),
        )
        if read_app:
            facts = replace(facts, app=_app_in_flash(chip))
        chip.hard_reset()
        return facts
    finally:
        port.close()


def _app_in_flash(chip: Any) -> str:
    """Project name of the first app that the partition table lists; empty without table or app."""
    from esptool.cmds import attach_flash, read_flash, run_stub

    from espdl_hil.formats.esp_image import APP_DESC, APP_DESC_OFFSET, AppDescription
    from espdl_hil.formats.partition_table import APP, TABLE_SECTOR_BYTES, read_table

    stub = run_stub(chip)
    attach_flash(stub)
    table = read_flash(stub, PARTITION_TABLE_OFFSET, TABLE_SECTOR_BYTES, no_progress=True) or b""
    if table.strip(b"\xff") == b"":
        return ""
    try:
        partitions = read_table(table, path="the partition table in flash")
        app = next(found for found in partitions if found.type == APP)
        size = APP_DESC_OFFSET + APP_DESC.size
        head = read_flash(stub, app.offset, size, no_progress=True) or b""
    except (ArtifactError, StopIteration):
        return UNKNOWN_APP
    description = AppDescription.unpack(head[APP_DESC_OFFSET:])
    return description.project or UNKNOWN_APP if description else UNKNOWN_APP


def explain_open_failure(error: OSError) -> str:
    """Say why a port does not open, and what helps."""
    text = str(error)
    if "ermission denied" in text:
        return "permission denied; add yourself to the group dialout (or uucp) and log in again"
    if "busy" in text or "exclusively lock" in text:
        return "busy, another program has it open"
    return f"cannot be opened ({text})"


def _not_found(
    target: str, port: str | None, seen: Sequence[UsbPort], search: _Search
) -> ConfigError:
    title = TARGETS[target].title
    vendors = ", ".join(f"{name} ({vid:04X})" for vid, name in BRIDGES.items())
    where = port or _GLOBS.get(sys.platform, "serial ports")
    lines = [f"no {title} port was found", f"  looked for: {where} of {vendors}"]
    if not seen:
        lines.append("  seen: no serial port at all")
    for found in seen:
        what = search.findings.get(found.device, "not examined, it is none of these")
        lines.append(f"  seen: {found}: {TARGETS[what].title if what in TARGETS else what}")
    kind = BusyError if search.in_use else ConfigError
    return kind(
        "\n".join(lines),
        hint=f"connect an {title} board, or name its port with --port; to run without a board: "
        f"pytest --target {target} --hil-device sim",
    )
