"""What a run owns: ports, artifacts and devices, each made once."""

from __future__ import annotations

import contextlib
import errno
import functools
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

from espdl_hil.device.machine import MACHINES
from espdl_hil.device.recovery import headline
from espdl_hil.errors import ConfigError, DeviceError, HarnessError, StreamingError
from espdl_hil.espdl import write_package
from espdl_hil.proof.boards import Boards
from espdl_hil.proof.expected import Expected
from espdl_hil.proof.package import package_models
from espdl_hil.proof.settings import AUTO, RAM, SERIAL, SIM
from espdl_hil.proof.watch import ProgressLine
from espdl_hil.report import LOGS, Incident, Written
from espdl_hil.scratch import scratch_folder
from espdl_hil.streaming import require_sound
from espdl_hil.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from espdl_hil.device.bench import BenchBoard
    from espdl_hil.device.dut import Dut
    from espdl_hil.device.firmware import Firmware
    from espdl_hil.proof.case import Case
    from espdl_hil.proof.settings import Settings
    from espdl_hil.quantize import Artifacts, Progress, Recipe
    from espdl_hil.simulator import Devkit

_HOST_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EMFILE),
    *(errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOENT),  # last: tempfile finds no folder
)


def tell_stderr(line: str) -> None:
    """Print a line to whoever watches."""
    print(line, file=sys.stderr, flush=True)


