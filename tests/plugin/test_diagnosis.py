"""Faults of a simulated devkit, found through the whole stack: test, wire, diagnosis, bundle."""

import re
import subprocess
import sys

MODEL = """
from espdl_hil import StreamingModel

def build():
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.pad = nn.Conv1d(4, 16, 1), nn.ConstantPad1d((2, 0), 0.0)
            self.conv, self.last = nn.Conv1d(16, 16, 3), nn.Conv1d(16, 4, 1)

        def forward(self, x):
            x = torch.sigmoid(self.first(x))
            return self.last(x + torch.relu(self.conv(self.pad(x))))

    return Residual()

MODEL = StreamingModel(
    name="mine", build=build, input_shape=(1, 4, 12), frame_axis=2, chunk_frames=(3,),
    targets=("esp32s3",),
)
"""

TEST = """
import pytest
from espdl_hil.espdl import load_graph
from espdl_hil.simulator import faults

def graph(hil):
    return load_graph(hil.expected.artifacts.streaming[3])

def node(hil, op_type):
    return next(n for n in graph(hil).nodes if n.op_type == op_type)

def filter_of(hil):
    return [n for n in graph(hil).nodes if n.op_type == "Conv"][-1].inputs[1]

FAULTS = {
    "rounding mode": lambda hil: faults.WrongRounding(),
    "exponent or requantization": lambda hil: faults.WrongShift(node(hil, "Conv").name, 1),
    "weight or packing corruption": lambda hil: faults.WeightBit(filter_of(hil), 3, 6),
    "look-up table": lambda hil: faults.LutEntry(
        next(n.name for n in graph(hil).nodes if "lut" in n.attributes), 128, 0x20
    ),
    "state dropped": lambda hil: faults.StateDropped(step=2),
    "unwritten output": lambda hil: faults.OutputUnwritten(graph(hil).outputs[0].name, step=1),
}

@pytest.mark.parametrize("cause", FAULTS)
def test_fault(hil, cause):
    hil.devkit.clear()
    hil.devkit.inject(FAULTS[cause](hil))
    hil.forget()
    with pytest.raises(AssertionError) as failure:
        hil.verify()
    print("SAID", str(failure.value), "END")
    assert cause in str(failure.value)

def test_sound(hil):
    hil.devkit.clear()
    hil.forget()
    hil.verify()
"""


def test_every_fault_is_named_and_its_bundle_replays(project):
    project.write("mine.py", MODEL)
    project.write("test_mine.py", TEST)
    run = project.pytest("--hil-models=mine.py", "-s", "-v")
    assert run.returncode == 1, run.stdout + run.stderr  # for the row, not for a test
    assert run.stdout.splitlines()[-1].strip("= ").startswith("7 passed in ")
    said = re.findall(r"SAID (.*?) END", run.stdout, re.DOTALL)
    assert len(said) == 6
    for text in said:
        assert len(text.splitlines()) <= 14, text
        assert re.search(r"^next      ", text, re.MULTILINE), text
        assert re.search(r"^replay    espdl-hil replay ", text, re.MULTILINE), text

    bundles = list((project.folder / "hil-report" / "repro").iterdir())
    assert len(bundles) == 6
    bundle = max(bundles, key=lambda path: path.stat().st_mtime_ns)
    replay = subprocess.run(
        [sys.executable, "-m", "espdl_hil", "replay", str(bundle)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert replay.returncode == 1, replay.stderr  # the last fault was the devkit's, not the file's
    assert "not reproduced: this run gives the expected values" in replay.stdout
    bundle.write_bytes(bundle.read_bytes()[:-50])
    replay = subprocess.run(
        [sys.executable, "-m", "espdl_hil", "replay", str(bundle)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert replay.returncode == 2
    assert replay.stderr.startswith(f"error: {bundle}: not a repro bundle")
    assert "Traceback" not in replay.stderr
