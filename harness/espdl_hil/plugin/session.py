"""The runtime side of the plugin: registered only when a collected test uses ``hil``."""

from __future__ import annotations

import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import pytest

from espdl_hil.compare import Outcome
from espdl_hil.errors import ConfigError, HarnessError, StreamingError
from espdl_hil.proof.case import case_of
from espdl_hil.proof.hil import Hil
from espdl_hil.proof.rig import SIM, Rig
from espdl_hil.proof.rows import RowBook

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from espdl_hil.plugin.options import HilOptions
    from espdl_hil.proof.case import Case

SIMULATED, SERIAL = "simulated", "serial"


class HilSession:
    """Artifacts, devices and rows of one pytest session, and the hooks that drive them.

    Args:
        options: The command line.
        cases: Cases of the selected tests.
    """

    def __init__(self, options: HilOptions, cases: Sequence[Case]) -> None:
        self._options = options
        self._rig = Rig(options, cases)
        self._book = RowBook()
        self._rig.on_device = self._book.note_device
        self._written: Path | None = None
        self._errors: set[str] = set()  # tests whose comparison could not be made

    def headline(self) -> str:
        """Return one line on what will run where."""
        targets = ", ".join(dict.fromkeys(case.target for case in self._rig.cases))
        if self._options.device == SIM:
            where = f"SIMULATED devkits ({targets}): no chip is tested and no chip time measured"
        else:
            where = ", ".join(f"{t} on {port}" for t, port in self._options.ports.items())
        return f"hil: {len(self._rig.cases)} cases on {where}"

    def open(self, case: Case) -> Hil:
        """Return what a test of *case* works with."""
        return Hil(case, self._rig, self._book)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Quantize before the first test, close devices and write the report after the last.

        Raises:
            pytest.UsageError: the user must act first: a folder cannot be written, there is no
                firmware to flash, a port is taken.
        """
        try:
            capture = session.config.pluginmanager.getplugin("capturemanager")
            with capture.global_and_fixture_disabled():
                try:
                    require_writable(self._options.report)
                    self._prepare()
                except ConfigError as error:
                    raise pytest.UsageError(str(error)) from None
            return (yield)
        finally:
            self._rig.close()
            if self._book.results.rows:
                self._written = self._book.write(self._options.report)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Print the harness's errors as they are, and let the outcome count for its row."""
        report = yield
        case = case_of(item)
        if case is None or call.excinfo is None or report.skipped:
            return report
        error = call.excinfo.value
        outcome, text = Outcome.FAILED, str(error).partition("\n")[0]
        text = text.removeprefix(f"{case.id}: ")
        if isinstance(error, HarnessError):
            report.longrepr = f"{case.id}: {error}"
            text = str(error)
        if not isinstance(error, StreamingError | AssertionError | pytest.fail.Exception):
            outcome = Outcome.ERROR
            self._errors.add(report.nodeid)
        kind = SIMULATED if self._options.device == SIM else SERIAL
        self._book.note_outcome(case, kind, outcome, text)
        return report

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Count what could not be compared as an error, not as a failed comparison."""
        if report.when == "call" and report.failed and report.nodeid in self._errors:
            return "error", "E", "ERROR"
        return None

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table."""
        from rich.console import Console

        from espdl_hil.report import render_table

        if self._written is None:
            return
        writer = terminalreporter.config.get_terminal_writer()
        terminalreporter.ensure_newline()
        console = Console(
            file=_Lines(writer),  # type: ignore[arg-type]  # all that rich writes to
            width=writer.fullwidth,
            force_terminal=writer.hasmarkup,
            no_color=not writer.hasmarkup,
        )
        render_table(self._book.results, console)
        for target in self._options.targets:
            for incident in self._rig.incidents(target):
                terminalreporter.write_line(f"recovered {incident}")
        report = self._written.with_name("report.html")
        terminalreporter.write_line(f"report: {report}  data: {self._written}")

    def _prepare(self) -> None:
        """Make firmware and artifacts, with a progress bar where somebody watches; flash."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        console = Console(file=sys.stderr)
        with console.status("building the firmware"):
            self._rig.build()
        start_s = time.monotonic()
        columns = (
            TextColumn("quantizing"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
        )
        with Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as bar:
            task = bar.add_task("", total=None)
            self._rig.prepare(
                lambda done, total, label: bar.update(
                    task, completed=done, total=total, description=label
                )
            )
        elapsed_s = time.monotonic() - start_s
        if elapsed_s > 1 and not console.is_terminal:
            print(f"quantized {len(self._rig.cases)} cases in {elapsed_s:.1f} s", file=sys.stderr)
        for text in self._rig.discarded:
            print(f"artifact store: {text}", file=sys.stderr)
        with console.status("flashing"):
            self._rig.bring_up()


class _Lines:
    """A text file as rich sees it, over pytest's terminal writer."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, text: str) -> int:
        self._writer.write(text)
        return len(text)

    def flush(self) -> None:
        self._writer.flush()


def require_writable(report: Path) -> None:
    """Find out before the first test whether the report can be written after the last.

    Raises:
        ConfigError: its folder cannot be made, or takes no files.
    """
    try:
        report.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=report):
            pass
    except OSError as error:
        raise ConfigError(
            f"the report's folder {report} cannot be written: {error.strerror or error}",
            hint="name another folder with --hil-report DIR",
        ) from None


def check_ports(options: HilOptions, cases: Sequence[Case]) -> None:
    """Find a board for every target before any test starts.

    Found ports are noted in ``options.ports``.

    Raises:
        ConfigError: a target has no board.
    """
    from espdl_hil.device.ports import find_port

    for target in dict.fromkeys(case.target for case in cases):
        with find_port(target, options.ports.get(target)) as lease:
            options.ports[target] = lease.port
