"""``espdl-hil history``: the runs so far, or one model's rows over time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil.cli.files import write_text
from espdl_hil.errors import ConfigError, printable

if TYPE_CHECKING:
    import argparse

    from espdl_hil.report.trends import Trend

SHOWN_EVENTS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe ``history`` and what it takes."""
    parser.description = (
        "Without a model: the last runs. With one: what each of its rows came to, in "
        "which run it changed, what else changed with it, and how often it flakes."
    )
    parser.add_argument("model", nargs="?")
    parser.add_argument("--history", type=Path, metavar="FILE", help="default: as pytest's")
    parser.add_argument(
        "--last", type=int, default=1000, metavar="N", help="runs (default: %(default)s)"
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the model's page, too")


def run(options: argparse.Namespace) -> int:
    """Print runs or trends.

    Raises:
        ConfigError: there is no history, or nothing of the model in it.
    """
    from espdl_hil.report import History, default_history, render_history, trends

    path = options.history or default_history()
    if not path.exists():
        raise ConfigError(f"there is no history at {path}", hint="pytest appends each run to it")
    with History(path) as history:
        if history.set_aside:
            print(f"the history was damaged; it is now {history.set_aside}, and a new one is begun")
        if options.model is None:
            for run in history.runs(options.last):
                passed = f"{run['passed']} of {run['total']} rows passed"
                print(printable(f"{run['id']:>6}  {run['date']}  {passed}  {run['command']}"))
            return 0
        found = trends(history.rows(options.model, options.last))
    if not found:
        raise ConfigError(f"the history {path} has nothing of model {options.model!r}")
    for trend in found:
        print(printable("\n".join(_lines(trend))))
    if options.page:
        write_text(options.page, render_history(options.model, found))
        print(f"page: {options.page}")
    return 0


def _lines(trend: Trend) -> list[str]:
    passed = trend.outcomes.count("passed")
    decibels = [value for value in trend.sqnr_db if value is not None]
    text = f"{trend.id}: {passed} of {len(trend.runs)} runs passed, now {trend.outcomes[-1]}"
    if decibels:
        text += f", SQNR {decibels[-1]:.1f} dB ({min(decibels):.1f} to {max(decibels):.1f})"
    shown = trend.events[-SHOWN_EVENTS:]
    lines = [text, *(f"  {event}" for event in shown)]
    if len(trend.events) > len(shown):
        lines.insert(1, f"  {len(trend.events) - len(shown)} earlier changes")
    return [*lines, *(f"  flaky: {flakes}" for flakes in trend.flakes)]
