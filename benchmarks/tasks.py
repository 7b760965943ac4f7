"""How well trained models do their tasks: the table of docs/models.md.

``python benchmarks/tasks.py`` proves each model of the zoo that has a metric, on simulated devkits
of both targets, at both widths and its first chunk size, and prints the table.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil import verify
from espdl_hil.model import load_models

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from espdl_hil.report import Row

ZOO = Path(__file__).parents[1] / "models"
DIGITS = 3


def main() -> None:
    """Print the table."""
    rows: list[Row] = []
    for model in load_models([ZOO]).values():
        if model.metric is not None:
            with tempfile.TemporaryDirectory() as report:
                result = verify(model, chunk_frames=model.chunk_frames[0], report=report)
            rows += result.rows
    print(*table(rows), sep="\n")


def table(rows: Iterable[Row]) -> Iterator[str]:
    """Lines of Markdown, one a row that has a metric.

    Raises:
        RuntimeError: a row did not pass: its numbers are none to print.
    """
    yield "| model | target | bits | float | offline | streamed |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        if not row.outcome == "passed" or row.accuracy is None or row.accuracy.metric is None:
            raise RuntimeError(f"{row.id}: {row.outcome}, {row.reason}")
        numbers = " | ".join(f"{value:.{DIGITS}f}" for value in row.accuracy.metric.values())
        yield f"| {row.model} | {row.target} | {row.bits} | {numbers} |"


if __name__ == "__main__":
    main()
