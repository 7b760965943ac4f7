"""What a model's rows did over time: figures, what changed with what, how often a test flakes."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from espdl_hil.report.changes import LEAST_DB

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONFIDENCE = 0.95
MEMORY = {"internal RAM": "internal_peak_bytes", "PSRAM": "psram_peak_bytes"}
LEAST_SHARE = 0.02  # of the time of a chunk; smaller changes are no event
LEAST_BYTES = 1024  # of memory; smaller changes are no event


@dataclass(frozen=True)
class Event:
    """A run in which a row was not what it had been in its run before.

    Attributes:
        run: Its number.
        date: ISO 8601.
        what: What changed of the row, a phrase each.
        along: What else changed with it: versions, models, board, files.
    """

    run: int
    date: str
    what: tuple[str, ...]
    along: tuple[str, ...]

    def __str__(self) -> str:
        along = ", ".join(self.along) or "nothing that is recorded"
        return f"run {self.run}, {self.date[:10]}: {', '.join(self.what)}; with it: {along}"


@dataclass(frozen=True)
class Flakes:
    """How often a row did not pass with files and board with which it also passed.

    Attributes:
        board: On what.
        failed: Runs that did not pass.
        runs: All runs of these files on this board.
    """

    board: str
    failed: int
    runs: int

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval of the rate, at 95%."""
        z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
        n, rate = self.runs, self.failed / self.runs
        middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.failed} of {self.runs} runs of the same files on {self.board} did not pass: "
            f"{self.failed / self.runs:.2%} ({low:.2%} to {high:.2%})"
        )


@dataclass(frozen=True)
class Trend:
    """One row over its runs, oldest first.

    Attributes:
        id: The row's.
        runs: Their numbers.
        dates: Their dates.
        outcomes: What they came to.
        sqnr_db: Quality; None where undefined.
        latency_us: Median of a chunk; None where there is no chip.
        memory: Most bytes of internal RAM and of PSRAM in use; None where there is no chip.
        events: Where something changed.
        flakes: One a board and set of files with which it both passed and did not.
    """

    id: str
    runs: tuple[int, ...]
    dates: tuple[str, ...]
    outcomes: tuple[str, ...]
    sqnr_db: tuple[float | None, ...]
    latency_us: tuple[float | None, ...]
    memory: Mapping[str, tuple[int | None, ...]]
    events: tuple[Event, ...]
    flakes: tuple[Flakes, ...]


def trends(rows: Sequence[Mapping[str, Any]]) -> list[Trend]:
    """Group rows of the history, as ``History.rows`` gives them."""
    return [
        _trend(name, list(found)) for name, found in itertools.groupby(rows, lambda row: row["id"])
    ]


def _trend(name: str, rows: Sequence[Mapping[str, Any]]) -> Trend:
    def column(field: str) -> tuple[Any, ...]:
        return tuple(row[field] for row in rows)

    events = (_event(before, after) for before, after in itertools.pairwise(rows))
    return Trend(
        name,
        *(column("run"), column("date"), column("outcome")),
        *(column("sqnr_db"), column("latency_us")),
        {name: column(field) for name, field in MEMORY.items()},
        tuple(event for event in events if event is not None),
        tuple(_flakes(rows)),
    )


def _event(before: Mapping[str, Any], after: Mapping[str, Any]) -> Event | None:
    what = [
        f"{field} {_shown(before[field])} → {_shown(after[field])}"
        for field in ("outcome", "cause", "differing")
        if before[field] != after[field]
    ]
    decibels = before["sqnr_db"], after["sqnr_db"]
    if None not in decibels and abs(decibels[0] - decibels[1]) >= LEAST_DB:
        what.append(f"SQNR {decibels[0]:.2f} → {decibels[1]:.2f} dB")
    times = before["latency_us"], after["latency_us"]
    if None not in times and abs(times[0] - times[1]) >= LEAST_SHARE * times[0]:
        what.append(f"time of a chunk {times[0]:,.0f} → {times[1]:,.0f} µs")
    for name, field in MEMORY.items():
        sizes = before[field], after[field]
        if None not in sizes and abs(sizes[0] - sizes[1]) >= LEAST_BYTES:
            what.append(f"{name} {sizes[0]:,} → {sizes[1]:,} bytes")
    if before["outputs"] != after["outputs"]:
        what.append("other outputs")
    if not what:
        return None
    return Event(after["run"], after["date"], tuple(what), tuple(_along(before, after)))


def _shown(value: object) -> str:
    return "-" if value in ("", None) else str(value)


def _along(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    versions = [json.loads(row["environment"]) for row in (before, after)]
    found = [
        f"{name} {versions[0].get(name, '-')} → {versions[1].get(name, '-')}"
        for name in dict.fromkeys((*versions[0], *versions[1]))
        if versions[0].get(name) != versions[1].get(name)
    ]
    if before["models_at"] != after["models_at"]:
        found.append(f"models {before['models_at'][:12] or '-'} → {after['models_at'][:12] or '-'}")
    if before["board"] != after["board"]:
        found.append(f"board {before['board']} → {after['board']}")
    files = [json.loads(row["artifacts"]) for row in (before, after)]
    names = sorted(name for name in files[0].keys() & files[1] if files[0][name] != files[1][name])
    return [*found, *(f"file {name}" for name in names)]


def _flakes(rows: Sequence[Mapping[str, Any]]) -> list[Flakes]:
    groups: dict[tuple[str, str], list[bool]] = {}
    for row in rows:
        groups.setdefault((row["board"], row["artifacts"]), []).append(row["outcome"] == "passed")
    return [
        Flakes(board, passed.count(False), len(passed))
        for (board, _), passed in groups.items()
        if any(passed) and not all(passed)
    ]
