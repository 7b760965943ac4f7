"""``espdl-hil image``: the flash of a device with models in it, as one file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil.device.flash_image import write_image
from espdl_hil.device.machine import MACHINES
from espdl_hil.errors import ConfigError
from espdl_hil.espdl import load_graph, read_package, write_package
from espdl_hil.proof.case import make_cases
from espdl_hil.proof.rig import Rig
from espdl_hil.proof.settings import SERIAL, Settings
from espdl_hil.targets import CHIP_TARGETS

if TYPE_CHECKING:
    import argparse

EXPORTED = ".espdl"
MAX_BYTES = 1 << 32  # whether it fits, the partition says


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe ``image`` and what it takes."""
    parser.description = (
        "Merge bootloader, partition table, app and a models package into one image, "
        "to start an emulator from or to flash at 0x0. A model file (.py) is quantized, and all "
        "its widths and chunk sizes go in under the names that a test run uses; an .espdl file "
        "goes in as it is, under its own name."
    )
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--target", required=True, choices=CHIP_TARGETS, help="the chip")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE")
    parser.add_argument("--package", action="store_true", help="write the models package alone")
    parser.add_argument(
        "--app",
        metavar="DIR",
        help="ESP-IDF project or finished build of your app (default: the firmware, for --device)",
    )
    parser.add_argument(
        "--device",
        choices=[SERIAL, *MACHINES],
        default=SERIAL,
        help="what the firmware is built for: a board, or an emulator (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Write the file.

    Raises:
        ConfigError: a model or the build is missing, the models do not fit, or the file cannot be
            written.
        HarnessError: a model cannot be quantized or streamed, or is no model.
    """
    target, output = options.target, options.output
    if options.device in MACHINES:
        MACHINES[options.device].require(target)
    sources = [path for path in options.models if path.suffix != EXPORTED]
    cases = make_cases(sources, (target,)) if sources else []
    rig = Rig(Settings(options.device, (target,), app=options.app), cases, targets=(target,))
    if not options.package:
        rig.build()
    rig.prepare()
    for case in cases:
        rig.expected(case)  # raises what a package would leave out
    package = write_package(
        [
            *((entry.name, entry.data) for entry in read_package(rig.package(target, MAX_BYTES))),
            *((path.stem, _read(path)) for path in options.models if path.suffix == EXPORTED),
        ]
    )
    try:
        if options.package:
            output.write_bytes(package)
        else:
            write_image(rig.firmware(target), package, output)
        print(f"{output}: {output.stat().st_size} bytes", file=sys.stderr)
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error.strerror}") from None
    return 0


def _read(path: Path) -> bytes:
    """Read an exported model.

    Raises:
        ConfigError: there is no such file.
        ArtifactError: it is no model.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    load_graph(data)
    return data
