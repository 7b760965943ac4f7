"""The side of the plugin that works with devices: registered only when a test asks for one."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from _pytest._code.code import (
    ExceptionRepr,
    ReprEntryNative,
    ReprExceptionInfo,
    ReprFileLocation,
    ReprTraceback,
)

from espdl_hil.compare import Outcome
from espdl_hil.device.errors import RequestError
from espdl_hil.diagnosis.cause import Cause
from espdl_hil.errors import DeviceError, HarnessError, StreamingError, printable
from espdl_hil.plugin.guest import leave_out_embedded, mortal_manager
from espdl_hil.plugin.progress import make_watch
from espdl_hil.plugin.summary import attach, headline, properties
from espdl_hil.plugin.worker import command_of, refuse, worker_name
from espdl_hil.proof.hil import Hil
from espdl_hil.proof.ready import make_ready
from espdl_hil.proof.rig import Rig
from espdl_hil.proof.rows import RowBook
from espdl_hil.proof.run import Run, VerificationError
from espdl_hil.proof.settings import SERIAL

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from espdl_hil.device.dut import Dut
    from espdl_hil.proof.case import Case
    from espdl_hil.proof.settings import Settings


def case_of(item: pytest.Item) -> Case | None:
    """Return the case that a collected test runs, or None for a test without ``hil``."""
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("hil_case")


def target_of(item: pytest.Item) -> str | None:
    """Return the target whose device a collected test uses, or None if it uses none."""
    callspec = getattr(item, "callspec", None)
    case = case_of(item)
    return case.target if case else callspec and callspec.params.get("hil_dut")


def cases_of(items: Iterable[pytest.Item]) -> list[Case]:
    """Return the cases of some tests, each once."""
    return list(dict.fromkeys(case for item in items if (case := case_of(item))))


def targets_of(items: Iterable[pytest.Item]) -> list[str]:
    """Return the targets of some tests, each once."""
    return list(dict.fromkeys(target for item in items if (target := target_of(item))))


class HilSession:
    """Artifacts, devices and rows of one process, and the hooks that drive them.

    *cases* and *targets* are those of the selected tests.
    """

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        cases: Sequence[Case],
        targets: Sequence[str],
    ) -> None:
        self._config = config
        self._settings = settings
        self._targets = targets
        self._rig = Rig(
            settings,
            cases,
            targets=targets,
            find_port=lambda target: config.hook.pytest_espdl_hil_find_port(target=target),
            power_cycle=lambda target, port: bool(
                config.hook.pytest_espdl_hil_power_cycle(target=target, port=port)
            ),
        )
        self._rig.watch = make_watch(config)
        self._book = RowBook(self._rig, command=command_of(config))
        self._explanation: list[str] = []  # of the comparison that failed last

    def find_ports(self) -> None:
        """Look for the boards, before anything is built or quantized.

        Raises:
            HarnessError: one is missing, busy or silent.
        """
        capture = self._config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():  # the queue is told to whoever watches
            self._rig.find_ports()

    def open(self, case: Case) -> Hil:
        """Return what a test of *case* works with; its device is up, or its runs say why not."""
        with contextlib.suppress(DeviceError):
            self._rig.dut(case.target)
        return Hil(case, self._book)

    def dut(self, target: str) -> Dut:
        """Return the device of *target*."""
        return self._rig.dut(target)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Make everything ready before the first test.

        Raises:
            pytest.UsageError: the user must act first: there is no firmware to flash, a board
                is silent, a folder cannot be written.
        """
        if session.testsfailed and not session.config.option.continue_on_collection_errors:
            return  # pytest stops
        for item in session.items:
            if target_of(item) and isinstance(item, pytest.Function):
                leave_out_embedded(item)
        capture = session.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            try:
                # which devkits a worker needs, its tests will say
                devices = not worker_name(session.config) or self._settings.device == SERIAL
                make_ready(self._rig, sys.stderr, devices=devices)
            except HarnessError as error:
                refuse(session.config, error)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[object]
    ) -> Generator[None, object, object]:
        """Take care that pytest-embedded leaves no process with our ports in it."""
        if fixturedef.argname != "_mp_manager":
            return (yield)
        with mortal_manager():
            return (yield)

    def pytest_report_collectionfinish(self) -> str:
        """Say before anything runs whether chips or simulated devkits are tested."""
        places = self._rig.ports | {
            target: str(board) for target, board in self._rig.boards.items()
        }
        return headline(self._settings, len(self._rig.cases), self._targets, places)

    def pytest_assertrepr_compare(self, op: str, left: object, right: object) -> list[str] | None:
        """Say in a line what differs; the whole diagnosis follows, which pytest would cut off."""
        if op not in ("==", "!=") or not (isinstance(left, Run) and isinstance(right, Run)):
            return None
        self._explanation = [printable(line) for line in left.explain(right)]
        return self._explanation[:1]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Let the outcome count for its row, and send the row along with the report."""
        report = yield
        case = case_of(item)
        if case is None:
            return report
        is_error = is_board = False
        if call.excinfo is not None and report.failed:
            error = call.excinfo.value
            is_error = not isinstance(
                error, StreamingError | AssertionError | pytest.fail.Exception
            )
            is_board = isinstance(error, DeviceError) and not isinstance(error, RequestError)
            self._show(case, error, report)
            outcome = Outcome.ERROR if is_error else Outcome.FAILED
            if f"{case.id}: {Cause.EMULATOR}" in str(error):
                report.outcome, report.wasxfail = "skipped", str(Cause.EMULATOR)
                outcome = Outcome.DEVIATES
            text = str(error) if isinstance(error, HarnessError) else str(error).partition("\n")[0]
            text = text.removeprefix(f"{case.id}: ") or type(error).__name__
            self._book.note_outcome(case, outcome, text)
        if (row := self._book.row(case)) is not None:
            results = replace(self._book.results, rows=(row,))
            attach(report, results, is_error=is_error, is_board=is_board)
            told = properties(row) if row.is_verdict else []
            others = [pair for pair in item.user_properties if pair[0] not in dict(told)]
            report.user_properties[:] = item.user_properties[:] = [*others, *told]
        return report

    def pytest_sessionfinish(self) -> None:
        """Close the devices."""
        self._rig.close()

    def _show(self, case: Case, error: BaseException, report: pytest.TestReport) -> None:
        """Print our own errors as they are, and the diagnosis below an assertion."""
        lines, self._explanation = self._explanation, []
        if isinstance(error, HarnessError | VerificationError):
            text = printable(str(error))
            report.longrepr = _whole(text if case.id in text else f"{case.id}: {text}", report)
            return
        if not isinstance(error, AssertionError):
            return
        if not lines or lines[0] not in str(error):  # another assertion's, or --assert=plain
            lines = [printable(line) for line in self._book.explain(case)]
        if len(lines) > 1 and isinstance(report.longrepr, ExceptionRepr):
            report.longrepr.addsection(case.id, "\n".join(lines))


def _whole(text: str, report: pytest.TestReport) -> ExceptionRepr:
    """Print a text whole, once: as a plain string, CI's short summary would repeat all of it."""
    path, line, _ = report.location
    crash = ReprFileLocation(path, (line or 0) + 1, text.partition("\n")[0])
    return ReprExceptionInfo(ReprTraceback([ReprEntryNative([text, "\n"])], None, "native"), crash)
