"""``espdl-hil conformance``: recorded vectors on a device, and an evidence file of what it gave."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil.cli.files import write_text
from espdl_hil.errors import ConfigError
from espdl_hil.proof.settings import DEVICE_KINDS, SERIAL
from espdl_hil.targets import DEVKIT_TARGETS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from espdl_hil.device.session import DeviceInfo
    from espdl_hil.proof.conformance import VectorVerdict

VECTOR_FOLDERS = ("tests/golden", "tests/golden_chip", "tests/unknowns")  # of a checkout


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe ``conformance`` and what it takes."""
    parser.description = (
        "Runs recorded vectors on a device and compares every node's output with the "
        "recorded one. What one runs first on a new board, chip revision or version of ESP-DL. "
        "Exit code 0: all is as recorded, or deviates as is known of an emulator; 1: it does not."
    )
    parser.add_argument("--target", choices=DEVKIT_TARGETS, required=True, help="the chip")
    parser.add_argument("--port", help="the board's port (default: look for one)")
    parser.add_argument("--baud", type=int, help="baud rate of the console (default: 115200)")
    parser.add_argument(
        "--device",
        choices=DEVICE_KINDS,
        default=SERIAL,
        help="an attached board, a simulated devkit, or the firmware in an emulator (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--emulator", metavar="PATH", help="the emulator's program (default: look on PATH)"
    )
    parser.add_argument(
        "--app", metavar="DIR", help="ESP-IDF project or finished build of your app"
    )
    parser.add_argument(
        "--vectors",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="vectors and folders of them (default: those of the checkout in this folder)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the evidence file (JSON) there"
    )


def run(options: argparse.Namespace) -> int:
    """Run the vectors and print what came of it.

    Returns:
        0 if all is as recorded or deviates as is known of an emulator, else 1.

    Raises:
        HarnessError: no vectors, no device, or it failed; the evidence file cannot be written.
    """
    from espdl_hil.proof.conformance import evidence, render
    from espdl_hil.proof.vectors import find_vectors

    folders = options.vectors or [path for name in VECTOR_FOLDERS if (path := Path(name)).is_dir()]
    info, verdicts = _run_on_device(options, find_vectors(folders, options.target))
    made_of = " ".join(filter(None, [info.kind, info.emulator]))
    print(f"{info.chip} revision {info.revision}, {made_of}, ESP-DL {info.espdl_version}")
    print(render(verdicts))
    told = evidence(info, verdicts)
    for finding in told["findings"]:
        print(f"finding: {finding}")
    if options.output is not None:
        write_text(options.output, json.dumps(told, indent=1) + "\n")
        print(f"evidence: {options.output}")
    return 1 if any(verdict.wrong for verdict in verdicts) else 0


def _run_on_device(
    options: argparse.Namespace, paths: Sequence[Path]
) -> tuple[DeviceInfo, list[VectorVerdict]]:
    from espdl_hil.proof.conformance import run_vectors
    from espdl_hil.proof.rig import Rig
    from espdl_hil.proof.settings import Settings
    from espdl_hil.proof.vectors import read_vector

    settings = Settings(
        device=options.device,
        targets=(options.target,),
        ports={options.target: options.port} if options.port else {},
        baud=options.baud,
        app=options.app,
        emulator=options.emulator,
    )
    vectors = [read_vector(path) for path in paths]
    for vector in vectors:
        if vector.target != options.target:
            raise ConfigError(f"{vector.name} was recorded for {vector.target}")
    with contextlib.closing(Rig(settings, (), targets=(options.target,))) as rig:
        rig.find_ports()
        rig.build()
        dut = rig.dut(options.target)
        info = dut.info
        return info, run_vectors(dut, vectors)
