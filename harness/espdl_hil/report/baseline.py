"""A reviewed record of what rows gave, and the judgement of later runs by it. Knows JSON values."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from espdl_hil.compare import Outcome
from espdl_hil.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from espdl_hil.report.results import Results

SCHEMA: Final = 1
FALSE_ALARMS: Final = 0.01  # of a whole check, all rows together, when nothing has changed
LEAST_CHANGE: Final = 0.02  # of the median: less is no regression, however sure
RANGE_FACTOR: Final = 3.0  # nor is less than so often the range of the recorded runs: hosts drift
SQNR_STEP_DB: Final = 0.05


class RowChange(StrEnum):
    """What a row came to against its record."""

    SAME = "same"
    NUMBERS = "numbers changed"
    SLOWER = "slower"
    FASTER = "faster"
    UNJUDGED = "latency not judged"
    NEW = "no record"
    ABSENT = "not run"


FINDINGS: Final = (RowChange.NUMBERS, RowChange.SLOWER)  # what fails a check


@dataclass(frozen=True)
class BaselineEntry:
    """What repeated runs of one row gave.

    Attributes:
        id: The row's.
        substrate: ``simulated``, ``emulated`` or ``silicon``.
        revisions: Chip revisions of the devices, major * 100 + minor.
        outputs: Model on the device to SHA-256 of all that it gave.
        sqnr_db: Against the float model; None if undefined.
        latency_us: Median time of a chunk, one a run; empty where there is no chip.
        versions: Component to version, of what determines numbers and time.
    """

    id: str
    substrate: str
    revisions: tuple[int, ...]
    outputs: Mapping[str, str]
    sqnr_db: float | None
    latency_us: tuple[float, ...]
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """One row against its record.

    Attributes:
        id: The row's.
        change: What it came to.
        text: Numbers and versions.
    """

    id: str
    change: RowChange
    text: str = ""

    @property
    def is_finding(self) -> bool:
        """It fails the check."""
        return self.change in FINDINGS


def refuse_wrong_rows(runs: Sequence[Results]) -> None:
    """Let nothing be recorded that is known to be wrong.

    What an emulator is known to compute otherwise is no fault of a row.

    Raises:
        ConfigError: a row with outputs has failed, or is an error.
    """
    rows = (row for run in runs for row in run.rows if row.outputs)
    wrong = dict.fromkeys(
        f"{row.id} ({row.outcome})"
        for row in rows
        if row.outcome in (Outcome.FAILED, Outcome.ERROR)
    )
    if wrong:
        raise ConfigError(
            f"nothing was recorded, for these rows did not pass: {', '.join(wrong)}",
            hint="record runs whose rows passed; leave the others out with pytest's -k",
        )


def gather(runs: Sequence[Results]) -> dict[tuple[str, str], BaselineEntry]:
    """Take rows of repeated runs together; a row without outputs has nothing to keep.

    Args:
        runs: Of the same models on the same boards.

    Raises:
        ConfigError: outputs differ from one run to the other; then nothing can be recorded.
    """
    found: dict[tuple[str, str], BaselineEntry] = {}
    for run in runs:
        for row in run.rows:
            if not row.outputs:
                continue
            devices = [
                device
                for device in run.devices
                if (device.target, device.substrate) == (row.target, row.substrate)
            ]
            before = found.get((row.id, row.substrate))
            if before is not None and _changed(before.outputs, row.outputs):
                raise ConfigError(
                    f"{row.id}: outputs differ between runs of the same model",
                    hint="give results of repeated runs, of one model and one exporter",
                )
            latency = (row.latency_us.median,) if row.latency_us else ()
            versions = {
                "esp-ppq": run.environment.get("esp-ppq", ""),
                "ESP-DL": ", ".join(sorted({device.espdl_version for device in devices})),
                "ESP-IDF": ", ".join(sorted({device.idf_version for device in devices})),
            }
            found[row.id, row.substrate] = BaselineEntry(
                id=row.id,
                substrate=row.substrate,
                revisions=tuple(sorted({device.revision for device in devices})),
                outputs=row.outputs,
                sqnr_db=row.sqnr_db,
                latency_us=(*before.latency_us, *latency) if before else latency,
                versions={name: version for name, version in versions.items() if version},
            )
    return found


def judge_rows(
    record: Mapping[tuple[str, str], BaselineEntry], runs: Mapping[tuple[str, str], BaselineEntry]
) -> list[Judgement]:
    """Judge runs by a record.

    Numbers have to be the same, bit by bit. Latency is judged on medians of runs by an exact rank
    test: it is worse if chance alone would give such ranks in less than ``FALSE_ALARMS`` of all
    checks, whatever the number of rows, and the median grew by more than ``LEAST_CHANGE`` and
    ``RANGE_FACTOR`` times the range of the recorded runs.
    """
    timed = sum(bool(entry.latency_us) and key in record for key, entry in runs.items())
    judgements = []
    for key in dict.fromkeys([*record, *runs]):
        before, after = record.get(key), runs.get(key)
        if before is None or after is None:
            judgements.append(
                Judgement(key[0], RowChange.NEW if before is None else RowChange.ABSENT)
            )
        else:
            judgements += _judge_row(before, after, FALSE_ALARMS / max(1, timed))
    return judgements


def _judge_row(before: BaselineEntry, after: BaselineEntry, limit: float) -> list[Judgement]:
    changed = ", ".join(
        f"{name} {before.versions.get(name, '?')} → {version}"
        for name, version in after.versions.items()
        if before.versions.get(name) != version
    )
    why = f" ({changed})" if changed else ""
    found = []
    if _changed(before.outputs, after.outputs):
        quality = f"SQNR {_db(before.sqnr_db)} → {_db(after.sqnr_db)}"
        found.append(Judgement(after.id, RowChange.NUMBERS, f"other outputs{why}; {quality}"))
    elif _apart(before.sqnr_db, after.sqnr_db):
        quality = f"SQNR {_db(before.sqnr_db)} → {_db(after.sqnr_db)}: another float model"
        found.append(Judgement(after.id, RowChange.NUMBERS, quality + why))
    if before.latency_us or after.latency_us:
        change, text = judge_latency(before.latency_us, after.latency_us, limit)
        if change is not RowChange.SAME:
            found.append(Judgement(after.id, change, text + why))
    return found or [Judgement(after.id, RowChange.SAME)]


def judge_latency(
    before_us: Sequence[float], after_us: Sequence[float], limit: float = FALSE_ALARMS
) -> tuple[RowChange, str]:
    """Judge the medians of some runs by those of a record.

    Args:
        before_us: One median a recorded run.
        after_us: One a run of now.
        limit: Probability of a false alarm that is allowed.

    Returns:
        What it came to, with medians and p-value in words.
    """
    if not before_us or not after_us:
        return RowChange.UNJUDGED, "one of both has no latency"
    old, new = statistics.median(before_us), statistics.median(after_us)
    least_p = 1 / math.comb(len(before_us) + len(after_us), len(after_us))
    if least_p >= limit:
        text = f"{len(before_us)} runs recorded, {len(after_us)} now: too few to be sure"
        return RowChange.UNJUDGED, text
    if abs(new - old) <= max(LEAST_CHANGE * old, RANGE_FACTOR * (max(before_us) - min(before_us))):
        return RowChange.SAME, ""
    change = RowChange.SLOWER if new > old else RowChange.FASTER
    p = rank_p(before_us, after_us) if new > old else rank_p(after_us, before_us)
    if p >= limit:
        return RowChange.SAME, ""
    return change, f"{old:.1f} → {new:.1f} µs ({100 * (new / old - 1):+.1f} %), p = {p:.2g}"


def rank_p(low: Sequence[float], high: Sequence[float]) -> float:
    """Probability that chance alone ranks *high* as high above *low* as it is, one-sided.

    The exact distribution of the rank sum (Wilcoxon, Mann and Whitney), ties with middle ranks.

    >>> rank_p([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == 1 / 252
    True
    """
    values = sorted([*low, *high])
    ranks: dict[float, int] = {}  # doubled, so that middle ranks are whole
    for value, group in itertools.groupby(range(len(values)), key=values.__getitem__):
        places = list(group)
        ranks[value] = places[0] + places[-1] + 2
    seen = sum(ranks[value] for value in high)
    ways: list[dict[int, int]] = [{0: 1}, *({} for _ in high)]  # by how many are taken: sum, count
    for value in values:
        rank = ranks[value]
        for taken in range(len(high), 0, -1):
            for total, count in ways[taken - 1].items():
                ways[taken][total + rank] = ways[taken].get(total + rank, 0) + count
    last = ways[len(high)]
    return sum(count for total, count in last.items() if total >= seen) / sum(last.values())


def read_baseline(path: Path) -> dict[tuple[str, str], BaselineEntry]:
    """Read a record.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ConfigError(f"{path}: schema {content['schema']!r}, this reader knows {SCHEMA}")
        entries = [
            BaselineEntry(
                **{
                    **known,
                    "revisions": tuple(known["revisions"]),
                    "latency_us": tuple(map(float, known["latency_us"])),
                }
            )
            for known in content["entries"]
        ]
    except OSError as error:
        raise ConfigError(
            f"baseline {path} cannot be read: {error.strerror}",
            hint="record one: espdl-hil baseline record hil-report/results.json",
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} is no baseline: {type(error).__name__}: {error}") from None
    return {(entry.id, entry.substrate): entry for entry in entries}


def baseline_text(entries: Iterable[BaselineEntry]) -> str:
    """A record as its file holds it, one entry a line, so that a review sees what changed."""
    ordered = sorted(entries, key=lambda entry: (entry.id, entry.substrate))
    lines = ",\n".join(f"  {json.dumps(asdict(entry))}" for entry in ordered)
    return f'{{\n "schema": {SCHEMA},\n "entries": [\n{lines}\n ]\n}}\n'


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    """Whether a model gave something else; one that ran only once says nothing."""
    return any(before[name] != after[name] for name in before.keys() & after.keys())


def _apart(before: float | None, after: float | None) -> bool:
    if before is None or after is None:
        return before is not after
    return abs(before - after) > SQNR_STEP_DB


def _db(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.1f} dB"
