"""The table at the end of a run. Knows rows and a console's width."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from rich.table import Table
from rich.text import Text

from espdl_hil.compare import Outcome
from espdl_hil.report.schema import SIMULATED

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from espdl_hil.report.results import Results, Row

_STYLES = {Outcome.PASSED: "green", Outcome.FAILED: "bold red", Outcome.ERROR: "yellow"}
SIMULATED_NOTE = (
    "Simulated devkits prove export, streaming plan, transport and firmware core; "
    "they measure no chip time."
)


class _Column(NamedTuple):
    title: str
    cell: Callable[[Row], str]
    from_width: int = 0  # console columns below which it is left out
    right: bool = False


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _latency(row: Row) -> str:
    return "-" if row.latency_us is None else format(row.latency_us.median, ".0f")


def _reference(row: Row) -> str:
    if row.reference is None:
        return "-"
    if not row.reference.differing:
        return "equal"
    return f"{row.reference.differing} ({_number(row.reference.max_lsb, 'd')} LSB)"


_COLUMNS = (
    _Column("target", lambda row: row.target),
    _Column("model", lambda row: row.model),
    _Column("bits", lambda row: str(row.bits), right=True),
    _Column("chunk", lambda row: _number(row.chunk_frames, "d"), right=True),
    _Column("device", lambda row: row.device_kind),
    _Column("outcome", lambda row: str(row.outcome)),
    _Column("chunks", lambda row: str(row.chunks), 88, right=True),
    _Column("elements", lambda row: f"{row.elements:,}", 72, right=True),
    _Column("differ", lambda row: f"{row.differing:,}", right=True),
    _Column("max LSB", lambda row: _number(row.max_lsb, "d"), 80, right=True),
    _Column("vs esp-ppq", _reference, 100, right=True),
    _Column("SQNR dB", lambda row: _number(row.sqnr_db, ".1f"), 110, right=True),
    _Column("µs/chunk", _latency, 120, right=True),
)


def render_table(results: Results, console: Console) -> None:
    """Print a row for each verdict, what it adds up to, and which devices are simulated.

    Args:
        results: What the run found; without rows, a line says so.
        console: Where to; its width decides which columns fit, and it leaves out colour
            where the output is not a terminal.
    """
    for line in _heading(results):
        console.print(Text(line, style="bold"))
    if results.rows:
        console.print(_table(results.rows, console.width))
    console.print(Text(_sum(results.rows)))
    for row in results.rows:
        if row.outcome is not Outcome.PASSED:
            console.print(Text(f"{row.id}: {explain(row)}", style=_STYLES[row.outcome]))
    if any(row.device_kind == SIMULATED for row in results.rows):
        console.print(Text(SIMULATED_NOTE))


def explain(row: Row) -> str:
    """Say in one line why a row did not pass; a cause if there is one."""
    if row.diagnosis:
        return str(row.diagnosis["cause"])
    if row.outcome is Outcome.FAILED and row.first is not None:
        return f"chunk {row.first.chunk}, {row.first}"
    return row.details.error.partition("\n")[0] or "no reason was recorded"


def _heading(results: Results) -> list[str]:
    lines = []
    for device in results.devices:
        label = "SIMULATED " if device.kind == SIMULATED else ""
        revision = f"v{device.revision // 100}.{device.revision % 100}"
        lines.append(f"{label}{device.chip} {revision} at {device.port}")
    return lines


def _table(rows: list[Row], width: int) -> Table:
    columns = [column for column in _COLUMNS if width >= column.from_width]
    if all(row.device_kind == SIMULATED for row in rows):
        columns = [column for column in columns if column.title != "µs/chunk"]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(column.cell(row), style=_style(column, row)) for column in columns))
    return table


def _style(column: _Column, row: Row) -> str:
    return _STYLES[row.outcome] if column.title == "outcome" else ""


def _sum(rows: list[Row]) -> str:
    if not rows:
        return "no verdicts: nothing was compared"
    counts = Counter(row.outcome for row in rows)
    parts = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
    elements, differing = (
        sum(getattr(row, name) for row in rows) for name in ("elements", "differing")
    )
    return f"{len(rows)} rows: {parts}; {elements:,} elements compared, {differing:,} differ"
