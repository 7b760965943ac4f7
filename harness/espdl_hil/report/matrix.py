"""A row in a word: the letter of its outcome, its weakest figure, its cause. Knows rows."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from espdl_hil.compare import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from espdl_hil.report.check import Check
    from espdl_hil.report.row import Row

_K = TypeVar("_K")
LETTERS = {Outcome.PASSED: "P", Outcome.DEVIATES: "D", Outcome.FAILED: "F", Outcome.ERROR: "E"}
RULE = re.compile(r"\[(S\d{3})\]")


def weakest_figure(row: Row) -> str:
    """The figure in which a row is worst; of one that passed, what is left of the float model."""
    if row.outcome is Outcome.ERROR:
        return "no verdict"
    if row.outcome is not Outcome.PASSED:
        if any(check.differing for check in _failed(row)):
            steps = max((check.max_lsb or 0 for check in _failed(row)), default=0)
            return f"{steps:,} LSB" if steps else f"{row.differing:,} differ"
        accuracy = row.accuracy
        if accuracy and accuracy.outcome is not Outcome.PASSED:
            return f"{accuracy.sqnr_db:.1f} dB"
        return rule.group(1) if (rule := RULE.search(row.reason)) else "refused"
    decibels = row.accuracy.sqnr_db if row.accuracy else row.sqnr_db
    return "equal" if decibels is None else f"{decibels:.0f} dB"


def cause_of(row: Row) -> str:
    """Why a row did not pass, in words that rows share; empty for one that passed."""
    if row.outcome is Outcome.PASSED:
        return ""
    if row.diagnosis:
        return str(row.diagnosis["cause"])
    if row.outcome is Outcome.ERROR:
        return "no verdict"
    if rule := RULE.search(row.reason):
        return f"rule {rule.group(1)}"
    if any(check.differing for check in _failed(row)):
        return "not diagnosed"
    if row.accuracy and row.accuracy.outcome is not Outcome.PASSED:
        return "too little accuracy"
    return "not as the test demands"


def sentence(rows: Sequence[Row]) -> str:
    """Say in one sentence what a run found.

    >>> sentence([])
    'No verdicts: nothing was compared'
    """
    bad = [row for row in rows if row.outcome is not Outcome.PASSED]
    if not rows:
        return "No verdicts: nothing was compared"
    if not bad:
        return "The row passed" if len(rows) == 1 else f"All {len(rows):,} rows passed"
    causes = Counter(cause_of(row) for row in bad).most_common()
    told = ", ".join(
        f"{cause} ({count:,})" if len(causes) > 1 else cause for cause, count in causes
    )
    if len(rows) == 1:
        return f"The row did not pass: {told}"
    return f"{len(bad):,} of {len(rows):,} rows did not pass: {told}"


def by_cause(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows that did not pass, by cause; the most frequent cause first."""
    found = grouped((row for row in rows if row.outcome is not Outcome.PASSED), cause_of)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def grouped(rows: Iterable[Row], key: Callable[[Row], _K]) -> dict[_K, list[Row]]:
    """Rows by what they have in common, in the order in which that appears."""
    found: dict[_K, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def _failed(row: Row) -> list[Check]:
    return [check for check in row.checks.values() if check.outcome is not Outcome.PASSED]
