"""``espdl-hil export``: the very files of a verdict as a component for an ESP-IDF app."""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil.errors import ConfigError
from espdl_hil.proof.settings import SIM, Settings
from espdl_hil.targets import CHIP_TARGETS, DEVKIT_TARGETS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from espdl_hil.model import StreamingModel
    from espdl_hil.proof.case import Case
    from espdl_hil.proof.expected import Expected
    from espdl_hil.proof.rows import RowBook
    from espdl_hil.report import Row

REPORT = Path("hil-report-export")  # logs, and repro bundles of a verdict that is not green
DEMANDED = ("streaming", "interpreter")  # checks of a row whose bytes are exported
EMBEDDINGS = ("rodata", "partition", "sdcard")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe ``export`` and what it takes."""
    parser.description = (
        "Writes the .espdl files of a green verdict, byte for byte, with a header of "
        "shapes, exponents, chunk, latency, warm-up and states, the test vectors of the verdict, "
        "and a manifest. The streaming class that runs them goes beside, DIR/../espdl_stream. "
        "Without --results, or if they do not prove these bytes whole, the model is proven on a "
        "simulated devkit first. Exit code 1: the verdict is not green, nothing is written."
    )
    parser.add_argument("model", metavar="MODEL", help="a model file, or the name of one in models")
    parser.add_argument("--target", required=True, choices=CHIP_TARGETS, help="the chip")
    parser.add_argument("--bits", type=int, metavar="N", help="the width, if the model has several")
    parser.add_argument("--chunk", type=int, metavar="N", help="frames a chunk, likewise")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="results.json of a run that proved the model"
    )
    parser.add_argument(
        "--embed",
        choices=EMBEDDINGS,
        default=EMBEDDINGS[0],
        help="where the model lies on the device (default: %(default)s)",
    )
    parser.add_argument(
        "--label", default="models", help="the flash partition (default: %(default)s)"
    )
    parser.add_argument(
        "--partition", action="store_true", help="write the package of a models partition, too"
    )
    parser.add_argument(
        "--as",
        dest="name",
        metavar="NAME",
        help="name of header and namespace (default: MODEL_intBITS_chunkN)",
    )
    parser.add_argument(
        "--hil-store", type=Path, metavar="DIR", help="folder of the artifact store"
    )


def run(options: argparse.Namespace) -> int:
    """Prove the model if need be, and write the component.

    Returns:
        0, or 1 if the verdict is not green.

    Raises:
        ConfigError: the model, the results or the folder are not as they have to be.
        HarnessError: the model cannot be quantized or streamed, or the proof could not be made.
    """
    from espdl_hil.compare import Outcome
    from espdl_hil.proof.component import Component, component_name, identifier, write_component
    from espdl_hil.proof.rig import Rig
    from espdl_hil.proof.rows import RowBook

    command = shlex.join(["espdl-hil", *sys.argv[1:]])
    case = _case(options)
    settings = Settings(SIM, (case.target,), report=REPORT, store=options.hil_store)
    rig = Rig(settings, [case])
    book = RowBook(rig, command=command)
    with contextlib.closing(rig):
        rig.prepare()
        expected = rig.expected(case)
        row, explanation = _given(options.results, expected), ""
        if row is None:
            row, explanation = _prove(case, book)
        if row.outcome is not Outcome.PASSED:
            print(explanation or f"{case.id}: {row.outcome.value} in {options.results}")
            print("nothing was exported: the verdict is not green", file=sys.stderr)
            return 1
        name = identifier(options.name) if options.name else component_name(expected)
        component = Component(
            expected,
            row,
            name,
            embed=options.embed,
            label=options.label,
            package=options.partition,
            command=command,
            environment=book.environment,
        )
        files = write_component(component, options.output)
    print(
        f"{case.id}: {row.outcome.value} ({row.substrate}), {len(files)} files in {options.output}"
    )
    return 0


def _case(options: argparse.Namespace) -> Case:
    """The one row that is meant.

    Raises:
        ConfigError: there is no such model, or width or chunk size has to be said.
    """
    from espdl_hil.model import load_model
    from espdl_hil.proof.case import cross

    tried = [Path(options.model), Path("models") / f"{options.model}.py"]
    path = next((path for path in tried if path.is_file()), None)
    if path is None:
        raise ConfigError(f"{options.model}: no such model file, and none in the folder models")
    model = load_model(path)
    bits = _one(options.bits, model.bits, model, "--bits")
    chunk = _one(options.chunk, model.chunk_frames, model, "--chunk")
    chunks = model.chunk_frames if chunk in model.chunk_frames else (chunk,)
    cases = cross([replace(model, bits=(bits,), chunk_frames=chunks)], (options.target,))
    return next(case for case in cases if case.chunk_frames == chunk)


def _one(given: int | None, declared: Sequence[int], model: StreamingModel, option: str) -> int:
    if given is None and len(declared) > 1:
        values = ", ".join(map(str, declared))
        raise ConfigError(f"model {model.name!r} has {values}: say which with {option}")
    return declared[0] if given is None else given


def _given(path: Path | None, expected: Expected) -> Row | None:
    """The row of an earlier run, if it speaks of the very bytes that would be exported.

    Raises:
        ConfigError: the results cannot be read.
    """
    from espdl_hil.compare import Outcome
    from espdl_hil.proof.package import offline_name, streaming_name
    from espdl_hil.report import Results

    if path is None:
        return None
    case = expected.case
    row = next((row for row in Results.read(path).rows if row.id == case.id), None)
    if row is None:
        print(f"{path} has no row {case.id}: it is proven now", file=sys.stderr)
        return None
    wanted = {
        streaming_name(case): expected.streaming_path,
        offline_name(case): expected.artifacts.offline,
    }
    for name, file in wanted.items():
        if row.artifacts.get(name) != hashlib.sha256(file.read_bytes()).hexdigest():
            print(f"{path} proves other bytes of {name}: proven now", file=sys.stderr)
            return None
    lacking = [name for name in DEMANDED if name not in row.checks]
    if lacking and row.outcome is Outcome.PASSED:
        which = " and ".join(lacking)
        print(
            f"{path} does not prove these bytes whole, without {which}: proven now", file=sys.stderr
        )
        return None
    return row


def _prove(case: Case, book: RowBook) -> tuple[Row, str]:
    """Prove on a simulated devkit; returns the row, and why it is not green.

    Raises:
        ConfigError: there is no simulated devkit of the target.
    """
    from espdl_hil.proof.verify import prove

    if case.target not in DEVKIT_TARGETS:
        raise ConfigError(
            f"there is no simulated devkit of {case.target}",
            hint="prove it on a board and give its --results",
        )
    explanation = prove(case, book)
    row = book.row(case)
    assert row is not None, "a proof notes its row"
    return row, explanation
