"""What one recipe costs, beside ESP-DL's tutorial, on the same network and the same machine.

The product's way: a fresh store, one job, from the moment the scheduler has imported everything to
the last reply: float trace, calibration, an offline file and one streaming file a chunk size,
checks, hashes and publishing. The tutorial's way: ``espdl_quantize_torch`` once for the offline
file and once more for one streaming file, in this process, as warm; with the product's eight
calibration batches and without its error report, both of which the tutorial's script has more of.
A third figure spares the tutorial the garbage collection of all that was imported, six times a
call, which the product spares its workers: what is left is the sharing of trace and calibration.

Seconds are wall clock; processor seconds, which other work on the machine disturbs less, are in
parentheses. Ratios are medians of each round's own ratio of processor seconds.

    python benchmarks/recipe.py            # tcn, five rounds
    python benchmarks/recipe.py --model residual_tcn --rounds 9
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from espdl_hil.model import importing_from, load_model
from espdl_hil.quantize import Artifacts, Recipe, Store, one_scheduler, prepare
from espdl_hil.quantize.stimulus import make_calibration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from espdl_hil.model import StreamingModel

ROOT = Path(__file__).resolve().parent.parent
TARGET_RATIO = 0.4


def main() -> int:
    """Print the times; status 1 when a ratio is above the target."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="tcn", help="a model of the zoo (default: tcn)")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    model = load_model(ROOT / "models" / f"{arguments.model}.py")
    model = replace(model, chunk_frames=model.chunk_frames[:2])
    kinds = [(target, bits) for target in ("esp32s3", "esp32p4") for bits in (8, 16)]
    recipes = [Recipe.of(model, target, bits) for target, bits in kinds]
    tutorial = Tutorial(model)
    tutorial.run(*kinds[0])  # warm
    rounds = [one_round(recipes, kinds, tutorial) for _ in range(arguments.rounds)]
    print(
        f"{model.name}, chunks of {' and '.join(map(str, model.chunk_frames))} frames, medians of "
        f"{arguments.rounds} rounds"
    )
    alone, shared, *theirs = (list(column) for column in zip(*rounds, strict=True))
    missed = False
    for what, ours, first in (
        ("one recipe alone, int8 esp32s3", alone, 0),
        ("a recipe of 2 targets x 2 widths", shared, 1),
    ):
        print(f"{what}\n  product            {show(ours)}")
        print(f"  tutorial           {show(theirs[first])}  ratio {ratio(ours, theirs[first]):.2f}")
        spared = theirs[first + 2]
        print(f"  tutorial, no gc    {show(spared)}  ratio {ratio(ours, spared):.2f}")
        missed |= ratio(ours, theirs[first]) > TARGET_RATIO
    print(f"product to tutorial: at most {TARGET_RATIO} {'MISSED' if missed else 'holds'}")
    return int(missed)


class Cost(NamedTuple):
    """Seconds of the wall clock and of the processor, a recipe."""

    wall_s: float
    cpu_s: float


def one_round(
    recipes: Sequence[Recipe], kinds: Sequence[tuple[str, int]], tutorial: Tutorial
) -> list[Cost]:
    """Return the product's costs, alone and shared, then the tutorial's, plain and spared."""
    costs = [product(recipes[:1])]
    plain = [tutorial.run(*kind) for kind in kinds]
    costs.append(product(recipes))
    gc.collect()
    gc.freeze()
    spared = [tutorial.run(*kind) for kind in kinds]
    gc.unfreeze()
    return [*costs, plain[0], mean(plain), spared[0], mean(spared)]


def mean(costs: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.mean(column) for column in zip(*costs, strict=True)))


def show(costs: Sequence[Cost]) -> str:
    wall_s, cpu_s = (statistics.median(column) for column in zip(*costs, strict=True))
    return f"{wall_s:6.3f} s ({cpu_s:.3f} s)"


def ratio(ours: Sequence[Cost], theirs: Sequence[Cost]) -> float:
    return statistics.median(a.cpu_s / b.cpu_s for a, b in zip(ours, theirs, strict=True))


def product(recipes: Sequence[Recipe]) -> Cost:
    """Make recipes in a fresh store; return the cost of each after the imports."""
    with (
        tempfile.TemporaryDirectory() as first,
        tempfile.TemporaryDirectory() as store,
        one_scheduler(),
    ):
        prepare(recipes[:1], Store(Path(first)), jobs=1)  # starts the process
        (process,) = map(int, children().split())
        before_s, start_s = cpu_of(process) + time.process_time(), time.perf_counter()
        results = prepare(recipes, Store(Path(store)), jobs=1)
        wall_s = time.perf_counter() - start_s
        cpu_s = cpu_of(process) + time.process_time() - before_s
    assert all(isinstance(result, Artifacts) for result in results.values()), results
    return Cost(wall_s / len(recipes), cpu_s / len(recipes))


def children() -> str:
    """The processes that this thread has started."""
    return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()


def cpu_of(process: int) -> float:
    """Return the processor seconds of a process and of its children that have ended."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


class Tutorial:
    """The two calls of ``how_to_deploy_streaming_model`` in a warm process."""

    def __init__(self, model: StreamingModel) -> None:
        import torch

        torch.set_num_threads(1)
        self._model = model
        ((self._name, shape),) = model.inputs.items()
        self._shape = list(shape)
        self._batches = [torch.from_numpy(b[self._name]) for b in make_calibration(model)]
        assert model.source is not None
        assert model.build is not None
        torch.manual_seed(model.seed)
        with importing_from(model.source.parent):
            self._module = model.build().eval()

    def run(self, target: str, bits: int) -> Cost:
        """Quantize and export twice; return what both cost."""
        chunk = list(self._shape)
        chunk[self._model.frame_axes[self._name]] = self._model.chunk_frames[0]
        with tempfile.TemporaryDirectory() as folder, silence():
            start_s, before_s = time.perf_counter(), time.process_time()
            self._quantize(f"{folder}/offline.espdl", target, bits)
            self._quantize(
                f"{folder}/streaming.espdl",
                target,
                bits,
                auto_streaming=True,
                streaming_input_shape=chunk,
            )
            return Cost(time.perf_counter() - start_s, time.process_time() - before_s)

    def _quantize(self, path: str, target: str, bits: int, **streaming: Any) -> None:
        from esp_ppq.api import espdl_quantize_torch

        espdl_quantize_torch(
            model=self._module,
            espdl_export_file=path,
            calib_dataloader=self._batches,
            calib_steps=len(self._batches),
            input_shape=self._shape,
            target=target,
            num_of_bits=bits,
            error_report=False,
            **streaming,
        )


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Send what the exporter prints to nowhere."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, old in zip((1, 2), kept, strict=True):
            os.dup2(old, descriptor)
            os.close(old)
        os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
