"""``espdl-hil tune``: quantization settings that keep more of a model, without a device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil.errors import ConfigError
from espdl_hil.model.quantization import BITS
from espdl_hil.targets import DEVKIT_TARGETS

if TYPE_CHECKING:
    import argparse

    from rich.table import Table

    from espdl_hil.proof.tune import Try, Tuned

TRIES = 24
MORE_MACS_PERCENT = 10.0
_FILE_COLUMNS = 240  # a line a try, where nobody watches


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe ``tune`` and what it takes."""
    parser.description = (
        "Quantizes a model with other settings, and says how much of the float network "
        "each keeps: the offline file in the interpreter, on the model's stimulus, as the accuracy "
        "check measures it. Best first, with the line for the model file. MACs are those of a "
        "chunk; one of 16 bits counts as two, since a register holds half as many."
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model file")
    parser.add_argument("--target", choices=DEVKIT_TARGETS, help="default: the model's first")
    parser.add_argument("--bits", type=int, choices=BITS, help="default: the model's first")
    parser.add_argument(
        "--tries", type=int, default=TRIES, metavar="N", help="the most (default: %(default)s)"
    )
    parser.add_argument(
        "--more-macs",
        type=float,
        default=MORE_MACS_PERCENT,
        metavar="PERCENT",
        help="what layers of 16 bits may cost (default: %(default)s)",
    )
    parser.add_argument(
        "--hil-store", type=Path, metavar="DIR", help="folder of the artifact store"
    )
    parser.add_argument("--json", action="store_true", help="print the tries as JSON")


def run(options: argparse.Namespace) -> int:
    """Search, and print what was found.

    Raises:
        HarnessError: the model file is broken, or cannot be quantized as it is declared.
    """
    from rich.console import Console

    if options.tries < 1 or options.more_macs < 0:
        raise ConfigError("--tries takes 1 or more, --more-macs 0 or more")
    tuned = _search(options)
    if options.json:
        tries = [each.to_json() for each in tuned.tries]
        print(json.dumps({"best": tuned.best.to_json(), "tries": tries}, indent=1))
        return 0
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_FILE_COLUMNS)
    console.print(_table(tuned))
    for each in tuned.tries:
        if each.refused:
            console.print(
                f"refused: {each.quantization}: {each.refused}", markup=False, soft_wrap=True
            )
    console.print(_advice(tuned), markup=False, soft_wrap=True)
    return 0


def _search(options: argparse.Namespace) -> Tuned:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from espdl_hil.model import load_model
    from espdl_hil.proof.tune import Tuner
    from espdl_hil.quantize import Store

    model = load_model(options.model)
    columns = (TextColumn(f"tuning {model.name}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=options.tries)
        return Tuner(
            model,
            options.target or model.targets[0],
            options.bits or model.bits[0],
            Store(options.hil_store),
            tries=options.tries,
            more_macs=options.more_macs / 100,
            progress=lambda done, _: bar.update(task, completed=done),
        ).run()


def _table(tuned: Tuned) -> Table:
    from rich.table import Table

    outputs = list(tuned.declared.sqnr_db)
    table = Table(box=None, pad_edge=False, header_style="bold")
    titles = ["SQNR dB", *(outputs if len(outputs) > 1 else []), "MACs", "", "file B", "state B"]
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("settings", overflow="fold")
    for each in tuned.tries:
        if not each.refused:
            table.add_row(*_cells(each, tuned, outputs), style="bold" if each is tuned.best else "")
    return table


def _cells(each: Try, tuned: Tuned, outputs: list[str]) -> list[str]:
    kept = [f"{each.sqnr_db[name]:.1f}" for name in outputs] if len(outputs) > 1 else []
    declared = "  (as declared)" if each is tuned.declared else ""
    more = each.macs / tuned.declared.macs - 1 if tuned.declared.macs else 0.0
    return [
        f"{each.worst_db:.1f}",
        *kept,
        f"{each.macs:,}",
        f"{more:+.0%}",
        f"{each.file_bytes:,}",
        f"{each.state_bytes:,}",
        f"{each.quantization}{declared}",
    ]


def _advice(tuned: Tuned) -> str:
    if tuned.best is tuned.declared:
        return f"of {len(tuned.tries)} tries the declared settings are the best"
    gained = tuned.best.worst_db - tuned.declared.worst_db
    return (
        f"{gained:+.1f} dB with, in the model file (from espdl_hil import Quantization):\n"
        f"    quantization={tuned.best.quantization},"
    )
