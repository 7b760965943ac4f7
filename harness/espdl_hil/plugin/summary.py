"""Every row of a run in one place: gathered from the reports of tests, written and printed once.

Without pytest-xdist that is the process that runs the tests, with it the controller. A row comes
home with each report of its tests, so that a worker that crashes loses none that was reported.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from espdl_hil.compare import Outcome
from espdl_hil.device.machine import MACHINES
from espdl_hil.diagnosis.cause import Cause
from espdl_hil.plugin.worker import BOARDS_UNAVAILABLE, command_of, workers_of
from espdl_hil.proof.outlets import export
from espdl_hil.proof.settings import SERIAL, SIM
from espdl_hil.report import (
    Details,
    Results,
    Row,
    cause_of,
    render_table,
    start_report,
    write_report,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from espdl_hil.proof.settings import Settings

_CASE_ID = re.compile(r"(\w+)-([\w.]+)-int(8|16)-chunk(\d+)(?=[\]-])")
_ATTRIBUTE = "espdl_hil"  # of a report; pytest-xdist carries it along
_CRASHED = "???"  # the phase of a report that pytest-xdist makes for a worker
_BAD = (Outcome.FAILED, Outcome.ERROR)
_SHOWN = 5  # ids in a line below the table


def attach(
    report: pytest.TestReport, results: Results, *, is_error: bool, is_board: bool = False
) -> None:
    """Give a report of a test its row, the device that it ran on, and what was at fault."""
    said = {"results": json.dumps(results.to_json()), "is_error": is_error, "is_board": is_board}
    setattr(report, _ATTRIBUTE, said)


def case_ids_in(node_ids: Iterable[str]) -> list[str]:
    """Return the cases that some tests run, each once.

    >>> case_ids_in(["test_a.py::test_streams[esp32s3-tcn-int8-chunk3]", "test_a.py::test_b"])
    ['esp32s3-tcn-int8-chunk3']
    """
    found = (_CASE_ID.search(node_id) for node_id in node_ids)
    return list(dict.fromkeys(match.group() for match in found if match))


def headline(
    settings: Settings, count: int, targets: Iterable[str], ports: Mapping[str, str]
) -> str:
    """Return one line on what runs where; *ports* says it of each board that is known."""
    names = ", ".join(targets)
    if settings.device == SIM:
        where = f"SIMULATED devkits ({names}): no chip is tested and no chip time measured"
    elif settings.device in MACHINES:
        where = (
            f"EMULATED devkits ({names} in {MACHINES[settings.device].title}): the "
            "whole firmware runs, but no chip is tested and no chip time measured"
        )
    else:
        where = ", ".join(f"{target} on {ports.get(target, 'a board')}" for target in targets)
    return f"hil: {count} cases on {where}"


def properties(row: Row) -> list[tuple[str, object]]:
    """Return what JUnit XML says of a test beside its outcome."""
    told: dict[str, object] = {
        "target": row.target,
        "model": row.model,
        "bits": row.bits,
        "chunk": row.chunk_frames,
        "substrate": row.substrate,
        **{name: text for name in ("emulator", "board") if (text := getattr(row, name))},
        "outcome": row.outcome,
        "cause": cause_of(row),
        **{name: getattr(row, name) for name in ("chunks", "frames", "elements", "differing")},
        "max_lsb": row.max_lsb,
    }
    for name, check in row.checks.items():
        told |= _named(name, check, "outcome", "compared", "differing", "max_lsb", "tolerance")
    told |= {"sqnr_db": row.sqnr_db, "cosine": row.cosine}
    if row.accuracy:
        told |= _named("accuracy", row.accuracy, "outcome", "sqnr_db", "changes_db", "min_sqnr_db")
    for name, figures in {
        "metric": row.metric,
        "latency_us": row.latency_us and vars(row.latency_us),  # only a chip's time counts
        "latency_cycles": row.latency_cycles,
    }.items():
        told |= {f"{name}_{which}": figure for which, figure in (figures or {}).items()}
    taken = vars(row.resources) if row.resources else {}
    told |= {name: figure for name, figure in taken.items() if figure is not None}
    told |= {f"sha256_{name}": digest for name, digest in row.artifacts.items()}
    if row.real_time_factor:
        told["real_time_factor"] = row.real_time_factor
    told["findings"] = "; ".join(row.details.findings)
    # pytest-xdist carries plain types only
    return [(n, str(value) if isinstance(value, str) else value) for n, value in told.items()]


def _named(prefix: str, found: object, *figures: str) -> dict[str, object]:
    return {f"{prefix}_{figure}": getattr(found, figure) for figure in figures}


def _wrong_with(row: Row) -> set[tuple[str, Outcome, int]]:
    """What is wrong with a row, so that two states of it can be told apart."""
    found = {(name, check.outcome, check.differing) for name, check in row.checks.items()}
    found.add(("", row.outcome, 0))
    if row.accuracy:
        found.add(("accuracy", row.accuracy.outcome, 0))
    return {entry for entry in found if entry[1] in _BAD}


def _listed(ids: Sequence[str]) -> str:
    """Some ids in a line.

    >>> _listed("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return ", ".join(ids[:_SHOWN]) + more


class Summary:
    """The rows of all processes of a run.

    Args:
        config: pytest's.
        settings: The command line.
        case_ids: The cases of the selected tests, in their order.

    Raises:
        ConfigError: the report cannot be written.
    """

    def __init__(self, config: pytest.Config, settings: Settings, case_ids: Sequence[str]) -> None:
        start_report(settings.report, workers_of(config))
        self._config = config
        self._settings = settings
        self._case_ids = case_ids
        self._parts: dict[str, Results] = {}  # by worker
        self._results: Results | None = None
        self._written: Path | None = None
        self._unwritten = ""
        self._exported: list[str] = []
        self._failed = self._of_boards = 0  # reports
        self._spoilt: dict[str, set[str]] = {}  # by row: tests that found something wrong with it
        self._answered: set[str] = set()  # rows of which a test failed
        self._xfailed: set[str] = set()  # tests
        self._silent: list[str] = []  # rows that did not pass although their tests did
        self._passed: set[str] = set()  # cases of tests that did

    def headline(self) -> str:
        """Return one line on what all workers run."""
        targets = dict.fromkeys(case_id.partition("-")[0] for case_id in self._case_ids)
        boards: dict[str, list[str]] = {}
        for board in self._settings.boards:
            boards.setdefault(board.target, []).append(str(board))
        places = {target: ", ".join(names) for target, names in boards.items()}
        ports = {**self._settings.ports, **places}
        return headline(self._settings, len(self._case_ids), targets, ports)

    @pytest.hookimpl(tryfirst=True)  # the status of a report is asked for when it is printed
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the row that came home with a report."""
        process = report.node.gateway.id if hasattr(report, "node") else ""
        found = getattr(report, _ATTRIBUTE, None)
        self._failed += report.failed
        self._of_boards += report.failed and bool(found and found["is_board"])
        if report.skipped and hasattr(report, "wasxfail"):
            self._xfailed.add(report.nodeid)
        match = _CASE_ID.search(report.nodeid)
        if match and report.when == "call" and report.passed:
            self._passed.add(match.group())
        if found is not None:
            results = Results.from_json(json.loads(found["results"]))
            self._note_wrong(process, report, results.rows)
            self._keep(process, results)
        elif report.when == _CRASHED and match:
            self._keep(f"{process} crashed", self._results_of_crash(match, str(report.longrepr)))

    @pytest.hookimpl(tryfirst=True)  # before pytest's own word for a failure that was expected
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Tell apart what differs, what could not be compared, and what only an emulator does."""
        found = getattr(report, _ATTRIBUTE, None)
        if report.when == "call" and report.failed and found and found["is_error"]:
            return "error", "E", "ERROR"
        if report.skipped and getattr(report, "wasxfail", "") == Cause.EMULATOR:
            return "deviates", "d", "DEVIATES"
        return None

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the report; a run that cannot is not green, nor one with a row that did not pass.

        Where nothing failed but boards, the exit code says so.
        """
        if not self._parts:
            return
        first, *others = self._parts.values()
        results = first.merge(*others)
        verdicts = (row for row in results.rows if row.is_verdict)
        rows = sorted(verdicts, key=lambda row: self._case_ids.index(row.id))
        if not rows:
            return
        self._silent = [row.id for row in rows if row.outcome in _BAD and self._is_silent(row.id)]
        if self._silent and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        only_boards = 0 < self._failed == self._of_boards and not self._silent
        if self._settings.device == SERIAL and only_boards:
            session.exitstatus = BOARDS_UNAVAILABLE
        self._results = replace(results, rows=tuple(rows))
        for row in rows:
            self._config.hook.pytest_espdl_hil_row(row=row.to_json())
        try:
            self._written = write_report(self._results, self._settings.report)
        except OSError as error:
            self._unwritten = (
                f"the report in {self._settings.report} was not written: "
                f"{error.strerror or error}; its folder holds no verdict of this run"
            )
            if session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.USAGE_ERROR
        self._exported = export(self._results, self._settings)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table, what is not in it, and where the report is."""
        terminalreporter.ensure_newline()
        judged = self._results.rows if self._results else ()
        unjudged = self._passed - {row.id for row in judged}
        if self._results is not None:
            for line in self._table(self._results):
                terminalreporter.write_line(line)
        if unjudged:
            ids = [case_id for case_id in self._case_ids if case_id in unjudged]
            terminalreporter.write_line(
                f"no verdict: {_listed(ids)}: their tests compared nothing that counts"
            )
        if self._results is None:
            return
        if self._silent:
            what = "1 row" if len(self._silent) == 1 else f"{len(self._silent)} rows"
            terminalreporter.write_line(
                f"ERROR: {what} did not pass although their tests passed: {_listed(self._silent)}; "
                "assert each comparison and let its errors through (a rerun mends no row), or mark "
                "the test xfail",
                red=True,
            )
        if self._written is None:
            terminalreporter.write_line(f"ERROR: {self._unwritten}", red=True)
            return
        for line in self._exported:
            terminalreporter.write_line(line)
        report = self._written.with_name("report.html")
        terminalreporter.write_line(f"report: {report}  data: {self._written}")

    def _table(self, results: Results) -> list[str]:
        """The rows as the terminal shows them, a line each."""
        from rich.console import Console

        writer = self._config.get_terminal_writer()
        table = io.StringIO()
        console = Console(
            file=table,
            width=writer.fullwidth,
            force_terminal=writer.hasmarkup,
            no_color=not writer.hasmarkup,
        )
        render_table(results, console)
        return table.getvalue().splitlines()

    def _note_wrong(self, process: str, report: pytest.TestReport, rows: Iterable[Row]) -> None:
        """Remember in which test something became wrong with a row, and whether it failed."""
        known = {row.id: _wrong_with(row) for row in self._rows_of(process)}
        for row in rows:
            if _wrong_with(row) - known.get(row.id, set()):
                self._spoilt.setdefault(row.id, set()).add(report.nodeid)
            if report.failed:
                self._answered.add(row.id)

    def _is_silent(self, row_id: str) -> bool:
        """Whether nothing that pytest says tells of what is wrong with a row."""
        told = row_id in self._answered
        return not told and bool(self._spoilt.get(row_id, set()) - self._xfailed)

    def _rows_of(self, process: str) -> tuple[Row, ...]:
        return self._parts[process].rows if process in self._parts else ()

    def _keep(self, process: str, results: Results) -> None:
        """What a process says of a row replaces what it said of it before."""
        rows = {row.id: row for row in (*self._rows_of(process), *results.rows)}
        self._parts[process] = replace(results, rows=tuple(rows.values()))

    def _results_of_crash(self, case: re.Match[str], error: str) -> Results:
        """A row of what a worker was doing when it crashed; nobody else will tell of it."""
        target, model, bits, chunk = case.groups()
        row = Row(
            id=case.group(),
            target=target,
            model=model,
            bits=int(bits),
            chunk_frames=int(chunk),
            substrate=self._settings.substrate,
            outcome=Outcome.ERROR,
            details=Details(error=error),
        )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return Results(date=now, command=command_of(self._config), rows=(row,))
