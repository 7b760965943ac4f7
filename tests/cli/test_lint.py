"""``espdl-hil lint`` of model files: what is chosen, what is described, what is explained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from espdl_hil.__main__ import main

MODEL = """
from espdl_hil import StreamingModel

def build():
    from torch import nn

    return nn.Sequential(nn.ConstantPad1d((2, 0), 0.0), nn.Conv1d(4, 8, 3), nn.ReLU(), LAST)

MODEL = StreamingModel(
    name="mine", build=build, input_shape=(1, 4, 12), frame_axis=2, chunk_frames=(3,), bits=(8, 16)
)
"""


@pytest.fixture
def model_file(tmp_path):
    def write(last="nn.Conv1d(8, 4, 1)"):
        path = tmp_path / "mine.py"
        path.write_text(MODEL.replace("LAST", last))
        return str(path)

    return write


def test_what_streams_is_described(model_file, tmp_path, capsys):
    store = tmp_path / "store"
    chosen = ["--bits", "8", "--target", "esp32p4", "--hil-store", str(store)]

    assert main(["lint", model_file(), *chosen]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["mine int8 chunk3: nothing found", "  8 bytes of state, 1 caches"]
    assert lines[2].startswith("    2 frames of input for ")
    assert lines[3] == "  latency 0 frames, warm-up 0 frames, receptive field 3 frames"
    assert lines[4] == f"  {3 * (4 * 3 * 8 + 8 * 4)} MACs a chunk"
    assert lines[5].startswith("  weakest layer for output: ")
    assert len(lines) == 6
    made = [
        json.loads(path.read_text())["recipe"]
        for path in store.glob("entries/*/*/meta.json")
        if "recipe" in path.read_text()
    ]
    assert [(recipe["target"], recipe["bits"]) for recipe in made] == [("esp32p4", 8)]


def test_one_width_that_fails_keeps_the_verdict_of_the_other(model_file, capsys):
    """ESP-DL's Resize has no int16; at int8 it wants 16 channels."""
    last = 'nn.Conv1d(8, 16, 1), nn.Upsample(scale_factor=2, mode="nearest")'

    assert main(["lint", model_file(last)]) == 1

    said = capsys.readouterr().out
    assert said.startswith("mine int16: 1 error\n  S114 error 4 (Resize): ")
    assert "\nmine int8 chunk3: nothing found\n" in said


def test_a_rule_is_explained(capsys):
    assert main(["lint", "--explain", "s105"]) == 0
    title, _, edit, *example = capsys.readouterr().out.splitlines()
    assert title == "S105 non-causal padding (error)"
    assert edit.startswith("edit: pad on the left only: F.pad(x, ")
    assert example[:3] == [
        "    # before",
        "    conv = nn.Conv1d(4, 4, 3, padding=1)",
        "    return x + conv(x)",
    ]
    assert example[3:6] == [
        "    # after",
        "    conv = nn.Conv1d(4, 4, 3)",
        "    return x + conv(F.pad(x, (2, 0)))",
    ]
    assert example.count("    # after") == 3  # one for each edit that is suggested


def test_what_all_widths_share_stands_once_and_a_chunk_size_that_fits_keeps_its_verdict(
    model_file, tmp_path, capsys
):
    path = model_file("nn.Conv1d(8, 4, 2, stride=2)")
    text = Path(path).read_text().replace("chunk_frames=(3,)", "chunk_frames=(3, 4)")
    Path(path).write_text(text)

    assert main(["lint", path, "--hil-store", str(tmp_path / "store")]) == 1

    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "mine int8 and int16: 1 error",
        "mine int8 chunk4: nothing found",
        "mine int16 chunk4: nothing found",
    ]
    assert lines[1].startswith("  S120 error 3 (Conv): stride phase: a chunk of 3 frames gives 3/2")
    assert lines[1].endswith("[chunks of 3 frames]")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--explain", "S999"], "there is no rule S999"), ([], "nothing to lint")],
)
def test_mistakes(arguments, message, capsys):
    assert main(["lint", *arguments]) == 2
    assert message in capsys.readouterr().err
