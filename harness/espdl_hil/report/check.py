"""One comparison of a row in numbers, and which of two is worse. Knows verdicts and JSON."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from espdl_hil.compare import FirstDifference, Outcome, StreamVerdict, Tolerance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

JsonObject = dict[str, Any]
_T = TypeVar("_T")
SEVERITY = (Outcome.PASSED, Outcome.DEVIATES, Outcome.FAILED, Outcome.ERROR)


def known(kind: type, data: Mapping[str, Any]) -> JsonObject:
    """Return what a dataclass has fields for; a later writer may have said more."""
    return {item.name: data[item.name] for item in fields(kind)}


def read(kind: type[_T], data: Mapping[str, Any]) -> _T:
    """Return a dataclass of plain fields from its JSON."""
    return kind(**known(kind, data))


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the worst of some outcomes: error, failed, deviates, passed."""
    return max(outcomes, key=SEVERITY.index)


@dataclass(frozen=True)
class Check:
    """What one comparison of a row found.

    Attributes:
        outcome: ``failed`` is about numbers, ``error`` about comparing them.
        elements: Elements that were expected.
        compared: Those that were compared; the rest has no counterpart, or is missing.
        differing: Compared elements that are not the same.
        max_lsb: Largest difference in steps; None if only float outputs were compared.
        max_relative: Largest relative difference of float outputs; None without any.
        first: The first difference; None without any.
        tolerance: What still counts as equal, in words.
        error: What could not be compared, or what else was wrong; empty without.
    """

    outcome: Outcome
    elements: int
    compared: int
    differing: int
    max_lsb: int | None
    max_relative: float | None
    first: FirstDifference | None
    tolerance: str
    error: str = ""

    @classmethod
    def of(
        cls, verdict: StreamVerdict, *, elements: int, tolerance: Tolerance | str, error: str = ""
    ) -> Check:
        """Keep a verdict.

        Args:
            verdict: The comparison.
            elements: Elements that were expected.
            tolerance: What counted as equal; also in words.
            error: What was wrong although the numbers agree; it fails the check.
        """
        return cls(
            outcome=worst([verdict.outcome, Outcome.FAILED if error else Outcome.PASSED]),
            elements=elements,
            compared=verdict.elements,
            differing=verdict.differing,
            max_lsb=verdict.max_lsb,
            max_relative=verdict.max_relative,
            first=verdict.first,
            tolerance=str(tolerance),
            error="; ".join(filter(None, [error, *verdict.errors])),
        )

    def __add__(self, other: Check) -> Check:
        """Both as one check, when it is made of two comparisons."""
        return Check(
            outcome=worst([self.outcome, other.outcome]),
            elements=self.elements + other.elements,
            compared=self.compared + other.compared,
            differing=self.differing + other.differing,
            max_lsb=largest(self.max_lsb, other.max_lsb),
            max_relative=largest(self.max_relative, other.max_relative),
            first=self.first or other.first,
            tolerance=self.tolerance,
            error="; ".join(filter(None, [self.error, other.error])),
        )

    @property
    def severity(self) -> tuple[int, int]:
        """Sorts checks: the worst outcome is largest, then the one in which most differs."""
        return SEVERITY.index(self.outcome), self.differing

    def to_json(self) -> JsonObject:
        """The check as ``results.json`` keeps it."""
        first = None if self.first is None else first_to_json(self.first)
        return {**vars(self), "outcome": str(self.outcome), "first": first} | {
            "max_relative": _finite(self.max_relative)
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Check:
        """Read what ``to_json`` wrote."""
        first = data["first"]
        values: JsonObject = {
            **known(cls, data),
            "outcome": Outcome(data["outcome"]),
            "first": first and _first_from_json(first),
            "max_relative": data["max_relative"] and float(data["max_relative"]),
        }
        return cls(**values)


def first_to_json(first: FirstDifference) -> JsonObject:
    """The six fields that the schema names; NaN and infinities become strings."""
    values = {name: getattr(first, name) for name in ("chunk", "frame", "channel", "output")}
    return values | {name: _finite(getattr(first, name)) for name in ("expected", "observed")}


def _finite(value: float | None) -> float | str | None:
    return value if value is None or np.isfinite(value) else str(value)


def _first_from_json(data: Mapping[str, Any]) -> FirstDifference:
    values = {name: data[name] for name in ("chunk", "frame", "channel", "output")}
    expected, observed = (
        float(value) if isinstance(value, str) else value
        for value in (data["expected"], data["observed"])
    )
    return FirstDifference(**values, expected=expected, observed=observed)


def largest(*values: Any) -> Any:
    """Return the largest of some numbers; None stands for none."""
    return max((value for value in values if value is not None), default=None)


def worse(one: Check | None, other: Check | None) -> Check | None:
    """The worse of two; the first of equally bad ones."""
    return max(filter(None, [one, other]), key=lambda check: check.severity, default=None)
