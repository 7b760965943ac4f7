"""What is done with a hostile model file: all commands and the simulated devkit."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import mutations
import numpy as np
from bombs import BOMBS

from espdl_hil.__main__ import main
from espdl_hil.espdl import load_graph, read_package
from espdl_hil.interpreter import load
from espdl_hil.simulator.chips import CHIPS
from espdl_hil.simulator.injection import Injection
from espdl_hil.simulator.runner import ModelRunner

# The bounds of docs/reliability.md: bytes of memory for each byte of the file, and a constant.
LOOK = (256, 32 * 2**20)  # reading, shapes, check, inspect
RUN = (1024, 512 * 2**20)  # execution, on the host or by a simulated devkit
TARGETS = ("esp32s3", "esp32p4", "c")


def bound(data, limits):
    factor, base = limits
    return factor * len(data) + base


def execute(data, target):
    """Read, check, prepare and step."""
    for entry in read_package(data):
        session = load(load_graph(entry.data), target)
        rng = np.random.default_rng(0)
        for _ in range(2):
            session.step({i.name: mutations.noise(rng, i) for i in session.inputs})
    return "ran"


def inspect(data, target):
    """Print it for people; of a package its list."""
    return _command(data, "--target", target)


def dump(data, target):
    """Print it as JSON."""
    return _command(data, "--json", "--model", "0")


def _command(data, *arguments):
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "hostile.espdl"
        path.write_bytes(data)
        code = main(["inspect", str(path), *arguments])
    assert code in (0, 1, 2)
    return "refused" if code == 2 else "inspected"


def upload(data, target):
    """What a simulated devkit does with it when it is uploaded."""
    runner = ModelRunner(CHIPS["esp32p4" if target == "c" else target], Injection())
    model = runner.load("hostile", data)
    tensors = [
        [runner.tensor(model, kind, i) for i in range(runner.count(model, kind))]
        for kind in range(3)
    ]
    rng = np.random.default_rng(0)
    runner.run(
        model,
        [memoryview(mutations.noise(rng, info).tobytes()) for info in tensors[0]],
        [memoryview(bytearray(info.nbytes)) for info in tensors[1]],
        [],
    )
    return "uploaded"


@contextlib.contextmanager
def quiet():
    """Both streams into nowhere."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def warm_up():
    """Load here, once, what each attack would load in its fork."""
    sound = mutations.golden_model(mutations.SOURCES[0])
    for use in (execute, inspect, dump, upload):
        use(sound, "esp32s3")


def case(use, data, target):
    return lambda: use(data, target)


def mutated(seed, count):
    """Cases of mutated files and packages."""
    rng, sources = np.random.default_rng(seed), mutations.sound_files()
    uses = ((execute, RUN), (inspect, LOOK), (execute, RUN), (upload, RUN), (dump, LOOK))
    for number in range(count):
        data, kind = mutations.mutate(sources, rng)
        (use, limits), target = uses[number % 5], TARGETS[number % 3]
        name = f"mutation {number} of seed {seed} ({kind}, {use.__name__})"
        yield name, case(use, data, target), bound(data, limits)


def bombs(_seed, ways):
    """Every bomb, used in that many ways."""
    for bomb in BOMBS:
        data = bomb()
        uses = ((execute, RUN), (inspect, LOOK), (dump, LOOK), (upload, RUN))
        for use, limits in uses[:ways]:
            name = f"{bomb.__name__} ({use.__name__}, {len(data)} bytes)"
            yield name, case(use, data, "esp32s3"), bound(data, limits)
