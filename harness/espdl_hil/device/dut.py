"""The device under test: one object that owns port, flash, boot, session and recovery."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from espdl_hil.device.console import Console, Sink
from espdl_hil.device.errors import (
    HandshakeError,
    RequestError,
    StaleArtifactError,
    TransportError,
    is_retryable,
)
from espdl_hil.device.firmware import DEFAULT_BAUD, Firmware
from espdl_hil.device.ports import find_port
from espdl_hil.device.recovery import MAX_RECOVERIES, RecoveryAttempt, climb, headline
from espdl_hil.device.session import DeviceInfo, Session, model_digest
from espdl_hil.device.timing import Timing
from espdl_hil.device.transport import Transport
from espdl_hil.errors import DeviceError
from espdl_hil.espdl import read_package

if TYPE_CHECKING:
    import re
    from collections.abc import Callable
    from pathlib import Path

    from espdl_hil.device.board import Board
    from espdl_hil.device.claim import Claim
    from espdl_hil.device.emulator import Emulator
    from espdl_hil.device.machine import Machine

FAST_BAUDS: Final = (2_000_000, 921_600)  # tried in this order; bridges differ
BAUD_TRIALS: Final = 2  # of each: the first fails, too, where this host was held up for its time
SOFT_GREETING_S: Final = 1.0  # a device that is well answers HELLO at once
SOCKET_SCHEME: Final = "socket://"
CHIP_BOOT_S: Final = 1.0  # a devkit answers HELLO so long after its reset, PSRAM test included
EMULATED_BOOT_S: Final = 120.0


@dataclass(frozen=True)
class DutConfig:
    """Which device, and what belongs on it.

    Attributes:
        target: ESP-IDF target name.
        build_dir: Finished build of the firmware.
        port: Device path, pyserial URL, pattern with ``*``, or None to look for a board.
        baud: Baud rate of the device's console.
        max_baud: Highest rate that is agreed on once the device has answered.
        log_path: File that gets the console and esptool's output; None for none.
        timing: Deadlines.
        time_scale: Multiplies them; None measures how much slower than a chip an emulator is.
        machine: The emulator behind *port*, if the caller has started one.
        keep_flash: Leave the models in flash as they are: what lies there as it is meant is used,
            the rest is uploaded, unless it is too large for that.
        power_cycle: Cuts the board's power and gives it back; False when it cannot for this
            board. None when there is no such switch.
        is_claimed: The caller holds the claim of *port* already.
    """

    target: str
    build_dir: Path
    port: str | None = None
    baud: int = DEFAULT_BAUD
    max_baud: int = FAST_BAUDS[0]
    log_path: Path | None = None
    timing: Timing = field(default_factory=Timing)
    time_scale: float | None = None
    machine: Machine | None = None
    keep_flash: bool = False
    power_cycle: Callable[[], bool] | None = None
    is_claimed: bool = False


class Dut:
    """A devkit, flashed, booted and greeted, until the ``with`` block ends.

    Entering finds and locks the port, flashes what differs by content through
    pytest-embedded's classes, and boots. Leaving closes session, port and lock.

    Args:
        config: Which device.
        models: Models package to flash at the start; None leaves the partition alone.
        sink: Also gets every console byte, for instance a pytest-embedded ``msg_queue.put``.
    """

    def __init__(
        self, config: DutConfig, *, models: bytes | None = None, sink: Sink | None = None
    ) -> None:
        self.config = config
        self.console = Console(config.log_path, sink)
        self._incidents: list[RecoveryAttempt] = []
        self._models = models
        self._expected: dict[str, str] = {}
        self._timing = config.timing.scaled(config.time_scale or 1.0)
        self._max_baud = config.max_baud
        self._firmware: Firmware  # read by entering
        self._claim: Claim | None = None
        self._port_name = config.port or "no port"
        self._board: Board | Emulator | None = None
        self._session: Session | None = None
        self._transport: Transport | None = None
        self._uploaded_bytes = 0  # in sessions that are over
        self._boot_nonce: str | None = None  # of the boot that was greeted last

    # -- life ----------------------------------------------------------------

    def __enter__(self) -> Self:
        """Connect, flash, boot, greet.

        Raises:
            ConfigError: No such port, no board, another chip, no build.
            ArtifactError: The models package or the build is damaged.
            DeviceError: The device does not come up, see ``device/errors.py``.
        """
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close session, port, log and lock, in this order; closing twice does nothing."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.console.close)
            if self._claim is not None:
                stack.callback(self._claim.release)
            if self._board is not None:
                stack.callback(self._board.close)
            stack.callback(self._end_session)

    def _open(self) -> None:
        config = self.config
        self._expected = _digests(self._models)
        self._firmware = Firmware.read(config.build_dir, config.target)
        if not config.is_claimed:
            self._claim = find_port(config.target, config.port)
            self._port_name = self._claim.port
        is_measured = config.machine is not None and not config.time_scale
        started_s = time.monotonic()
        try:
            self._connect()
            self._begin_session(EMULATED_BOOT_S if is_measured else self._timing.boot_s)
        except DeviceError as error:
            if not is_retryable(error):
                raise
            try:
                self.recover(error.message)
            except DeviceError:
                if self._can_reset:
                    raise
                raise error from None  # nothing could be tried that would tell more
        if is_measured:
            self._slow_down((time.monotonic() - started_s) / CHIP_BOOT_S)
        if config.keep_flash and self._models is not None and not self._fits_memory(self._models):
            self._flash(self._models)
        elif config.keep_flash or not self._can_reset:
            self._forget_missing()

    def _connect(self) -> None:
        """Flash what differs and start the app; an emulator runs it already."""
        from espdl_hil.device.board import Board  # esptool and pytest-embedded take 0.3 s to import
        from espdl_hil.device.emulator import Emulator

        if self._is_socket:
            self._board = Emulator(self._port_name, self.config.machine)
        else:
            self._board = Board(
                self._port_name,
                self._firmware,
                self.console,
                baud=self.config.baud,
                models=None if self.config.keep_flash else self._models,
            )

    def _slow_down(self, factor: float) -> None:
        """Multiply all deadlines from here on; nothing is faster than a chip."""
        self._timing = self.config.timing.scaled(max(1.0, factor))
        if self._transport is not None:
            self._transport.timing = self._timing

    def _forget_missing(self) -> None:
        """Expect of a device that was not flashed only what it holds, byte for byte."""
        try:
            held = {model.name: model.sha256 for model in self.session.models()}
        except RequestError:  # an erased partition holds no package
            held = {}
        self._expected = {n: sha for n, sha in self._expected.items() if held.get(n) == sha}
        if self._transport is not None:
            self._session = Session(self._transport, self.info, self._expected)

    def _fits_memory(self, models: bytes) -> bool:
        """Whether each model can be uploaded: it shares the memory with its tensors."""
        room = min(self.info.max_upload, self.info.memory.psram_largest // 2)
        return all(len(entry.data) <= room for entry in read_package(models))

    # -- what it offers --------------------------------------------------------

    @property
    def session(self) -> Session:
        """The session with the firmware; a new one after each flash and recovery."""
        if self._session is None:
            raise TransportError("no session: the device is not up", port=self._port_name)
        return self._session

    @property
    def info(self) -> DeviceInfo:
        """What the device said of itself when it was greeted last."""
        return self.session.info

    @property
    def stored(self) -> frozenset[str]:
        """Names of the models that lie in flash as they were meant."""
        return frozenset(self._expected)

    @property
    def flashed_bytes(self) -> int:
        """Bytes written to flash so far, before compression."""
        return self._board.flashed_bytes if self._board is not None else 0

    @property
    def uploaded_bytes(self) -> int:
        """Bytes of models sent into the device's memory so far."""
        return self._uploaded_bytes + (self._session.uploaded_bytes if self._session else 0)

    @property
    def baud(self) -> int:
        """Rate of the line now; 0 when it has none."""
        return self._transport.baud if self._transport is not None else 0

    @property
    def incidents(self) -> tuple[RecoveryAttempt, ...]:
        """What :meth:`recover` did, oldest first."""
        return tuple(self._incidents)

    @property
    def log_path(self) -> Path | None:
        """The log file."""
        return self.config.log_path

    def flash(self, models: bytes) -> bool:
        """Put a models package (PDL) into the ``models`` partition, unless it is there already.

        Returns:
            Whether anything was written; then :attr:`session` is a new one.

        Raises:
            ArtifactError: *models* is no package.
            ConfigError: It does not fit the partition.
            DeviceError: Flashing or booting failed.
        """
        if self._session is not None and self._models == models and not self.config.keep_flash:
            return False
        return self._flash(models)

    def _flash(self, models: bytes) -> bool:
        expected = _digests(models)
        board = self._need_board()
        board.check(models)
        self._end_session()
        self._models, self._expected = models, expected
        board.flash(models)
        written = bool(board.flashed)
        self._begin_session(self._timing.boot_s)
        self._check_stored()
        return written

    def expect(self, pattern: str | re.Pattern[str], timeout_s: float = 10.0) -> re.Match[str]:
        """Wait for *pattern* on the console, in text that no earlier ``expect`` has passed.

        Raises:
            DeviceError: It did not come in time.
        """
        match = self.console.expect(pattern, timeout_s)
        if match is None:
            text = pattern if isinstance(pattern, str) else pattern.pattern
            raise DeviceError(
                f"{text!r} did not appear on the console within {timeout_s:g} s",
                port=self._port_name,
                console_tail=self.console.tail(),
            )
        return match

    def reset(self) -> None:
        """Pulse EN and greet the device anew; the old session's models are gone."""
        self._end_session()
        board = self._need_board()
        board.reopen_if_gone()
        board.reset()
        self._begin_session(self._timing.boot_s)

    # -- recovery ----------------------------------------------------------------

    def recover(self, reason: str) -> None:
        """Bring the device back after an infrastructure fault, gently first.

        Tries a soft reset, EN, the board's power if it can be switched, then flashing everything.
        Each attempt is kept in :attr:`incidents`, with the *reason* for it. Afterwards
        :attr:`session` is a new one without loaded models.

        Raises:
            DeviceError: Nothing helped, or this device has been recovered too often.
        """
        if sum(incident.recovered for incident in self._incidents) >= MAX_RECOVERIES:
            raise TransportError(
                f"the device has been brought back {MAX_RECOVERIES} times already; "
                f"not tried again after: {headline(reason)}",
                port=self._port_name,
                console_tail=self.console.tail(),
                hint="check cable, supply and board",
            )
        ladder = {
            "soft reset": self._soft_reset,
            "EN reset": self._en_reset,
            "power cycle": self._power_cycle,
            "reflash": self._reflash,
        }
        climb(ladder, reason, self._incidents)

    def _soft_reset(self) -> bool:
        """Greet; a device that answers restarts its firmware on request."""
        self._end_session()
        if self._board is None:  # it could not be flashed; there is no port yet
            return False
        self._board.reopen_if_gone()
        self._begin_session(SOFT_GREETING_S, restarted=False)
        self.session.reboot()
        self._end_session()
        self._begin_session(self._timing.boot_s)
        return True

    def _en_reset(self) -> bool:
        if self._board is None or not self._can_reset:
            return False
        self.reset()
        return True

    def _power_cycle(self) -> bool:
        switch = self.config.power_cycle
        self._end_session()
        try:
            if switch is None or not switch():
                return False
        except Exception as error:
            raise TransportError(
                f"the power switch failed: {type(error).__name__}: {error}", port=self._port_name
            ) from error
        if self._board is None:
            self._connect()
        else:
            self._board.reopen_if_gone(is_powered_anew=True)
        self._begin_session(self._timing.boot_s)
        return True

    def _reflash(self) -> bool:
        self._end_session()
        if not self._can_reset:
            return False
        if self._board is None:
            self._connect()
        else:
            self._board.reopen_if_gone()
            kept = self.config.keep_flash
            self._board.flash(None if kept else self._models, everything=True)
        self._begin_session(self._timing.boot_s)
        return True

    # -- the session ---------------------------------------------------------------

    def _begin_session(self, timeout_s: float, *, restarted: bool = True) -> None:
        """Read what has come since the device started, and greet it."""
        board = self._need_board()
        name = self._port_name
        baud = 0 if self._is_socket else self.config.baud
        transport = Transport(board.port, name, self.console, baud=baud, timing=self._timing)
        self._transport = transport
        if restarted:
            transport.use_boot_baud()
        hello = transport.greet(timeout_s)
        info = DeviceInfo.from_hello(hello, name, board.label)
        self._check_identity(info)
        if restarted and info.boot_nonce == self._boot_nonce:
            raise transport.failures.broken(
                f"it was to restart, and HELLO is answered by the boot before ({info.boot_nonce})",
                hint="check that EN is wired to the port's RTS",
            )
        self._boot_nonce = info.boot_nonce
        if restarted and baud:
            self._speed_up(transport, min(self._max_baud, hello.max_baud))
        self._session = Session(transport, info, self._expected)

    def _speed_up(self, transport: Transport, limit: int) -> None:
        """Agree on the highest rate that the line has; one that failed is not tried again."""
        silent: list[str] = []
        for baud in FAST_BAUDS:
            if not self.config.baud < baud <= limit:
                continue
            if any(transport.change_baud(baud) for _ in range(BAUD_TRIALS)):
                break
            silent.append(f"{baud:,}")
            self._max_baud = baud - 1
        if silent:
            self.console.log(
                f"\nespdl-hil: the line does not answer at {' and '.join(silent)} baud; it goes on "
                f"at {transport.baud:,}. A bridge that cannot be faster: max_baud in the bench "
                "file, or --hil-max-baud\n"
            )

    def _end_session(self) -> None:
        self._uploaded_bytes = self.uploaded_bytes
        self._session = None
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.stop()

    def _check_identity(self, info: DeviceInfo) -> None:
        wanted = self._firmware
        if info.target != wanted.target:
            raise HandshakeError(
                f"the device is an {info.target}, expected {wanted.target}",
                port=info.port,
                hint="name the board's own --target, or another --port",
            )
        if info.app_sha256 != wanted.app_sha256:
            raise HandshakeError(
                f"the device runs an app with hash {info.app_sha256[:16]}…, "
                f"{wanted.build_dir} has {wanted.app_sha256[:16]}…",
                port=info.port,
                hint="something else boots on this device: erase its flash "
                f"(esptool --port {info.port} erase-flash) and run again",
            )

    def _check_stored(self) -> None:
        stored = {model.name: model.sha256 for model in self.session.models()}
        if stored != self._expected:
            raise StaleArtifactError(
                f"the models partition holds {_list(stored)}, flashed were {_list(self._expected)}",
                port=self._port_name,
                hint="the flash may be worn or the partition table wrong: erase it and run again",
            )

    def _need_board(self) -> Board | Emulator:
        if self._board is None:
            raise TransportError("the device is not connected", port=self._port_name)
        return self._board

    @property
    def _is_socket(self) -> bool:
        return self._port_name.startswith(SOCKET_SCHEME)

    @property
    def _can_reset(self) -> bool:
        """A bare socket has no reset line and no ROM loader behind it; our emulator restarts."""
        return not self._is_socket or self.config.machine is not None


def _digests(package: bytes | None) -> dict[str, str]:
    if package is None:
        return {}
    return {entry.name: model_digest(entry.data) for entry in read_package(package)}


def _list(models: dict[str, str]) -> str:
    return ", ".join(f"{name} ({digest[:8]}…)" for name, digest in models.items()) or "nothing"
