"""A stream in which nothing depends on state is found, whatever its verdict."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from espdl_hil.proof.case import make_cases
from espdl_hil.proof.lint import lint_model
from espdl_hil.proof.rig import Rig
from espdl_hil.proof.settings import Settings
from espdl_hil.proof.shown import not_shown
from espdl_hil.proof.verify import verify
from espdl_hil.streaming import Severity

if TYPE_CHECKING:
    from pathlib import Path

    from espdl_hil.proof.expected import Expected

MODEL = """
import numpy as np
from espdl_hil import StreamingModel

def build():
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.pad, self.conv = nn.ConstantPad1d(({left}, 0), 0.0), nn.Conv1d(4, 8, {kernel})
            self.conv.weight.data[:, :, :-1] *= {past}

        def forward(self, x):
            {forward}

    torch.manual_seed(0)
    return Network()

MODEL = StreamingModel(
    name="net", build=build, input_shape=(1, 4, 12), frame_axis=2, chunk_frames=({chunk},),
    stimulus=lambda generator: {stimulus}, targets=("esp32s3",), min_sqnr_db=0.0,
)
"""
NOISE = "generator.standard_normal((1, 4, 12)).astype('float32')"
PLAIN = {
    "left": 2,
    "kernel": 3,
    "past": 1.0,
    "forward": "return self.conv(self.pad(x))",
    "chunk": 3,
    "stimulus": NOISE,
}
CASES = {
    "shown": ({}, ""),
    "no state": ({"left": 0, "kernel": 1}, ""),
    "one chunk": ({"chunk": 12}, "the stimulus is one chunk"),
    "alike": (
        {"stimulus": f"np.tile({NOISE}[:, :, :3], 4)"},
        "the chunks of the stimulus are alike",
    ),
    "past is nothing": ({"past": 1e-4}, "each chunk gives the same from a reset"),
    "last frame": (
        {"left": 0, "forward": "return self.conv(x)[:, :, -1]"},
        "each chunk gives the same from a reset",
    ),
    "last frames": ({"left": 0, "forward": "return self.conv(x)[:, :, -2:]"}, ""),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for number, (name, (changes, _)) in enumerate(CASES.items()):
        found[name] = folder / f"net{number}.py"
        found[name].write_text(MODEL.format(**PLAIN | changes).replace('"net"', f'"net{number}"'))
    return found


@pytest.fixture(scope="module")
def rig(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Rig:
    settings = Settings(report=tmp_path_factory.mktemp("report"))
    with contextlib.closing(Rig(settings, make_cases([*files.values()], ["esp32s3"]))) as made:
        made.prepare()
        yield made


def of(rig: Rig, files: dict[str, Path], name: str) -> Expected:
    return rig.expected(next(c for c in rig.cases if c.model.source == files[name]))


@pytest.mark.parametrize("name", CASES)
def test_what_the_stimulus_does_not_show_is_said(rig, files, name):
    said = CASES[name][1]
    findings = of(rig, files, name).not_shown
    assert [f.rule for f in findings] == (["S405"] if said else [])
    assert said in "".join(f.message for f in findings)


def test_a_warm_up_that_is_all_there_is(rig, files):
    expected = of(rig, files, "shown")
    (end,) = expected.plan.alignments
    assert expected.not_shown == ()
    chunks, stream, host = expected.chunks, expected.stream, SimpleNamespace()
    plan = replace(expected.plan, alignments=(replace(end, warmup_frames=end.offline_frames),))
    (finding,) = not_shown(plan, chunks, stream, host)
    assert "all frames lie in the warm-up of 12 frames" in finding.message


def test_row_and_lint_say_it(files, tmp_path):
    result = verify(files["past is nothing"], report=tmp_path / "report")
    assert result.passed
    assert result.rows[0].details.findings[0].startswith("S405 stimulus that does not show the")
    assert "finding on 1 row of net4: S405" in str(result)
    (findings,) = lint_model(files["past is nothing"], "esp32s3").findings.values()
    assert [(f.rule, f.severity) for f in findings] == [("S405", Severity.NOTE)]
