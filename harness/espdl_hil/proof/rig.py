"""What a session owns: artifacts, devkits and devices, each made once."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

from espdl_hil.errors import ConfigError, DeviceError, HarnessError
from espdl_hil.espdl import read_package
from espdl_hil.proof.expected import Expected
from espdl_hil.proof.package import package_models
from espdl_hil.streaming import lint, require_sound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from espdl_hil.device.dut import Dut
    from espdl_hil.plugin.options import HilOptions
    from espdl_hil.proof.case import Case
    from espdl_hil.quantize import Artifacts, Progress, Recipe
    from espdl_hil.simulator import Devkit

SIM = "sim"


class Rig:
    """Artifacts and devices of one pytest session.

    Args:
        options: The command line.
        cases: Every case that a selected test runs.

    Attributes:
        options: As given.
        cases: As given.
        devkits: The simulated devkits of this session, by target.
        stored: Names of the models that were flashed, by target.
        on_device: Called with each device after it was greeted.
        discarded: What ``prepare`` found damaged in the store and made anew.
    """

    def __init__(self, options: HilOptions, cases: Sequence[Case]) -> None:
        self.options = options
        self.cases = tuple(cases)
        self.discarded: tuple[str, ...] = ()
        self.devkits: dict[str, Devkit] = {}
        self.stored: dict[str, frozenset[str]] = {}
        self.on_device: Callable[[Dut], None] = lambda _: None
        self._results: dict[str, Artifacts | HarnessError] = {}
        self._expected: dict[str, Expected] = {}
        self._build_dirs: dict[str, Path] = {}
        self._duts: dict[str, Dut] = {}
        self._dead: dict[str, HarnessError] = {}
        self._stack = contextlib.ExitStack()

    def prepare(self, progress: Progress | None = None) -> None:
        """Make or find the artifacts of every case; a failure belongs to its own cases.

        Args:
            progress: Called after each recipe with done, total and its label.
        """
        from espdl_hil.quantize import Store, prepare

        recipes = [self._recipe(case) for case in self.cases]
        store = Store(self.options.store)
        self._results = prepare(recipes, store, jobs=self.options.jobs, progress=progress)
        self.discarded = tuple(store.discarded)

    def expected(self, case: Case) -> Expected:
        """What *case* should give.

        Raises:
            StreamingError: the model cannot stream, or its export is wrong: nothing is run.
            HarnessError: quantizing or exporting the model failed.
        """
        found = self._expected.get(case.id)
        if found is None:
            result = self._results[self._recipe(case).key]
            if isinstance(result, HarnessError):
                raise result
            found = Expected(case, result)
            plan = result.plans.get(case.chunk_frames)
            require_sound(
                lint(
                    found.streaming_graph,
                    found.offline_graph,
                    frame_axes=plan.frame_axes if plan else None,
                    state=case.model.state or None,
                )
            )
            self._expected[case.id] = found
        return found

    def build(self) -> None:
        """Build or find the firmware of every board; simulated devkits make theirs at boot.

        Raises:
            ConfigError: there is no ESP-IDF and no finished build, or the build fails.
        """
        if self.options.device != SIM:
            for target in self._targets:
                self._build_dirs[target] = self._build(target)

    def bring_up(self) -> None:
        """Flash and boot every device; a fault of a device belongs to the cases of its target.

        Raises:
            ConfigError: the user must act first: a port is taken, another chip answers.
        """
        for target in self._targets:
            with contextlib.suppress(DeviceError):
                self.dut(target)

    def dut(self, target: str) -> Dut:
        """Return the device of *target*; the first call flashes and boots it.

        Raises:
            HarnessError: it did not come up. The first failure is final: later calls
                point to it instead of waiting again.
        """
        if target in self._dead:
            raise DeviceError(
                f"not tried again, it did not come up: {self._dead[target]}",
                port=self.options.ports.get(target, target),
            )
        if target not in self._duts:
            try:
                with _tolerating_libraries():
                    self._duts[target] = self._bring_up(target)
            except HarnessError as error:
                self._dead[target] = error
                raise
            self.on_device(self._duts[target])
        return self._duts[target]

    def recover(self, target: str, reason: str) -> None:
        """Bring a device back after an infrastructure fault; a failure is final."""
        try:
            with _tolerating_libraries():
                self._duts[target].recover(reason)
        except HarnessError as error:
            self._dead[target] = error

    def incidents(self, target: str) -> list[str]:
        """What was done to bring the device of *target* back, a sentence each."""
        dut = self._duts.get(target)
        return [
            f"{target}: {i.reason}; {i.action}: {i.outcome} ({i.seconds:.1f} s)"
            for i in (dut.incidents if dut else ())
        ]

    def close(self) -> None:
        """Close devices, then the simulated devkits behind them."""
        self._stack.close()

    def _bring_up(self, target: str) -> Dut:
        from espdl_hil.device.dut import DEFAULT_BAUD, Dut, DutConfig

        port = self.options.ports.get(target)
        if self.options.device == SIM:
            from espdl_hil.simulator import Devkit, build_app

            scratch = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="espdl-hil-"))
            build_dir = build_app(target, Path(scratch))
            if port is None:
                devkit = self.devkits[target] = self._stack.enter_context(Devkit(target))
                port = devkit.url
        else:
            build_dir = self._build_dirs[target]
        log_path = self.options.report / "logs" / f"{target}.log"
        log_path.unlink(missing_ok=True)  # of an earlier session
        config = DutConfig(
            target=target,
            build_dir=build_dir,
            port=port,
            baud=self.options.baud or DEFAULT_BAUD,
            log_path=log_path,
        )
        package = package_models(self._artifacts(target))
        self.stored[target] = frozenset(entry.name for entry in read_package(package))
        return self._stack.enter_context(Dut(config, models=package))

    @property
    def _targets(self) -> list[str]:
        return list(dict.fromkeys(case.target for case in self.cases))

    def _build(self, target: str) -> Path:
        from espdl_hil.device.build import build_firmware, variants_for
        from espdl_hil.simulator.sources import firmware_dir

        if self.options.build_dir is None:
            cache = user_cache_path("espdl-hil") / "firmware"
            variants = variants_for(self.options.ports.get(target, ""))
            return build_firmware(target, firmware_dir(), cache, variants=variants)
        build_dir = Path(self.options.build_dir.replace("{target}", target))
        if not build_dir.is_dir():
            raise ConfigError(
                f"--hil-build-dir {build_dir}: no such folder",
                hint="name the build folder of firmware/ that idf.py wrote for this target",
            )
        return build_dir

    def _artifacts(self, target: str) -> list[tuple[Case, Artifacts]]:
        found = []
        for case in self.cases:
            result = self._results[self._recipe(case).key]
            if case.target == target and not isinstance(result, HarnessError):
                found.append((case, result))
        return found

    @functools.cache  # noqa: B019 - one rig lives as long as the process
    def _recipe(self, case: Case) -> Recipe:
        from espdl_hil.quantize import Recipe

        return Recipe.of(case.model, case.target, case.bits)


@contextlib.contextmanager
def _tolerating_libraries() -> Iterator[None]:
    """Keep a project's ``filterwarnings = error`` from turning a library's warning into a fault.

    pytest-embedded-idf leaves a file to the garbage collector, for one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
