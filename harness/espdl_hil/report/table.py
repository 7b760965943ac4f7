"""The table at the end of a run. Knows rows and a console's width."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from rich.table import Table
from rich.text import Text

from espdl_hil.compare import Outcome
from espdl_hil.errors import printable
from espdl_hil.report.schema import CHECKS, EMULATED, SILICON, SIMULATED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from espdl_hil.report.results import Results
    from espdl_hil.report.row import Row

_STYLES = {
    Outcome.PASSED: "green",
    Outcome.DEVIATES: "yellow",
    Outcome.FAILED: "bold red",
    Outcome.ERROR: "yellow",
}
_NOTES = {
    SIMULATED: "Simulated devkits prove export, streaming plan, transport and firmware core; "
    "they measure no chip time.",
    EMULATED: "Emulated devkits run the whole firmware with ESP-DL's own kernels, on instructions "
    "as the emulator computes them; they measure no chip time.",
}


class _Column(NamedTuple):
    title: str
    cell: Callable[[Row], str]
    from_width: int = 0  # console columns below which it is left out
    right: bool = False


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _latency(row: Row) -> str:
    return "-" if row.latency_us is None else format(row.latency_us.median, ".0f")


def _check(name: str) -> Callable[[Row], str]:
    """The cell of one check: ``equal``, or how much differs and how far."""

    def cell(row: Row) -> str:
        check = row.checks.get(name)
        if check is None:
            return "-"
        if check.differing:
            size = "" if check.max_lsb is None else f" ({check.max_lsb} LSB)"
            return f"{check.differing:,}{size}"
        return "equal" if check.outcome is Outcome.PASSED else str(check.outcome)

    return cell


def _accuracy(row: Row) -> str:
    """SQNR over all outputs; of the one that keeps too little, what is too little."""
    if row.accuracy is None or row.accuracy.outcome is Outcome.PASSED:
        return _number(row.sqnr_db, ".1f")
    found = row.accuracy
    if found.sqnr_db < found.min_sqnr_db:
        return f"{found.sqnr_db:.1f} < {found.min_sqnr_db:g}"
    return f"{found.sqnr_db:.1f} ({found.changes_db:.1f})"


_COLUMNS = (
    _Column("target", lambda row: row.target),
    _Column("model", lambda row: row.model),
    _Column("bits", lambda row: str(row.bits), right=True),
    _Column("chunk", lambda row: _number(row.chunk_frames, "d"), right=True),
    _Column("device", lambda row: row.device),
    _Column("outcome", lambda row: str(row.outcome)),
    _Column("chunks", lambda row: str(row.chunks), 100, right=True),
    _Column("elements", lambda row: f"{row.elements:,}", 90, right=True),
    *(
        _Column(f"vs {name}", _check(check), width, right=True)
        for name, check, width in zip(
            ("offline", "interp", "esp-ppq"), CHECKS, (0, 84, 100), strict=True
        )
    ),
    _Column("SQNR dB", _accuracy, right=True),
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
        console.print(Text(printable(line), style="bold"))
    if results.rows:
        console.print(_table(results.rows, console.width))
    console.print(Text(_sum(results.rows)))
    alike: dict[tuple[str, Outcome, str], list[str]] = {}  # a model's faults stand once
    for row in results.rows:
        if row.outcome is not Outcome.PASSED:
            alike.setdefault((row.model, row.outcome, row.reason), []).append(row.id)
    for (_, outcome, reason), ids in alike.items():
        more = f" and {len(ids) - 1} more of this model" if len(ids) > 1 else ""
        console.print(Text(printable(f"{ids[0]}{more}: {reason}"), style=_STYLES[outcome]))
    findings = Counter(finding for row in results.rows for finding in row.details.findings)
    for finding, count in findings.items():
        console.print(Text(printable(f"finding on {count} rows: {finding}"), style="yellow"))
    for incident in results.incidents:
        console.print(Text(printable(f"recovery of {incident}")))
    for note in notes(results.rows):
        console.print(Text(note))


def notes(rows: Sequence[Row]) -> list[str]:
    """What each substrate but silicon proves, of those that occur."""
    found = {row.substrate for row in rows}
    return [note for substrate, note in _NOTES.items() if substrate in found]


def _heading(results: Results) -> list[str]:
    lines = []
    for device in results.devices:
        label = "" if device.substrate == SILICON else f"{device.substrate.upper()} "
        emulator = f" in {device.emulator}" if device.emulator else ""
        revision = revision_text(device.revision)
        lines.append(f"{label}{device.chip} {revision}{emulator} at {device.port}")
    return lines


def revision_text(revision: int) -> str:
    """A chip revision as Espressif writes it.

    >>> revision_text(302)
    'v3.2'
    """
    return f"v{revision // 100}.{revision % 100}"


def _table(rows: Sequence[Row], width: int) -> Table:
    columns = [column for column in _COLUMNS if width >= column.from_width]
    if all(row.substrate != SILICON for row in rows):
        columns = [column for column in columns if column.title != "µs/chunk"]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        table.add_row(
            *(Text(printable(column.cell(row)), style=_style(column, row)) for column in columns)
        )
    return table


def _style(column: _Column, row: Row) -> str:
    return _STYLES[row.outcome] if column.title == "outcome" else ""


def _sum(rows: Sequence[Row]) -> str:
    if not rows:
        return "no verdicts: nothing was compared"
    counts = Counter(row.outcome for row in rows)
    parts = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
    elements, differing = sum(row.elements for row in rows), sum(row.differing for row in rows)
    text = f"{len(rows)} rows: {parts}; {elements:,} elements compared, {differing:,} differ"
    others = sum(row.outcome is Outcome.FAILED and not row.differing for row in rows)
    return f"{text}, {others} failed otherwise" if others else text
