"""``espdl-hil replay``: a failed row again, on a simulated devkit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil.report import read_repro
from espdl_hil.scratch import scratch_folder

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from espdl_hil.report import Repro

    Tensors = Mapping[str, NDArray[np.generic]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe ``replay`` and what it takes."""
    parser.description = (
        "Runs the artifact and stimulus of a repro bundle on a simulated devkit of the "
        "same target, and compares with what was expected and what was observed then. "
        "Exit code 0: this run gives what was recorded; 1: it does not."
    )
    parser.add_argument("bundle", type=Path, help="hil-report/repro/ID.zip")


def run(options: argparse.Namespace) -> int:
    """Replay a bundle and print what came of it.

    Returns:
        0 if this run gives what was recorded, else 1.

    Raises:
        ArtifactError: the bundle is damaged.
    """
    repro = read_repro(options.bundle)
    print(f"{repro.id}: recorded on {repro.substrate}, replayed on a simulated {repro.target}")
    replay = repro.replayed(run_simulated(repro))
    print(replay)
    if repro.diagnosis:
        print(f"diagnosis then:\n{repro.diagnosis['text']}")
    return 0 if replay.reproduced else 1


def run_simulated(repro: Repro) -> Sequence[Tensors]:
    """Run the bundle's artifact over its stimulus on a simulated devkit.

    Returns:
        For each chunk, graph output name to array.
    """
    from espdl_hil.device.dut import Dut, DutConfig
    from espdl_hil.simulator import Devkit, build_app

    with scratch_folder() as folder, Devkit(repro.target) as devkit:
        build_dir = build_app(repro.target, folder)
        with Dut(DutConfig(repro.target, build_dir, port=devkit.url)) as dut:
            model = dut.session.upload(repro.artifacts[repro.main])
            if repro.state:
                model.bind_state({output: into for into, output in repro.state.items()})
            return [step.outputs for step in model.stream(repro.stimulus, reset=True)]
