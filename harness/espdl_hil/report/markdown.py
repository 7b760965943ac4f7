"""A run as Markdown, for the summary of a CI job. Knows results, not who runs the job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espdl_hil.compare import Outcome
from espdl_hil.errors import printable
from espdl_hil.report.changes import changes, describe
from espdl_hil.report.matrix import LETTERS, cause_of, grouped, sentence, weakest_figure
from espdl_hil.report.table import notes, revision_text

if TYPE_CHECKING:
    from espdl_hil.report.results import Results
    from espdl_hil.report.row import Row

MAX_SHOWN = 30  # failures and changes: a job's summary has a limit, and the page has all


def render_markdown(results: Results, before: Results | None = None) -> str:
    """Render results for the summary of a job on GitHub or GitLab.

    Args:
        results: What the run found.
        before: The same rows as they were last; None if nothing is known of them.

    Returns:
        Markdown with a line end: the matrix, what failed with cause and next step, what changed.
    """
    rows = results.rows
    lines = [f"## {_text(sentence(rows))}", ""]
    lines += [f"> {note}" for note in notes(rows)] + [""]
    lines += _devices(results)
    if rows:
        lines += _matrix(results)
    bad = [row for row in rows if row.outcome is not Outcome.PASSED]
    if bad:
        lines += ["### What did not pass", "", *_failures(bad)]
    if before is not None:
        found = changes(before, results)
        lines += [f"### Against the run before: {describe(found)}", ""]
        found.sort(key=lambda change: not change.regression)
        lines += [f"- {_text(str(change))}" for change in found[:MAX_SHOWN]]
        lines += _rest(len(found))
    return "\n".join(lines).rstrip() + "\n"


def _devices(results: Results) -> list[str]:
    found = [
        f"- {_text(device.chip)} {revision_text(device.revision)}, **{device.substrate}**"
        + (f" in {_text(device.emulator)}" if device.emulator else "")
        for device in results.devices
    ]
    return [*found, ""] if found else []


def _matrix(results: Results) -> list[str]:
    columns = list(dict.fromkeys((row.target, row.bits) for row in results.rows))
    lines = ["| model | " + " | ".join(f"{target} int{bits}" for target, bits in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for model, rows in grouped(results.rows, lambda row: row.model).items():
        found = grouped(rows, lambda row: (row.target, row.bits))
        shown = ("<br>".join(map(_cell, found.get(column, ()))) for column in columns)
        lines.append(f"| {_text(model)} | {' | '.join(shown)} |")
    used = {row.outcome for row in results.rows}
    letters = ", ".join(f"{LETTERS[o]} {o}" for o in Outcome if o in used)
    return [*lines, "", f"A cell is a chunk size: {letters}; frames a chunk; weakest figure.", ""]


def _cell(row: Row) -> str:
    text = f"{LETTERS[row.outcome]} {row.chunk_frames or '-'} {weakest_figure(row)}"
    return text if row.outcome is Outcome.PASSED else f"**{text}**"


def _failures(bad: list[Row]) -> list[str]:
    lines = []
    for row in bad[:MAX_SHOWN]:
        reason = row.reason if row.reason != cause_of(row) else ""
        lines.append(
            f"- **{_text(row.id)}** ({row.substrate}), {row.outcome}: {_text(cause_of(row))}"
            + (f" — {_text(reason)}" if reason else "")
        )
        found = row.diagnosis or {}
        if found.get("node"):
            lines.append(f"  - layer: {_text(found['operator'])} `{_text(found['node'])}`")
        if found.get("next_step"):
            lines.append(f"  - next: {_text(found['next_step'])}")
        lines += [f"  - `{printable(command)}`" for command in row.details.replay[:1]]
    return [*lines, *_rest(len(bad)), ""]


def _rest(count: int) -> list[str]:
    return [f"- and {count - MAX_SHOWN} more, see report.html"] if count > MAX_SHOWN else []


def _text(value: str) -> str:
    """Text in which Markdown and HTML find nothing to interpret."""
    text = printable(" ".join(value.split()))
    for character in "\\`*_{}[]<>|#~":
        text = text.replace(character, f"\\{character}")
    return text
