"""What comparing a head on the last frames costs, by the length of the stream.

Each chunk of such an output is compared with the offline run of all frames so far. Only the last of
them matter, as many as the head can see, so the cost of a stream grows with its length and not with
the length's square. Times the host's side of a comparison: the offline run of every prefix, and the
comparison of every chunk.

    python benchmarks/tail.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from espdl_hil.model import load_model
from espdl_hil.proof.case import Case
from espdl_hil.proof.comparison import compare_streaming
from espdl_hil.proof.expected import Expected
from espdl_hil.quantize import Artifacts, Recipe, Store, prepare

FRAMES = (1_000, 4_000, 16_000)
MAX_GROWTH = 1.2  # seconds a frame of any length, to those of the shortest
REPEATS = 3
TARGET, BITS, CHUNK_FRAMES = "esp32s3", 8, 1
MODEL = """
from espdl_hil import StreamingModel

def build():
    from torch import nn

    class Tail(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(
                nn.ConstantPad1d((2, 0), 0.0), nn.Conv1d(8, 16, 3), nn.ReLU(),
                nn.ConstantPad1d((4, 0), 0.0), nn.Conv1d(16, 16, 3, dilation=2), nn.ReLU(),
            )
            self.head = nn.Conv1d(16, 4, 1)

        def forward(self, x):
            return self.head(self.layers(x)[:, :, -1:])

    return Tail()

MODEL = StreamingModel(
    name="tailFRAMES", build=build, input_shape=(1, 8, FRAMES), frame_axis=2, chunk_frames=(1,)
)
"""


def main() -> int:
    """Print seconds and microseconds a frame for each length.

    Returns:
        0 if the cost is linear in the frames, else 1.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = {frames: make(Path(folder), frames) for frames in FRAMES}
        print(f"{'frames':>8} {'chunks':>8} {'seconds':>9} {'µs/frame':>9} {'growth':>7}")
        first_s = 0.0
        growths = []
        for frames, (case, artifacts) in made.items():
            seconds = min(measure(case, artifacts) for _ in range(REPEATS))
            first_s = first_s or seconds / frames
            growths.append(seconds / frames / first_s)
            print(
                f"{frames:8,} {case.chunk_count:8,} {seconds:9.3f} {1e6 * seconds / frames:9.1f} "
                f"{growths[-1]:7.2f}"
            )
    linear = max(growths) <= MAX_GROWTH
    print(f"{'linear' if linear else 'NOT linear'} within {MAX_GROWTH - 1:.0%}")
    return 0 if linear else 1


def make(folder: Path, frames: int) -> tuple[Case, Artifacts]:
    """Quantize the model for a stimulus of *frames* frames; the store keeps it."""
    file = folder / f"tail{frames}.py"
    file.write_text(MODEL.replace("FRAMES", str(frames)))
    case = Case(TARGET, load_model(file), BITS, CHUNK_FRAMES)
    recipe = Recipe.of(case.model, TARGET, BITS)
    result = prepare([recipe], Store())[recipe.key]
    if not isinstance(result, Artifacts):
        raise result
    return case, result


def measure(case: Case, artifacts: Artifacts) -> float:
    """Processor seconds to compare the stream with the offline runs of all prefixes."""
    expected = Expected(case, artifacts)
    stream, offline = expected.stream, expected.offline
    start_s = time.process_time()
    found = compare_streaming(expected, stream, offline)
    elapsed_s = time.process_time() - start_s
    if not found.passed or found.verdict.elements < case.chunk_count:
        raise AssertionError(f"{case.id}: {found}")
    return elapsed_s


if __name__ == "__main__":
    sys.exit(main())
