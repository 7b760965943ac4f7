"""How much of a line a streamed run uses, by the size of its chunks.

A simulated devkit in a process of its own paces bytes as a UART does: 10 bits each, both directions
at once. The model, one ReLU, takes and gives as many bytes as its chunk has, so that the figure is
about the wire and not about computing. *Capacity* is what the line carries in one direction,
framing and all; *payload* are the bytes of results a second, from the first chunk sent to the last
result read. The share that is missing is framing, the wait for the first result, and this host.

    python benchmarks/wire.py              # or at another rate: python benchmarks/wire.py 2000000
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.device.dut import Dut, DutConfig
from espdl_hil.device.transport import BITS_PER_BYTE
from espdl_hil.model import load_model
from espdl_hil.quantize import Artifacts, Recipe, Store, prepare
from espdl_hil.simulator import build_app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.device.model import Model

TARGET, CHANNELS = "esp32s3", 16
CHUNK_BYTES = (64, 128, 256, 512, 1024, 2048, 4096)
BAUD = 921_600
RUN_S = 2.0  # that each size would take at full capacity
MIN_SHARE, FROM_BYTES = 0.9, 256
MODEL = f"""
from espdl_hil import StreamingModel

def build():
    from torch import nn

    return nn.Sequential(nn.ReLU())

MODEL = StreamingModel(
    name="wire", build=build, input_shape=(1, {CHANNELS}, {max(CHUNK_BYTES) // CHANNELS}),
    frame_axis=2, chunk_frames={tuple(size // CHANNELS for size in CHUNK_BYTES)},
)
"""


def main(baud: int = BAUD) -> int:
    """Print payload bytes a second beside the capacity of the line, for each size of chunk.

    Returns:
        0 if chunks of 256 bytes and more reach 90 % of it, else 1.
    """
    with tempfile.TemporaryDirectory() as scratch, devkit() as url:
        folder = Path(scratch)
        files = models(folder)
        config = DutConfig(TARGET, build_app(TARGET, folder / "app"), port=url, max_baud=baud)
        with Dut(config) as dut:
            capacity = dut.baud / BITS_PER_BYTE
            print(f"{dut.baud:,} baud: {capacity:,.0f} bytes/s each way")
            print(f"{'chunk':>6} {'payload B/s':>12} {'share':>6}")
            shares = {}
            for size, file in files.items():
                model = dut.session.upload(file.read_bytes())
                rate = measure(model, size, capacity)
                model.unload()
                shares[size] = rate / capacity
                print(f"{size:6,} {rate:12,.0f} {shares[size]:6.1%}")
    reached = all(share >= MIN_SHARE for size, share in shares.items() if size >= FROM_BYTES)
    print(
        f"{'reaches' if reached else 'does NOT reach'} {MIN_SHARE:.0%} from {FROM_BYTES} bytes on"
    )
    return 0 if reached else 1


def measure(model: Model, size: int, expected: float) -> float:
    """Payload bytes a second of a stream that takes about ``RUN_S``, once the line is warm."""
    (spec,) = model.describe().inputs
    values = np.random.default_rng(size).integers(0, 127, spec.shape, spec.dtype)
    chunks = [{spec.name: values}] * max(16, int(RUN_S * expected / size))
    model.stream(chunks[:8], reset=True)
    start_s = time.perf_counter()
    results = model.stream(chunks)
    elapsed_s = time.perf_counter() - start_s
    for result in results:
        if not all(np.array_equal(output, values) for output in result.outputs.values()):
            raise AssertionError("a result is not that of its chunk")
    return size * len(chunks) / elapsed_s


def models(folder: Path) -> dict[int, Path]:
    """The streaming file of each size of chunk; the store keeps them."""
    file = folder / "wire.py"
    file.write_text(MODEL)
    recipe = Recipe.of(load_model(file), TARGET, 8)
    made = prepare([recipe], Store())[recipe.key]
    if not isinstance(made, Artifacts):
        raise made
    return {frames * CHANNELS: path for frames, path in made.streaming.items()}


@contextmanager
def devkit() -> Iterator[str]:
    """A paced devkit in a process of its own; its port's URL."""
    command = [sys.executable, "-m", "espdl_hil", "simulate", "--target", TARGET, "--pace"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
