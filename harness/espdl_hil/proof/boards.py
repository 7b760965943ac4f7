"""Which board each target gets: claimed, asked who it is before any write, kept until the end."""

from __future__ import annotations

import contextlib
import functools
import io
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from espdl_hil.device.bench import LABGRID_SCHEME, BenchBoard, Power
from espdl_hil.device.claim import Claim
from espdl_hil.device.service_record import note_ours, note_recovery, read_record
from espdl_hil.errors import BusyError, ConfigError, DeviceError
from espdl_hil.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from espdl_hil.device.claim import Candidate
    from espdl_hil.device.labgrid_place import LabgridPlace
    from espdl_hil.device.ports import ChipFacts
    from espdl_hil.proof.settings import Settings

REMOTE_UART: Final = "socket://"  # an emulator's; there is no chip to ask before it boots
OUR_APPS: Final = ("espdl_hil", "espdl_hil_sim")  # project names of firmware/ and its simulation


class Boards:
    """The boards of one run.

    Args:
        settings: What the user chose.
        find_port: Asked first for the port of a target that the user named none for.
        tell: Gets a line when boards are waited for.

    Attributes:
        chosen: The board of each target.
    """

    def __init__(
        self,
        settings: Settings,
        find_port: Callable[[str], str | None] | None,
        tell: Callable[[str], object],
    ) -> None:
        self.chosen: dict[str, BenchBoard] = {}
        self._settings = settings
        self._find_port = find_port
        self._tell = tell
        self._claims: list[Claim] = []
        self._places: dict[str, LabgridPlace] = {}  # of labgrid, by target

    def choose(self, targets: Sequence[str]) -> None:
        """Claim a board for each target, and see that it is the one that is meant.

        A silent board of several is put out of service, and the next one taken.

        Raises:
            BusyError: all that would do are in use or out of service.
            ConfigError: there is none, or it is another than it should be.
            DeviceError: nothing answers at a port.
        """
        try:
            self._choose(targets)
        except BaseException:
            self.release()
            raise

    def _choose(self, targets: Sequence[str]) -> None:
        wait_end_s = time.monotonic() + self._settings.wait_s
        named = {target: self._named(target) for target in targets}
        silent: list[DeviceError] = []
        while not all(target in self.chosen for target in targets if named[target]):
            self._claim_named(named, max(0.0, wait_end_s - time.monotonic()), silent)
        for target in targets:
            if not named[target]:
                self._search(target, max(0.0, wait_end_s - time.monotonic()))

    def release(self) -> None:
        """Give all boards back."""
        self.chosen.clear()
        while self._places:
            self._places.popitem()[1].release()
        while self._claims:
            self._claims.pop().release()

    def note_recovery(self, target: str, reason: str, *, failed: bool) -> str:
        """Count a recovery of the board of *target*; says why it is out of service, if it is."""
        board = self.chosen.get(target)
        if board is None:
            return ""
        return note_recovery(board.identity, reason, board.quarantine, failed=failed)

    # -- boards that have a name -------------------------------------------------------

    def _named(self, target: str) -> list[BenchBoard]:
        """Boards of the bench or of the command line; none if one has to be looked for."""
        boards = [board for board in self._settings.boards if board.target == target]
        if boards:
            return boards
        port = self._settings.ports.get(target)
        if port is None and self._find_port is not None:
            port = self._find_port(target)
        return [] if port is None or "*" in port else [BenchBoard(port, target, port)]

    def _claim_named(
        self, named: dict[str, list[BenchBoard]], wait_s: float, silent: list[DeviceError]
    ) -> None:
        """Claim one board of each target at once; where one is silent, strike it off the list."""
        slots = {
            target: self._present(target, boards, silent)
            for target, boards in named.items()
            if boards
        }
        end_s = time.monotonic() + wait_s
        claim = Claim([list(slot) for slot in slots.values()]).acquire(wait_s, self._tell)
        self._claims.append(claim)
        for (target, slot), held in zip(slots.items(), claim.held, strict=True):
            board, port = listed, _ = slot[held]
            try:
                if port.startswith(LABGRID_SCHEME):
                    left_s = 0.0 if len(slot) > 1 else max(0.0, end_s - time.monotonic())
                    board, port = self._acquire(target, board, left_s)
                self._require(board, port)
            except BusyError:  # a labgrid place that another host has, or a port that is open
                if len(slot) == 1:
                    raise
                named[target].remove(listed)
                self.release()
                return
            except DeviceError as error:
                if len(slot) == 1 and not silent:
                    raise
                silent.append(error)
                self._tell(f"{board.name} is out of service: {error.message}")
                note_recovery(board.identity, error.message, board.quarantine, failed=True)
                named[target].remove(listed)
                self.release()
                return
            self.chosen[target] = replace(board, port=port)

    def _acquire(self, target: str, board: BenchBoard, wait_s: float) -> tuple[BenchBoard, str]:
        """Acquire the labgrid place that a board is, and say where its port is."""
        from espdl_hil.device.labgrid_place import LabgridPlace

        place = self._places[target] = LabgridPlace(board.port, wait_s, self._tell)
        return replace(board, baud=board.baud or place.baud), place.port

    def switch(self, target: str) -> Callable[[], bool] | None:
        """What cuts the power of a target's board: the bench's command, labgrid, or nothing."""
        from espdl_hil.device.power import power_cycle

        board = self.chosen.get(target)
        if board is not None and board.power != Power():
            return functools.partial(power_cycle, board)
        if place := self._places.get(target):
            return place.power_cycle
        return None

    def _present(
        self, target: str, boards: Sequence[BenchBoard], silent: Sequence[DeviceError]
    ) -> dict[Candidate, tuple[BenchBoard, str]]:
        """Boards of a target that are attached and in service, with their ports."""
        found: dict[Candidate, tuple[BenchBoard, str]] = {}
        reasons = [f"{error.port}: {error.message}" for error in silent]
        for board in boards:
            record = read_record(board.identity) if board.identity else None
            if record and record.out:
                reasons.append(f"{board.name} is out of service: {record.out}")
                continue
            try:
                port = board.locate()
            except ConfigError as error:
                reasons.append(error.message)
                continue
            found[board.candidate(port)] = (board, port)
        if not found:
            raise BusyError(
                f"no board of target {target} can be used\n  " + "\n  ".join(reasons),
                hint="once a board is mended: espdl-hil bench clear NAME",
            )
        return found

    def _require(self, board: BenchBoard, port: str) -> None:
        """See that the chip at a port is the one of the bench, before anything is written.

        Raises:
            ConfigError: it is another one.
            DeviceError: nothing answers.
        """
        if board.is_simulated or port.startswith(REMOTE_UART):
            return
        facts = identify(port, board.target)
        problem, hint = mismatch(board, facts)
        if problem:
            raise ConfigError(f"{problem}; nothing was written", hint=hint)

    # -- boards that have to be looked for ---------------------------------------------

    def _search(self, target: str, wait_s: float) -> None:
        from espdl_hil.device.ports import find_port

        pattern = self._settings.ports.get(target)
        claim = find_port(target, pattern, wait_s=wait_s, on_wait=self._tell)
        self._claims.append(claim)
        facts = identify(claim.port, target, read_app=not self._settings.overwrite)
        identity = f"mac:{facts.mac}"
        if self._settings.overwrite:
            note_ours(identity)
        elif facts.app and facts.app not in OUR_APPS and not read_record(identity).is_ours:
            title = TARGETS[target].title
            raise ConfigError(
                f"the {title} found at {claim.port} (MAC {facts.mac}) holds another firmware, "
                f"{facts.app!r}, which this run would overwrite; nothing was written",
                hint="if that is the board for it: --hil-overwrite, once for this board; else name "
                "the board with --port",
            )
        self.chosen[target] = BenchBoard(claim.port, target, claim.port, mac=facts.mac)


