"""The table at the end of a run. Knows rows and a console's width."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from espdl_hil.compare import Outcome
from espdl_hil.errors import printable
from espdl_hil.report.matrix import grouped
from espdl_hil.report.schema import EMULATED, SILICON, SIMULATED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from espdl_hil.report.check import Check
    from espdl_hil.report.results import Results
    from espdl_hil.report.row import Row

_STYLES = {
    Outcome.PASSED: "green",
    Outcome.DEVIATES: "yellow",
    Outcome.FAILED: "bold red",
    Outcome.ERROR: "yellow",
}
TITLES = {
    "streaming": "stream against offline run",
    "interpreter": "device against interpreter",
    "reference": "offline run against esp-ppq",
}
_NOTES = {
    SIMULATED: "Simulated devkits prove export, streaming plan, transport and firmware core; "
    "they measure no chip time.",
    EMULATED: "Emulated devkits run the whole firmware with ESP-DL's own kernels, on instructions "
    "as the emulator computes them; they measure no chip time.",
}


def _range(values: Sequence[float], form: str) -> str:
    """A number, or the least and the largest; empty without any."""
    bounds = {format(value, form) for value in (min(values), max(values))} if values else ()
    return " to ".join(sorted(bounds, key=float))


def render_table(results: Results, console: Console) -> None:
    """Print rows that are alike as one, those that did not pass in full, and what they add up to.

    Args:
        results: What the run found; without rows, a line says so.
        console: Where to; it leaves out colour where the output is not a terminal.
    """
    for line in _heading(results):
        console.print(Text(printable(line), style="bold"))
    if results.rows:
        console.print(_table(results.rows))
    console.print(Text(_sum(results.rows)))
    bad = (row for row in results.rows if row.outcome is not Outcome.PASSED)
    alike = grouped(bad, lambda row: (row.model, row.outcome, row.reason))
    for first, *others in alike.values():  # a model's faults stand once
        for number, line in enumerate(_failure(first, len(others))):
            style = _STYLES[first.outcome] if not number else ""
            is_command = line.startswith("  espdl-hil ")  # which must stay whole to be copied
            console.print(Text(printable(line), style=style), soft_wrap=is_command)
    findings: dict[str, list[str]] = {}
    for row in results.rows:
        for finding in row.details.findings:
            findings.setdefault(finding, []).append(row.model)
    for finding, models in findings.items():
        on = "1 row" if len(models) == 1 else f"{len(models)} rows"
        text = f"finding on {on} of {', '.join(dict.fromkeys(models))}: {finding}"
        console.print(Text(printable(text), style="yellow"))
    for incident in results.incidents:
        console.print(Text(printable(f"recovery of {incident}")))
    for written in results.written:
        console.print(Text(printable(str(written))))
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


def _table(rows: Sequence[Row]) -> Table:
    """A line for all rows of a model that came to the same on the same kind of device."""
    timed = any(row.latency_us for row in rows)
    judged = any(row.metric for row in rows)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    titles = ["model", "rows", "outcome", "device", "SQNR dB"]
    titles += ["metric"] * judged + ["µs/chunk"] * timed
    for title in titles:
        right = title in ("rows", "SQNR dB", "metric", "µs/chunk")
        table.add_column(title, justify="right" if right else "left", overflow="fold")
    groups = grouped(rows, lambda row: (row.model, row.outcome, row.device))
    for (model, outcome, device), found in groups.items():
        decibels = [row.sqnr_db for row in found if row.sqnr_db is not None]
        times = [row.latency_us.median for row in found if row.latency_us]
        cells = [model, str(len(found)), str(outcome), device, _range(decibels, ".1f")]
        tasks = [row.metric["streamed"] for row in found if row.metric]
        cells += [_range(tasks, ".3g")] if judged else []
        cells += [_range(times, ".0f")] if timed else []
        styles = ("", "", _STYLES[outcome], "", "", "", "")
        table.add_row(*map(Text, map(printable, cells), styles[: len(cells)]))
    return table


def _failure(row: Row, others: int) -> list[str]:
    """All that a terminal says of a row that did not pass, and of as many others of its model."""
    more = f" and {others} more of this model" if others else ""
    title = f"{row.id}{more} ({row.device}) {row.outcome}: {row.reason}"
    lines = [title, *(line for name, check in row.checks.items() if (line := _check(name, check)))]
    firsts = (check.first for check in row.checks.values() if check.outcome is not Outcome.PASSED)
    if first := next(filter(None, firsts), None):
        lines.append(f"  chunk {first.chunk}, {first}")
    if row.accuracy and row.accuracy.outcome is not Outcome.PASSED:
        found = row.accuracy
        lines.append(
            f"  accuracy: {found.sqnr_db:.1f} dB kept, of the changes {found.changes_db:.1f} dB; "
            f"at least {found.min_sqnr_db:g} dB are asked for"
        )
    if row.diagnosis and row.diagnosis.get("node"):
        lines.append(f"  begins in {row.diagnosis['operator']} {row.diagnosis['node']}")
    if row.diagnosis and row.diagnosis.get("next_step"):
        lines.append(f"  next: {row.diagnosis['next_step']}")
    return [*lines, *(f"  {command}" for command in row.details.replay)]


def _check(name: str, check: Check) -> str:
    """What one check of such a row found; empty if it passed with all equal."""
    if check.differing:
        size = "" if check.max_lsb is None else f", at most {check.max_lsb:,} LSB"
        return f"  {TITLES[name]}: {check.differing:,} of {check.compared:,} differ{size}"
    if check.outcome is Outcome.PASSED:
        return ""
    return f"  {TITLES[name]}: {check.error or check.outcome}"


def _sum(rows: Sequence[Row]) -> str:
    if not rows:
        return "no verdicts: nothing was compared"
    counts = Counter(row.outcome for row in rows)
    parts = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
    elements, differing = sum(row.elements for row in rows), sum(row.differing for row in rows)
    text = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
    text += f": {parts}; {elements:,} elements compared, {differing:,} differ"
    others = sum(row.outcome is Outcome.FAILED and not row.differing for row in rows)
    return f"{text}, {others} failed otherwise" if others else text
