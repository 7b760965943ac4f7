"""``espdl-hil demo``: a small model on a simulated devkit, sound or with a fault to look at."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil.scratch import scratch_folder

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from espdl_hil.espdl import Node
    from espdl_hil.proof.hil import Hil
    from espdl_hil.simulator.faults import Fault

MODEL = '''\
"""A residual block with a table, a cache and a sum: each kind of fault has something to break."""

from espdl_hil import StreamingModel


def build():
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.pad = nn.Conv1d(4, 16, 1), nn.ConstantPad1d((2, 0), 0.0)
            self.conv, self.last = nn.Conv1d(16, 16, 3), nn.Conv1d(16, 8, 1)

        def forward(self, x):
            x = torch.sigmoid(self.first(x))
            return self.last(x + torch.relu(self.conv(self.pad(x))))

    return Residual()


MODEL = StreamingModel(
    name="demo", build=build, input_shape=(1, 4, 48), frame_axis=2, chunk_frames=(3, 6),
    bits=(8, 16), targets=("esp32s3",),
)
'''


def _node(hil: Hil, operator: str) -> Node:
    return next(node for node in hil.expected.streaming_graph.nodes if node.op_type == operator)


def _last_filter(hil: Hil) -> str:
    return [n for n in hil.expected.streaming_graph.nodes if n.op_type == "Conv"][-1].inputs[1]


def _table(hil: Hil) -> str:
    return next(n.name for n in hil.expected.streaming_graph.nodes if "lut" in n.attributes)


def _output(hil: Hil) -> str:
    return hil.expected.streaming_graph.outputs[0].name


def _input(hil: Hil) -> str:
    return hil.expected.streaming_graph.inputs[0].name


def faults() -> dict[str, Callable[[Hil], Fault]]:
    """What ``--fail`` can break, by the cause that the diagnosis should name."""
    from espdl_hil.simulator import faults as of

    return {
        "weight": lambda hil: of.WeightBit(_last_filter(hil), 35, 6),
        "rounding": lambda _: of.WrongRounding(),
        "exponent": lambda hil: of.WrongShift(_node(hil, "Conv").name, 1),
        "table": lambda hil: of.LutEntry(_table(hil), 128, 0x20),
        "state": lambda _: of.StateDropped(step=2),
        "cache": lambda hil: of.CacheDropped(_node(hil, "StreamingCache").name, 3),
        "unwritten": lambda hil: of.OutputUnwritten(_output(hil), step=1),
        "buffer": lambda hil: of.OutputBits(_output(hil), step=4, bits=2, seed=1),
        "input": lambda hil: of.InputBits(_input(hil), step=3, bits=1, seed=2),
        "order": lambda _: of.StepTwice(2),
    }


# the keys of faults(), which is costly to import
KINDS = (
    *("weight", "rounding", "exponent", "table", "state"),
    *("cache", "unwritten", "buffer", "input", "order"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe ``demo`` and what it takes."""
    parser.description = (
        "Proves a small model on a simulated devkit and writes a report. --fail breaks "
        "one thing in the devkit first, to see what a failure looks like: its diagnosis here, its "
        "pictures in the page. Exit code 0: all rows passed; 1: one did not."
    )
    parser.add_argument(
        "--fail",
        nargs="?",
        const="weight",
        choices=KINDS,
        metavar="KIND",
        help=f"what to break in the first row: {', '.join(KINDS)} (default: %(const)s)",
    )
    parser.add_argument(
        "--report",
        type=Path,
        default=Path("hil-report"),
        metavar="DIR",
        help="default: %(default)s",
    )
    parser.add_argument("--history", type=Path, metavar="FILE", help="append the run to FILE")


def run(options: argparse.Namespace) -> int:
    """Prove the model, print the table and what a failure says.

    Returns:
        0 if all rows passed, else 1.

    Raises:
        HarnessError: the model cannot be quantized, or the report cannot be written.
    """
    from rich.console import Console

    from espdl_hil.model import load_model
    from espdl_hil.proof.case import cross
    from espdl_hil.proof.hil import Hil
    from espdl_hil.proof.outlets import export
    from espdl_hil.proof.ready import make_ready
    from espdl_hil.proof.rig import Rig
    from espdl_hil.proof.rows import RowBook
    from espdl_hil.proof.settings import Settings
    from espdl_hil.proof.verify import prove
    from espdl_hil.report import render_table, start_report, write_report

    start_report(options.report)
    with scratch_folder() as folder:
        file = folder / "demo.py"
        file.write_text(MODEL)
        cases = cross([load_model(file)], ("esp32s3",))
        settings = Settings(targets=("esp32s3",), report=options.report, history=options.history)
        rig = Rig(settings, cases)
        book = RowBook(rig, command=" ".join(["espdl-hil", *sys.argv[1:]]))
        explanations = []
        with contextlib.closing(rig):
            rig.find_ports()
            make_ready(rig, sys.stderr)
            for number, case in enumerate(cases):
                hil = Hil(case, book)
                if options.fail and not number:
                    hil.devkit.inject(faults()[options.fail](hil))
                explanations.append(prove(case, book))
                hil.devkit.clear()
            results = book.results
    written = write_report(results, options.report)
    print("\n\n".join(filter(None, explanations)))
    render_table(results, Console())
    for line in export(results, settings):
        print(line)
    print(f"report: {written.with_name('report.html')}  data: {written}")
    return 1 if any(explanations) else 0
