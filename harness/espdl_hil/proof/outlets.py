"""What a run leaves besides its report: history, summary, node data, metrics. No pytest."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

from espdl_hil.errors import HarnessError
from espdl_hil.report import (
    History,
    render_markdown,
    render_metrics,
    write_atomically,
    write_node_data,
)

if TYPE_CHECKING:
    from espdl_hil.proof.settings import Settings
    from espdl_hil.report import Results


def export(results: Results, settings: Settings) -> list[str]:
    """Write what was asked for; returns lines for the terminal.

    None of it decides over a run, so what cannot be written is said and no more.
    """
    lines: list[str] = []
    before: Results | None = None
    try:
        if settings.history:
            with History(settings.history) as history:
                if history.set_aside:
                    lines.append(f"the history was damaged and is now {history.set_aside}")
                before = history.before(results) if settings.summary else None
                lines.append(f"history: run {history.append(results)} in {settings.history}")
    except (HarnessError, sqlite3.Error) as error:
        lines.append(f"the history is not kept: {error}")
    try:
        if settings.summary:
            is_shared = str(settings.summary) == os.environ.get("GITHUB_STEP_SUMMARY")
            with settings.summary.open("a" if is_shared else "w", encoding="utf-8") as file:
                file.write(render_markdown(results, before))
        if settings.metrics:
            write_atomically(settings.metrics, render_metrics(results).encode())
        if settings.node_data:
            write_node_data(results, settings.node_data)
    except (HarnessError, OSError) as error:
        lines.append(f"not written: {error}")
    return lines
