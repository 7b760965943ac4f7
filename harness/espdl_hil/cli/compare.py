"""``espdl-hil compare``: what is different between runs, or between the targets of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil.cli.files import write_text
from espdl_hil.errors import ConfigError, printable

if TYPE_CHECKING:
    import argparse

    from espdl_hil.report import Results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe ``compare`` and what it takes."""
    parser.description = (
        "Compares runs with the first: rows that appeared or vanished, outcomes, "
        "numbers, files, outputs, versions. A run is a report's folder, a results.json, or a "
        "number of the history; RUN@TARGET takes one target of it, and a single run with several "
        "targets is compared target by target. Exit code 0: nothing is worse; 1: something is."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="hil-report, a.json@esp32p4, 12")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write an HTML page, too")
    parser.add_argument(
        "--history",
        type=Path,
        metavar="FILE",
        help="where numbers are looked up (default: as pytest's)",
    )


def run(options: argparse.Namespace) -> int:
    """Print what changed.

    Returns:
        1 if anything is worse, else 0.

    Raises:
        ConfigError: there is no such run, or only one, or a file is no run.
    """
    from espdl_hil.report import by_target, changes, describe, render_comparison

    runs: dict[str, Results] = {}
    for text in options.runs:
        path, _, target = text.partition("@")
        found = _read(path, options.history)
        if target and target not in (split := by_target(found)):
            raise ConfigError(
                f"{path} has no rows of {target}, only of {', '.join(split) or 'none'}"
            )
        runs[text] = split[target] if target else found
    if len(options.runs) == 1:
        runs = by_target(next(iter(runs.values())))
    if len(runs) < 2:
        raise ConfigError("there is only one run", hint="name two, or one with several targets")
    (base, first), *others = runs.items()
    worse = False
    for name, results in others:
        found_changes = changes(first, results)
        worse = worse or any(change.regression for change in found_changes)
        print(printable(f"{name} against {base}: {describe(found_changes)}"))
        for change in found_changes:
            print(printable(f"  {change}"))
    if options.page:
        write_text(options.page, render_comparison(runs))
        print(f"page: {options.page}")
    return 1 if worse else 0


def _read(text: str, file: Path | None) -> Results:
    """A run by number or path."""
    from espdl_hil.report import History, Results, default_history

    path = Path(text)
    if text.isdecimal() and not path.exists():
        with History(file or default_history()) as history:
            return history.run(int(text))
    path = path / "results.json" if path.is_dir() else path
    return Results.read(path)
