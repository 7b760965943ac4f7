"""Runs that compare with ``==``. Knows which belong together, not where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NoReturn, Protocol

from espdl_hil.compare import NotComparableError
from espdl_hil.proof.comparison import (
    Comparison,
    compare_alike,
    compare_reference,
    compare_streaming,
    interpreter_tolerance,
)
from espdl_hil.proof.findings import vector_unit_findings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from espdl_hil.compare import Tensors
    from espdl_hil.device.tensors import StepResult
    from espdl_hil.proof.expected import Expected


ADVICE = (
    "compare hil.stream() with hil.offline() or hil.interpreted(), hil.offline() with "
    "hil.reference() or hil.interpreted(), or two streams, with hil.forget() between them"
)


class VerificationError(AssertionError):
    """Elements differ; the message says where, why and how to see it again."""


class RunRole(StrEnum):
    """Whose run of which model."""

    STREAM = "stream"
    OFFLINE = "offline run"
    INTERPRETED = "interpreter's runs"
    REFERENCE = "exporter's reference"


class Ledger(Protocol):
    """What runs of one case ask of the proof that they belong to."""

    @property
    def expected(self) -> Expected:
        """What the case should give."""

    @property
    def substrate(self) -> str:
        """What the device is made of."""

    def offline(self) -> Run:
        """The device's offline run."""

    def note(self, match: Match) -> None:
        """Keep what a comparison of two plain runs found."""

    def explain(self, *matches: Match) -> list[str]:
        """Find out why plain runs differ; asked again, say the same."""


class Run:
    """What a model gave for the stimulus of a case: on the device, or on the host.

    ``==`` compares every element of every chunk, within the tolerance that the pair allows,
    past its latency, and takes a row of the report for it when both runs are as a proof demands
    them. A run equals others without being the same, so it cannot be hashed; by itself it is
    neither true nor false.

    Args:
        role: Whose run of which model.
        outputs: Graph outputs of each step, in the file's layout; the offline model has one.
        ledger: The proof that it belongs to.
        steps: What the device said of its steps besides.
        plain: Whether it was made as a proof demands; otherwise it is a control.
    """

    __hash__ = None  # type: ignore[assignment]  # equal runs are not the same run

    def __init__(
        self,
        role: RunRole,
        outputs: Sequence[Tensors],
        ledger: Ledger,
        *,
        steps: Sequence[StepResult] = (),
        plain: bool = True,
    ) -> None:
        self.role = role
        self.outputs = outputs
        self.steps = steps
        self.plain = plain
        self.case = ledger.expected.case
        self._ledger = ledger
        self._matches: list[tuple[Run, Match]] = []

    def __repr__(self) -> str:
        chunks = f", {len(self.outputs)} chunks" if self.role is RunRole.STREAM else ""
        return f"<{self.role} of {self.case.id}{'' if self.plain else ', changed'}{chunks}>"

    def __bool__(self) -> NoReturn:
        """Refuse to be asserted: whatever the device gives, there would be a run.

        Raises:
            NotComparableError: always.
        """
        raise NotComparableError(
            f"{self!r} is neither right nor wrong",
            hint="compare it: assert hil.stream() == hil.offline()",
        )

    def __eq__(self, other: object) -> bool:
        """Whether all elements that belong together are equal.

        Raises:
            NotComparableError: something was to be compared and could not be, or nothing was; or
                both are one run.
            TypeError: these two do not belong together.
        """
        match = self.match(other)
        if match.counted:
            self._ledger.note(match)
        errors = [error for found in match.comparisons for error in found.verdict.errors]
        if errors:
            raise NotComparableError(f"{self!r} and {other!r}: {'; '.join(errors)}")
        return match.equal

    def __ne__(self, other: object) -> bool:
        return not self == other

    @property
    def findings(self) -> tuple[str, ...]:
        """What the device said of its steps that puts their values in doubt."""
        return vector_unit_findings(self.steps)

    def explain(self, other: Run) -> list[str]:
        """Say what differs and why, or what is equal, a line each.

        Args:
            other: What this run was compared with.

        Returns:
            For two runs that should have been equal the diagnosis, its next step and the command
            that replays it; what differs for a control.
        """
        match = self.match(other)
        if match.equal:
            return [
                f"all that was compared is equal: {found.verdict}" for found in match.comparisons
            ]
        if match.counted:
            return self._ledger.explain(match)
        return [str(found) for found in match.comparisons if not found.passed]

    def match(self, other: object) -> Match:
        """Compare with another run, once; nothing is noted.

        Raises:
            NotComparableError: both are one run.
            TypeError: these two do not belong together.
        """
        if other is self:
            raise NotComparableError(
                f"{self!r} was compared with itself: it is made once, and kept",
                hint="hil.forget() between them makes another run",
            )
        for known, match in self._matches:
            if known is other:
                return match
        if not isinstance(other, Run):
            raise TypeError(f"{self!r} cannot be compared with {type(other).__name__}; {ADVICE}")
        if self.case != other.case:
            raise TypeError(f"{self!r} and {other!r} are of two cases and cannot be compared")
        match = _match(self, other, self._ledger)
        self._matches.append((other, match))
        return match