class Rig:
    """Ports, artifacts and devices of one run.

    Call in this order, so that what is missing is said before anything is made:
    ``find_ports``, ``build``, ``prepare``, ``bring_up``; ``close`` at the end.

    Args:
        settings: What the user chose.
        cases: Every case that is run.
        targets: Targets whose device is used beside those of *cases*.
        find_port: Asked first for the port of a target that *settings* names none for.
        power_cycle: Cuts the power of the board of a target, at a port; says whether it could.
            Asked where the bench file names no command.
        tell: Gets a line when boards are waited for.

    Attributes:
        settings: As given.
        cases: As given.
        ports: Target to port URL, those found included.
        devkits: The simulated devkits of this run, by target.
        watch: Shows what takes its time.
        discarded: What ``prepare`` found damaged in the store and made anew.
    """

    def __init__(
        self,
        settings: Settings,
        cases: Sequence[Case],
        *,
        targets: Sequence[str] = (),
        find_port: Callable[[str], str | None] | None = None,
        power_cycle: Callable[[str, str], bool] | None = None,
        tell: Callable[[str], object] = tell_stderr,
    ) -> None:
        self.settings = settings
        self.cases = tuple(cases)
        self.ports = dict(settings.ports)
        self.discarded: tuple[str, ...] = ()
        self.devkits: dict[str, Devkit] = {}
        self.watch = ProgressLine()
        self._targets = tuple(dict.fromkeys([*(case.target for case in cases), *targets]))
        self._power_cycle = power_cycle
        self._results: dict[str, Artifacts | HarnessError] = {}
        self._expected: dict[str, Expected] = {}
        self._build_dirs: dict[str, Path] = {}
        self._duts: dict[str, Dut] = {}
        self._dead: dict[str, HarnessError] = {}
        self._stack = contextlib.ExitStack()
        self._tell = tell
        self._boards = Boards(settings, find_port, tell)
        self._stack.callback(self._boards.release)

    # -- before the first test -----------------------------------------------------

    def find_ports(self) -> None:
        """Claim the board of every target and see that it answers, or find the emulator.

        Boards are kept from here on, so that what is made for them is made for these.

        Raises:
            BusyError: boards are in use, or out of service.
            ConfigError: a target has no board, or another chip is behind a port; there is no such
                emulator.
            DeviceError: nothing answers at a port.
        """
        if self.settings.device in MACHINES:
            for target in self._targets:
                MACHINES[self.settings.device].find(target, self.settings.emulator)
        if self.settings.device != SERIAL:
            return
        with _using_the_host():
            self._boards.choose(self._targets)
        self.ports |= {target: board.port for target, board in self.boards.items()}

    def build(self) -> None:
        """Build or find the firmware; simulated devkits make theirs at boot.

        Raises:
            ConfigError: there is no ESP-IDF and no finished build, or the build fails; an app is
                given, and a devkit that runs none.
        """
        if self.settings.app is not None and any(map(self._runs_simulation, self._targets)):
            raise ConfigError(
                f"--hil-app {self.settings.app}: a simulated devkit does not run your app",
                hint="--port or --target names a board, --hil-device qemu or espemu an emulator",
            )
        if self.settings.device != SIM:
            for target in self._targets:
                if not self._runs_simulation(target):
                    with _using_the_host():
                        self._build_dirs[target] = self._build(target)

    def prepare(self, progress: Progress | None = None) -> None:
        """Make or find the artifacts of every case; a failure belongs to its own cases.

        Args:
            progress: Called after each recipe with done, total and its label.

        Raises:
            ConfigError: the store cannot be written, or a model has no file.
        """
        from espdl_hil.quantize import Store, prepare

        recipes = [self._recipe(case) for case in self.cases]
        store = Store(self.settings.store)
        with _using_the_host():
            self._results = prepare(recipes, store, jobs=self.settings.jobs, progress=progress)
        self.discarded = tuple(store.discarded)

    def bring_up(self) -> None:
        """Flash and boot every device.

        Raises:
            ConfigError: the user must act first: a port is taken, another chip answers.
            DeviceError: a board does not come up. A fault of a simulated devkit belongs to the
                cases of its target instead.
        """
        for target in self._targets:
            try:
                self.dut(target)
            except DeviceError:
                if self.settings.device != SIM:
                    raise

    # -- while tests run -------------------------------------------------------------

    def expected(self, case: Case) -> Expected:
        """What *case* should give.

        Raises:
            StreamingError: the model cannot stream, or its export is wrong: nothing is run.
            HarnessError: quantizing or exporting the model failed.
        """
        found = self._expected.get(case.id)
        if found is None:
            result = self._result(case)
            if isinstance(result, HarnessError):
                raise result
            found = Expected(case, result)
            _require_sound(result, case)
            self._expected[case.id] = found
        return found

    def dut(self, target: str) -> Dut:
        """Return the device of *target*; the first call flashes and boots it.

        Raises:
            HarnessError: it did not come up. The first failure is final: later calls
                point to it instead of waiting again.
        """
        if target in self._dead:
            raise DeviceError(
                f"not tried again, it did not come up: {self._dead[target]}",
                port=self.ports.get(target, target),
            )
        if target not in self._duts:
            try:
                with _tolerating_libraries(), _using_the_host():
                    self._duts[target] = self._bring_up(target)
            except HarnessError as error:
                self._dead[target] = error
                raise
        return self._duts[target]

    @property
    def boards(self) -> Mapping[str, BenchBoard]:
        """The board of each target, where it is no emulator and no devkit of this run alone."""
        return self._boards.chosen

    def package(self, target: str, limit_bytes: int) -> bytes:
        """The models package of *target*: every case's files that could be made and fit."""
        return package_models(self._artifacts(target), limit_bytes)

    def firmware(self, target: str) -> Firmware:
        """The build for *target*, once :meth:`build` has found or made it.

        Raises:
            ConfigError: it is for another target.
            ArtifactError: a file of it is damaged.
        """
        from espdl_hil.device.firmware import Firmware

        return Firmware.read(self._build_dirs[target], target)

    @property
    def duts(self) -> tuple[Dut, ...]:
        """The devices that came up, in this order."""
        return tuple(self._duts.values())

    def recover(self, target: str, reason: str) -> bool:
        """Bring a device back after an infrastructure fault.

        Returns:
            Whether it is back; a failure is final.
        """
        try:
            with _tolerating_libraries(), _using_the_host():
                self._duts[target].recover(reason)
        except HarnessError as error:
            self._dead[target] = HarnessError(
                f"{headline(reason)}; nothing helped, at last: {headline(error.message)}",
                hint=error.hint,
            )
        out = self._boards.note_recovery(target, headline(reason), failed=target in self._dead)
        if out:
            self._tell(f"{self.boards[target].name} is out of service from now on: {out}")
        return target not in self._dead

    @property
    def incidents(self) -> tuple[Incident, ...]:
        """What was done to bring devices back."""
        recoveries = [
            Incident(target, i.reason, i.action, i.outcome, round(i.seconds, 3))
            for target, dut in self._duts.items()
            for i in dut.incidents
        ]
        logs = [
            Incident(target, failure, "went on without", "the rest of the log is missing", 0.0)
            for target, dut in self._duts.items()
            if (failure := dut.console.log_failure)
        ]
        return (*recoveries, *logs)

    @property
    def written(self) -> tuple[Written, ...]:
        """What was sent to each board to be kept, in flash and in memory."""
        return tuple(
            Written(target, self.ports[target], dut.flashed_bytes, dut.uploaded_bytes)
            for target, dut in self._duts.items()
            if self.settings.device == SERIAL
        )

    def close(self) -> None:
        """Close devices, then the simulated devkits behind them."""
        self._stack.close()

    # -- inside ----------------------------------------------------------------------

    def _runs_simulation(self, target: str) -> bool:
        """Whether the device is a simulated devkit, of this run or of the bench."""
        board = self.boards.get(target)
        is_bench = board is not None and (board.is_simulated or bool(board.firmware))
        return self.settings.device == SIM or is_bench

    def _switch(self, target: str, port: str) -> Callable[[], bool] | None:
        """What cuts the power of a board: what the bench says, or a hook of the lab."""
        hook = self._power_cycle and functools.partial(self._power_cycle, target, port)
        return self._boards.switch(target) or hook

    def _bring_up(self, target: str) -> Dut:
        from espdl_hil.device.dut import FAST_BAUDS, Dut, DutConfig

        port, board = self.ports.get(target), self.boards.get(target)
        if self._runs_simulation(target):
            from espdl_hil.simulator import Devkit, build_app

            folder = self._stack.enter_context(scratch_folder())
            self._build_dirs[target] = build_app(target, folder)
            if port is None or (board is not None and board.is_simulated):
                devkit = self.devkits[target] = self._stack.enter_context(
                    Devkit(target, paced=board is not None and board.pace)
                )
                port = self.ports[target] = devkit.url
        firmware, machine = self.firmware(target), None
        partition, package = firmware.models, None
        if partition is not None and self.settings.model_store != RAM:
            package = self.package(target, partition.size // 2)
        if self.settings.device in MACHINES:
            machine = self._stack.enter_context(
                MACHINES[self.settings.device](
                    firmware,
                    package or write_package([]),
                    program=self.settings.emulator,
                    arguments=self.settings.emulator_arguments,
                )
            )
            port = self.ports[target] = machine.url
        log_name = f"{target}{self.settings.log_suffix}.log"
        config = DutConfig(
            target=target,
            build_dir=firmware.build_dir,
            port=port,
            baud=self.settings.baud or (board and board.baud) or firmware.baud,
            max_baud=self.settings.max_baud or (board and board.max_baud) or FAST_BAUDS[0],
            log_path=self.settings.report / LOGS / log_name,
            time_scale=self.settings.time_scale,
            machine=machine,
            keep_flash=self.settings.model_store == AUTO,
            power_cycle=self._switch(target, str(port)),
            is_claimed=board is not None and not board.is_simulated,
        )
        return self._stack.enter_context(Dut(config, models=package))

    def _build(self, target: str) -> Path:
        from espdl_hil.device.build import build_firmware, find_app, variants_for
        from espdl_hil.simulator.sources import firmware_dir

        cache = user_cache_path("espdl-hil") / "firmware"
        if self.settings.app is None:
            kind = MACHINES.get(self.settings.device)
            variants = kind.variants if kind else variants_for(self.ports.get(target, ""))
            return build_firmware(target, firmware_dir(), cache, variants=variants)
        return find_app(Path(self.settings.app.replace("{target}", target)), target, cache)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known of the files before they are tested, a sentence each."""
        notes = [
            f"{self._recipe(case).label}: {note}"
            for target in dict.fromkeys(case.target for case in self.cases)
            for case, artifacts in self._artifacts(target)
            for note in artifacts.notes(case.chunk_frames)
        ]
        return tuple(dict.fromkeys(notes))

    def _artifacts(self, target: str) -> list[tuple[Case, Artifacts]]:
        found = []
        for case in self.cases:
            result = self._result(case)
            if case.target == target and not isinstance(result, HarnessError):
                found.append((case, result))
        return found

    def _result(self, case: Case) -> Artifacts | HarnessError:
        from espdl_hil.quantize import result_of

        return result_of(self._results, self._recipe(case), case.chunk_frames)

    @functools.cache  # noqa: B019 - one rig lives as long as the process
    def _recipe(self, case: Case) -> Recipe:
        from espdl_hil.quantize import Recipe

        return Recipe.of(case.model, TARGETS[case.target].exporter, case.bits)


def _require_sound(artifacts: Artifacts, case: Case) -> None:
    """Refuse what the lint calls wrong, with all that is known of files from elsewhere.

    Raises:
        StreamingError: of the first error among the findings.
    """
    from espdl_hil.quantize import NO_REFERENCE, NOT_JUDGED

    try:
        require_sound(artifacts.lint[case.chunk_frames])
    except StreamingError as error:
        if case.model.offline is not None:
            said = {NOT_JUDGED, NO_REFERENCE}
            notes = [note for note in artifacts.notes(case.chunk_frames) if note not in said]
            error.hint = "; ".join(filter(None, [error.hint, *notes]))
        raise


@contextlib.contextmanager
def _using_the_host() -> Iterator[None]:
    """Turn a full disk, a folder without access and a limit that is reached into advice."""
    try:
        yield
    except OSError as error:
        if error.errno not in _HOST_ERRORS:
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise ConfigError(
            f"this host has no room to work in: {error.strerror}{where}",
            hint="free some space, let TMPDIR name a folder that can be written, "
            "or raise the limit (ulimit -a)",
        ) from error


@contextlib.contextmanager
def _tolerating_libraries() -> Iterator[None]:
    """Keep a project's ``filterwarnings = error`` from turning a library's warning into a fault.

    pytest-embedded-idf leaves a file to the garbage collector, for one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