def mismatch(board: BenchBoard, facts: ChipFacts) -> tuple[str, str]:
    """Say what a chip has other than its board should, and what to do; nothing if it is the one."""
    title = TARGETS[facts.target].title if facts.target in TARGETS else facts.target
    where = f"the chip at {board.port}" + (f" ({board.name})" if board.bench else "")
    if facts.target != board.target:
        return (
            f"--target {board.target}, but {where} is an {title}",
            "name the board's own --target, or another --port",
        )
    if board.mac and facts.mac != board.mac:
        return (
            f"{where} has the MAC {facts.mac}, the bench file says {board.mac}: "
            "boards were swapped",
            "put them back, or write the bench file anew: espdl-hil bench scan",
        )
    low, high = board.min_revision, board.max_revision
    if low is not None and high is not None and not low <= facts.revision <= high:
        return (
            f"{where} has revision {spelt(facts.revision)}, the bench file says "
            f"{spelt(low)} to {spelt(high)}",
            "binaries for the ESP32-P4 below and from revision 3 are not interchangeable: correct "
            "the bench file, and select boards by tag",
        )
    return "", ""


def spelt(revision: int) -> str:
    """A chip revision as people write it.

    >>> spelt(301)
    '3.1'
    """
    return f"{revision // 100}.{revision % 100}"


def identify(port: str, target: str, *, read_app: bool = False) -> ChipFacts:
    """Ask the chip behind a port who it is.

    Raises:
        ConfigError: this user may not open it.
        BusyError: another program has it open.
        DeviceError: nothing answers.
    """
    from espdl_hil.device.ports import PROBE_DEADLINE_S, explain_open_failure, identify_chip
    from espdl_hil.device.rfc2217_handler import event_url, register

    register()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # esptool prints as it connects
            return identify_chip(event_url(port), PROBE_DEADLINE_S, read_app=read_app)
    except Exception as error:
        if isinstance(error, OSError):
            told = explain_open_failure(error)
            if told.startswith("permission"):
                raise ConfigError(f"port {port}: {told}") from None
            if told.startswith("busy"):
                raise BusyError(f"port {port}: {told}", hint="end that program") from None
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DeviceError(
            f"no {TARGETS[target].title} answers: {reason}",
            port=port,
            hint="check power, cable and the port's name; hold BOOT while connecting if the board "
            "has no automatic reset",
        ) from error
