"""What is different between two runs, and which of it is worse. Knows results."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from espdl_hil.compare import EXACT, Outcome
from espdl_hil.report.check import SEVERITY, Check
from espdl_hil.report.matrix import cause_of
from espdl_hil.report.table import TITLES, revision_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from espdl_hil.report.results import Results
    from espdl_hil.report.row import Row

LEAST_DB = 0.005  # what a figure of two digits shows
WORSE_DB = 0.1  # quality that is lost
WORSE_TIME = 1.05  # of a chunk's median: what runs of one board differ by is less


@dataclass(frozen=True)
class Change:
    """One thing that is not as it was.

    Attributes:
        row: Id of the row; empty for what concerns the whole run.
        what: Which figure.
        before: As it was; ``-`` if there was none.
        after: As it is.
        regression: Whether this is worse.
    """

    row: str
    what: str
    before: str
    after: str
    regression: bool = False

    def __str__(self) -> str:
        where = f"{self.row}: " if self.row else ""
        mark = "REGRESSION " if self.regression else ""
        return f"{mark}{where}{self.what}: {self.before} → {self.after}"


def changes(before: Results, after: Results) -> list[Change]:
    """Compare two runs, row by row.

    A row that vanished, came to a worse outcome, differs in more elements or by more steps, lost
    a check, compared elements, an exact tolerance, 0.1 dB or 5% of time, or gives other outputs
    for the same file, is a regression; so is a new row that did not pass.

    Args:
        before: The run that is measured by.
        after: The other.

    Returns:
        Changes of the whole run first, then of rows in their order; empty if there are none.
    """
    found = _of_texts("", _facts(before), _facts(after))
    old, new = ({row.id: row for row in results.rows} for results in (before, after))
    for name in dict.fromkeys((*old, *new)):
        if name not in new:
            found.append(Change(name, "row", str(old[name].outcome), "vanished", regression=True))
        elif name not in old:
            bad = new[name].outcome is not Outcome.PASSED
            found.append(Change(name, "row", "-", f"new, {new[name].outcome}", bad))
        else:
            found += _of_row(old[name], new[name])
    return found


def by_target(results: Results) -> dict[str, Results]:
    """A run as one a target, so that targets can be compared: rows lose the target in their id.

    What differs between targets by nature is left out: files, bytes of outputs, times.
    """
    found = {}
    for target in dict.fromkeys(row.target for row in results.rows):
        rows = (
            replace(
                row,
                id=row.id.removeprefix(f"{target}-"),
                artifacts={},
                outputs={},
                latency_us=None,
            )
            for row in results.rows
            if row.target == target
        )
        found[target] = replace(results, rows=tuple(rows), devices=())
    return found


def _facts(results: Results) -> dict[str, str]:
    """Versions, commit and devices of a run."""
    commit = results.commit
    devices = {
        f"{device.substrate} {device.target}": " ".join(
            filter(None, [device.chip, revision_text(device.revision), device.emulator])
        )
        for device in results.devices
    }
    models = {"models at": commit.id[:12] + (", changed" if commit.dirty else "")} if commit else {}
    return {**results.environment, **models, **devices}


def _of_texts(row: str, old: Mapping[str, str], new: Mapping[str, str]) -> list[Change]:
    names = dict.fromkeys((*old, *new))
    pairs = ((name, old.get(name, "-"), new.get(name, "-")) for name in names)
    return [Change(row, *pair) for pair in pairs if pair[1] != pair[2]]


def _of_row(old: Row, new: Row) -> list[Change]:
    found = []
    if old.outcome is not new.outcome:
        worse = SEVERITY.index(new.outcome) > SEVERITY.index(old.outcome)
        found.append(Change(new.id, "outcome", str(old.outcome), str(new.outcome), worse))
    found += _of_texts(new.id, {"cause": cause_of(old) or "-"}, {"cause": cause_of(new) or "-"})
    for name, title in TITLES.items():
        found += _of_check(old, new, name, title)
    found += _of_accuracy(old, new)
    found += _of_numbers(old, new)
    same = _of_texts(new.id, _hashes(old.artifacts, "file"), _hashes(new.artifacts, "file"))
    outputs = _of_texts(
        new.id, _hashes(old.outputs, "output of"), _hashes(new.outputs, "output of")
    )
    known = bool(old.artifacts and old.outputs and new.outputs)
    outputs = [replace(change, regression=known and not same) for change in outputs]
    findings = _of_texts(new.id, _findings(old), _findings(new))
    return [*found, *same, *outputs, *findings]


def _findings(row: Row) -> dict[str, str]:
    return {"findings": "; ".join(row.details.findings) or "-"}


def _hashes(files: Mapping[str, str], what: str) -> dict[str, str]:
    return {f"{what} {name}": digest[:12] for name, digest in files.items()}


def _of_check(old: Row, new: Row, name: str, title: str) -> list[Change]:
    one, other = old.checks.get(name), new.checks.get(name)
    if one is None or other is None:
        return _of_making(new.id, title, one, other)
    found = []
    for what, least, most in (
        ("differing", one.differing, other.differing),
        ("largest difference, LSB", one.max_lsb or 0, other.max_lsb or 0),
        ("not compared", one.elements - one.compared, other.elements - other.compared),
    ):
        if least != most:
            shown = f"{least:,}", f"{most:,}"
            found.append(Change(new.id, f"{title}, {what}", *shown, regression=most > least))
    if one.elements != other.elements and one.compared != other.compared:
        shown = f"{one.compared:,}", f"{other.compared:,}"
        worse = other.compared < one.compared
        found.append(Change(new.id, f"{title}, compared", *shown, regression=worse))
    first = f"{title}, first difference"
    old_first, new_first = ({first: str(check.first or "-")} for check in (one, other))
    found += _of_texts(new.id, old_first, new_first)
    if one.tolerance != other.tolerance:
        by_nature = name == "interpreter" and old.substrate != new.substrate  # see its tolerance
        worse = _is_exact(one) and not (_is_exact(other) or by_nature)
        shown = one.tolerance, other.tolerance
        found.append(Change(new.id, f"{title}, tolerance", *shown, regression=worse))
    return found


def _of_making(row: str, title: str, one: object, other: object) -> list[Change]:
    """A check that only one run has made, if any."""
    if one is other:
        return []
    before, after = ("not made" if check is None else "made" for check in (one, other))
    return [Change(row, title, before, after, regression=other is None)]


def _is_exact(check: Check) -> bool:
    """Whether nothing but what is derived was allowed; the words that say so come first."""
    return check.tolerance.partition(";")[0] == str(EXACT)


def _of_accuracy(old: Row, new: Row) -> list[Change]:
    """Whether it was measured, what was asked for, and the metric, of which more may be worse."""
    one, other = old.accuracy, new.accuracy
    if one is None or other is None:
        return _of_making(new.id, "accuracy", one, other)
    old_texts, new_texts = (
        {"least SQNR, dB": f"{found.min_sqnr_db:g}"}
        | {f"metric, {run}": f"{value:g}" for run, value in (found.metric or {}).items()}
        for found in (one, other)
    )
    return _of_texts(new.id, old_texts, new_texts)


def _of_numbers(old: Row, new: Row) -> list[Change]:
    found = []
    one, other = old.sqnr_db, new.sqnr_db
    if (one is None) != (other is None) or (one and other and abs(one - other) >= LEAST_DB):
        before, after = ("-" if value is None else f"{value:.2f}" for value in (one, other))
        worse = one is not None and other is not None and one - other >= WORSE_DB
        found.append(Change(new.id, "SQNR, dB", before, after, regression=worse))
    if old.latency_us and new.latency_us and old.latency_us.median != new.latency_us.median:
        was, now = old.latency_us.median, new.latency_us.median
        worse = now > was * WORSE_TIME
        found.append(Change(new.id, "µs a chunk, median", f"{was:.0f}", f"{now:.0f}", worse))
    return found


def describe(found: Sequence[Change]) -> str:
    """Add up changes in a line.

    >>> describe([])
    'no difference'
    """
    if not found:
        return "no difference"
    rows, worse = len({c.row for c in found if c.row}), sum(c.regression for c in found)
    text = "1 change" if len(found) == 1 else f"{len(found)} changes"
    text += f" in {'1 row' if rows == 1 else f'{rows} rows'}" if rows else ""
    return f"{text}, {worse or 'no'} regression{'' if worse == 1 else 's'}"
