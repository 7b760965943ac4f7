"""``espdl-hil baseline``: keep what rows gave, and say what later runs give otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from espdl_hil.cli.files import write_text
from espdl_hil.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

BASELINE: Final = Path("hil-baseline.json")
RESULTS: Final = Path("hil-report/results.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe ``baseline`` and what it takes."""
    parser.description = (
        "Judges runs by a reviewed file. Outputs have to be the same bit by bit; "
        "latencies are judged on medians of repeated runs, so that at most 1 %% of checks alarm "
        "for nothing."
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (
        ("record", "write the file from repeated runs; review it and check it in"),
        ("check", "judge runs by the file; exit code 1: numbers changed, or slower"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument(
            "results",
            type=Path,
            nargs="*",
            default=[RESULTS],
            metavar="RESULTS",
            help=f"results.json of each run (default: {RESULTS})",
        )
        action.add_argument(
            "--baseline",
            type=Path,
            default=BASELINE,
            metavar="FILE",
            help="the file (default: %(default)s)",
        )


def run(options: argparse.Namespace) -> int:
    """Record or check.

    Raises:
        HarnessError: results or record cannot be read or written, or results differ from each
            other.
    """
    judged = record if options.action == "record" else check
    return judged(options.results, options.baseline)


def record(results: Sequence[Path], baseline: Path) -> int:
    """Write a record; rows that it has beside those of the runs stay.

    Raises:
        HarnessError: results cannot be read or differ among each other, a row of them did not
            pass, or the file cannot be written.
    """
    from espdl_hil.report import Results
    from espdl_hil.report.baseline import baseline_text, gather, read_baseline, refuse_wrong_rows

    runs = [Results.read(path) for path in results]
    refuse_wrong_rows(runs)
    found = gather(runs)
    if not found:
        raise ConfigError(
            "no row of these results has outputs of a device",
            hint="run the proof first: pytest test_cases/test_streaming.py",
        )
    known = read_baseline(baseline) if baseline.exists() else {}
    write_text(baseline, baseline_text((known | found).values()))
    print(f"{len(found)} rows of {len(results)} runs: {baseline}")
    return 0


def check(results: Sequence[Path], baseline: Path) -> int:
    """Print what is otherwise than recorded.

    Returns:
        1 if numbers changed or something is slower, else 0.

    Raises:
        HarnessError: results or record cannot be read.
    """
    from espdl_hil.report import Results
    from espdl_hil.report.baseline import RowChange, gather, judge_rows, read_baseline

    runs = [Results.read(path) for path in results]
    judgements = judge_rows(read_baseline(baseline), gather(runs))
    for judgement in judgements:
        if judgement.change is not RowChange.SAME:
            detail = f": {judgement.text}" if judgement.text else ""
            print(f"{judgement.id}: {judgement.change}{detail}")
    same = sum(judgement.change is RowChange.SAME for judgement in judgements)
    findings = sum(judgement.is_finding for judgement in judgements)
    print(f"{len(judgements)} judgements: {same} same, {findings} findings")
    return 1 if findings else 0
