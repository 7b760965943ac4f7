"""A user's own project: one model file, a three-line test."""

import json

import pytest

from espdl_hil.report import validate_results


def results(project):
    content = json.loads((project.folder / "hil-report" / "results.json").read_text())
    validate_results(content)
    return content


def test_a_sound_model_passes_on_both_simulated_devkits(project):
    run = project.pytest("--hil-models=mine.py")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "SIMULATED devkits (esp32s3, esp32p4)" in run.stdout
    rows = results(project)["rows"]
    assert [row["id"] for row in rows] == ["esp32s3-mine-int8-chunk3", "esp32p4-mine-int8-chunk3"]
    for row in rows:
        assert row["outcome"] == "passed"
        assert row["substrate"] == "simulated"
        assert row["latency_us"] is None
        checks = row["checks"]
        compared = {"streaming": 48, "interpreter": 96, "reference": 48}
        assert checks.pop("accuracy")["outcome"] == "passed"
        assert {name: check["compared"] for name, check in checks.items()} == compared
        assert {check["differing"] for check in checks.values()} == {0}
    assert {device["substrate"] for device in results(project)["devices"]} == {"simulated"}


BROKEN = """
from espdl_hil import StreamingModel

def build():
    from torch import nn
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.pad, self.conv = nn.ConstantPad1d((2, 0), 0.0), nn.Conv1d(4, 4, 3)
            self.first = nn.Conv1d(4, 4, 1)
        def forward(self, x):
            x = self.first(x)
            return x + self.conv(self.pad(x))
    return Residual()

MODEL = StreamingModel(
    name="mine", build=build, input_shape=(1, 4, 12), frame_axis=2, chunk_frames=(3,),
    streaming=STREAMING, targets=("esp32s3",),
)
"""


@pytest.mark.parametrize(("streaming", "code"), [("plan", 0), ("auto", 1)])
def test_the_exporters_own_conversion_of_a_residual_is_found_out(project, streaming, code):
    """It moves both consumers behind the cache; the planner gives each its own."""
    project.write("mine.py", BROKEN.replace("STREAMING", repr(streaming)))
    run = project.pytest("--hil-models=mine.py")
    assert run.returncode == code, run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr
    (row,) = results(project)["rows"]
    assert (row["outcome"] == "passed") == (code == 0)


def test_a_damaged_store_entry_is_reported_and_made_anew(project, tmp_path):
    project.store = tmp_path / "store"  # others use theirs at the same time
    assert (
        project.pytest("--hil-models=mine.py", "--target=esp32s3", "--hil-device=sim").returncode
        == 0
    )
    for path in project.store.rglob("streaming-3.espdl"):
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-100])
    run = project.pytest("--hil-models=mine.py", "--target=esp32s3", "--hil-device=sim")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "artifact store: " in run.stderr
    assert "streaming-3.espdl" in run.stderr


def test_a_wrong_shape_is_one_message_and_an_error(project):
    project.write(
        "mine.py", (project.folder / "mine.py").read_text().replace("(1, 4, 12)", "(1, 5, 12)")
    )
    run = project.pytest("--hil-models=mine.py", "--target=esp32s3", "--hil-device=sim")
    assert run.returncode == 1
    assert "Traceback" not in run.stdout + run.stderr
    assert "quantize (build): forward(input (1, 5, 12)) raised RuntimeError" in run.stdout
    assert "hint: input_shape must be what the module takes" in run.stdout
    (row,) = results(project)["rows"]
    assert row["outcome"] == "error"
    assert not any(row["checks"].values())


def test_one_bad_model_does_not_hide_the_others(project):
    source = (project.folder / "mine.py").read_text()
    project.write("bad.py", source.replace("(1, 4, 12)", "(1, 5, 12)").replace('"mine"', '"bad"'))
    run = project.pytest(
        "--hil-models=mine.py", "--hil-models=bad.py", "--target=esp32s3", "--hil-device=sim"
    )
    assert run.returncode == 1
    outcomes = {row["model"]: row["outcome"] for row in results(project)["rows"]}
    assert outcomes == {"mine": "passed", "bad": "error"}
