"""The runtime side of the plugin: registered only when a collected test uses ``hil``."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from espdl_hil.compare import Outcome
from espdl_hil.errors import ConfigError, DeviceError, HarnessError, StreamingError
from espdl_hil.proof.hil import Hil
from espdl_hil.proof.rig import Rig
from espdl_hil.proof.rows import RowBook
from espdl_hil.proof.run import VerificationError
from espdl_hil.proof.settings import SIM
from espdl_hil.report import start_report, write_report

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from espdl_hil.proof.case import Case
    from espdl_hil.proof.settings import Settings


def case_of(item: pytest.Item) -> Case | None:
    """Return the case that a collected test runs, or None for a test without ``hil``."""
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("hil_case")


class HilSession:
    """Artifacts, devices and rows of one pytest session, and the hooks that drive them.

    Args:
        options: The command line.
        cases: Cases of the selected tests.
        command: The command line.
    """

    def __init__(self, options: Settings, cases: Sequence[Case], command: str) -> None:
        self._options = options
        self._rig = Rig(options, cases)
        self._book = RowBook(self._rig, command=command)
        self._written: Path | None = None
        self._errors: set[str] = set()  # tests whose comparison could not be made

    def headline(self) -> str:
        """Return one line on what will run where."""
        targets = ", ".join(dict.fromkeys(case.target for case in self._rig.cases))
        if self._options.device == SIM:
            where = f"SIMULATED devkits ({targets}): no chip is tested and no chip time measured"
        else:
            where = ", ".join(f"{t} on {port}" for t, port in self._rig.ports.items())
        return f"hil: {len(self._rig.cases)} cases on {where}"

    def open(self, case: Case) -> Hil:
        """Return what a test of *case* works with."""
        return Hil(case, self._book)

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
                    start_report(self._options.report)
                    self._prepare()
                except (ConfigError, DeviceError) as error:
                    raise pytest.UsageError(str(error)) from None
            return (yield)
        finally:
            self._rig.close()
            if self._book.results.rows:
                self._written = write_report(self._book.results, self._options.report)

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
        if isinstance(error, VerificationError):
            report.longrepr = str(error)
        elif explained := self._book.explain(case):  # what pytest's own text does not say
            report.sections.append(("espdl-hil", "\n".join(explained)))
        if isinstance(error, HarnessError):
            report.longrepr = f"{case.id}: {error}"
            text = str(error)
        if not isinstance(error, StreamingError | AssertionError | pytest.fail.Exception):
            outcome = Outcome.ERROR
            self._errors.add(report.nodeid)
        self._book.note_outcome(case, outcome, text)
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
        report = self._written.with_name("report.html")
        terminalreporter.write_line(f"report: {report}  data: {self._written}")

    def _prepare(self) -> None:
        """Make firmware and artifacts, with a progress bar where somebody watches; flash."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        console = Console(file=sys.stderr)
        self._rig.find_ports()
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
