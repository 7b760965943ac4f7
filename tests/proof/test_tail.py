"""A head on the last frames, compared at every chunk with the frames that it can see."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from espdl_hil import interpreter
from espdl_hil.model import load_model
from espdl_hil.proof.case import Case
from espdl_hil.proof.comparison import compare_streaming
from espdl_hil.proof.expected import Expected
from espdl_hil.quantize import Artifacts, Recipe, Store, prepare

MODEL = """
from espdl_hil import StreamingModel

def build():
    from torch import nn

    class Tail(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(
                nn.ConstantPad1d((2, 0), 0.0), nn.Conv1d(4, 8, 3, stride=2), nn.ReLU(),
                nn.ConstantPad1d((4, 0), 0.0), nn.Conv1d(8, 8, 3, dilation=2), nn.ReLU(),
            )
            self.head = nn.Conv1d(8, 4, 1)

        def forward(self, x):
            return self.head(self.layers(x)[:, :, -1:])

    return Tail()

MODEL = StreamingModel(
    name="tail", build=build, input_shape=(1, 4, 48), frame_axis=2, chunk_frames=(2, 4, 6),
)
"""


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    file = tmp_path_factory.mktemp("models") / "tail.py"
    file.write_text(MODEL)
    model = load_model(file)
    recipe = Recipe.of(model, "esp32s3", 8)
    made = prepare([recipe], Store())[recipe.key]
    assert isinstance(made, Artifacts), made
    return model, made


def expected_of(artifacts, chunk_frames, **changes):
    """Expected values, by a plan whose alignments are changed."""
    model, made = artifacts
    expected = Expected(Case("esp32s3", model, 8, chunk_frames), made)
    plan = expected.plan
    changed = replace(plan, alignments=tuple(replace(a, **changes) for a in plan.alignments))
    expected.__dict__["plan"] = changed  # a cached property
    return expected


@pytest.fixture
def loads(monkeypatch):
    """Input shapes of every interpreter session that is made."""
    seen, load = [], interpreter.load

    def spy(*args, **options):
        if options.get("input_shapes"):
            seen.append(next(iter(options["input_shapes"].values())))
        return load(*args, **options)

    monkeypatch.setattr("espdl_hil.proof.expected.interpreter", SimpleNamespace(load=spy))
    return seen


@pytest.mark.parametrize("chunk_frames", [2, 4, 6])
def test_the_window_gives_what_the_whole_prefix_gives(artifacts, chunk_frames):
    expected = expected_of(artifacts, chunk_frames)
    (alignment,) = expected.plan.alignments
    assert alignment.kind == "tail"
    assert 0 < alignment.window_frames < expected.case.model.frames // 2
    whole = expected_of(artifacts, chunk_frames, window_frames=None)
    pairs = zip(expected.cut(expected.offline), whole.cut(whole.offline), strict=True)
    assert all(np.array_equal(a[name], b[name]) for a, b in pairs for name in a)
    assert compare_streaming(expected, expected.stream, expected.offline).passed


def test_a_window_that_is_too_short_is_noticed(artifacts):
    """The twin: the comparison looks at every chunk, so one wrong prefix shows."""
    window = expected_of(artifacts, 2).plan.alignments[0].window_frames
    expected = expected_of(artifacts, 2, window_frames=window - 4)
    assert not compare_streaming(expected, expected.stream, expected.offline).passed


def test_one_session_serves_all_chunks_past_the_first_few(artifacts, loads):
    expected = expected_of(artifacts, 2)
    expected.cut(expected.offline)
    window = expected.plan.alignments[0].window_frames
    assert max(frames for _, frames, _ in loads) == window
    assert len(loads) <= window // 2 + 1
    loads.clear()
    whole = expected_of(artifacts, 2, window_frames=None)
    whole.cut(whole.offline)
    assert len(loads) >= len(whole.chunks) - 1  # one for each prefix


def test_a_difference_in_any_chunk_is_found(artifacts):
    expected = expected_of(artifacts, 4)
    for chunk in range(len(expected.chunks)):
        stream = [{name: value.copy() for name, value in step.items()} for step in expected.stream]
        for value in stream[chunk].values():
            value.flat[0] ^= 1
        found = compare_streaming(expected, stream, expected.offline)
        skipped = found.verdict.skipped_frames
        assert found.passed == (chunk < skipped)
    assert skipped < len(expected.chunks) // 2