@dataclass(frozen=True, eq=False)
class Match:
    """Two runs that belong together, compared; true if they are equal.

    Attributes:
        runs: Both.
        check: The row's check, ``streaming``, ``interpreter`` or ``reference``; empty for others.
        counted: Whether the row's numbers are made of it.
        parts: By what is compared, ``stream`` or ``offline``.
    """

    runs: tuple[Run, Run]
    check: str
    counted: bool
    parts: Mapping[str, Comparison]

    def __bool__(self) -> bool:
        return self.equal

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """All comparisons, in the order in which a cause is looked for."""
        return tuple(self.parts.values())

    @property
    def equal(self) -> bool:
        """Whether nothing differs and everything was compared."""
        return all(comparison.passed for comparison in self.comparisons)

    def explain(self) -> list[str]:
        """Say what differs and why; see ``Run.explain``."""
        return self.runs[0].explain(self.runs[1])


def against_interpreter(ledger: Ledger, run: Run) -> Comparison:
    """Compare a run of the device with the interpreter's run of the same file."""
    expected, streaming = ledger.expected, run.role is RunRole.STREAM
    return compare_alike(
        expected,
        expected.stream if streaming else [expected.offline],
        run.outputs,
        what=f"the {run.role} differs from the interpreter's",
        streaming=streaming,
        against="interpreter",
        tolerance=interpreter_tolerance(expected, ledger.substrate),
        steps=run.steps,
    )


def _match(left: Run, right: Run, ledger: Ledger) -> Match:
    pair = (left, right)
    runs = {run.role: run for run in (right, left)}
    expected, plain = ledger.expected, left.plain and right.plain
    stream, offline = runs.get(RunRole.STREAM), runs.get(RunRole.OFFLINE)
    if left.role is right.role and left.role in (RunRole.STREAM, RunRole.OFFLINE):
        found = compare_alike(
            expected,
            right.outputs,
            left.outputs,
            what=f"the {left.role} differs from the other one",
            streaming=stream is not None,
            against="stream",
            steps=left.steps,
        )
        return Match(pair, "", False, {"offline" if stream is None else "stream": found})
    if stream is not None and offline is not None:
        found = compare_streaming(expected, stream.outputs, offline.outputs[0], stream.steps)
        return Match(pair, "streaming", plain, {"stream": found})
    if RunRole.INTERPRETED in runs and (stream is not None or offline is not None):
        parts = {}
        if offline is not None or plain:
            whole = ledger.offline() if offline is None else offline
            parts["offline"] = against_interpreter(ledger, whole)
        if stream is not None:
            parts["stream"] = against_interpreter(ledger, stream)
        return Match(pair, "interpreter", plain, parts)
    if offline is not None and RunRole.REFERENCE in runs:
        found = compare_reference(expected, offline.outputs[0], ledger.substrate)
        return Match(pair, "reference", plain, {"offline": found})
    raise TypeError(f"{left!r} and {right!r} have nothing to be compared in; {ADVICE}")
