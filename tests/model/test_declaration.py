"""What a declaration refuses, and what it derives."""

from __future__ import annotations

import math
from typing import Any

import pytest

from espdl_hil import StreamingModel
from espdl_hil.errors import ConfigError

GOOD: dict[str, Any] = {
    "name": "m",
    "build": lambda: None,
    "input_shape": (1, 4, 12),
    "frame_axis": 2,
    "chunk_frames": (3,),
}
TWO_RATES: dict[str, Any] = {
    "input_shape": {"sound": (1, 4, 12), "motion": (1, 2, 6)},
    "frame_axis": {"sound": 2, "motion": 2},
}
RECURRENT: dict[str, Any] = {
    "input_shape": {"x": (1, 12, 4), "h0": (2, 1, 8)},
    "frame_axis": {"x": 1},
    "outputs": ("y", "hn"),
    "state": {"h0": "hn"},
}


def declare(**changes: Any) -> StreamingModel:
    return StreamingModel(**{**GOOD, **changes})


def test_defaults_name_one_input_and_one_output() -> None:
    model = declare()
    assert model.inputs == {"input": (1, 4, 12)}
    assert model.frame_axes == {"input": 2}
    assert model.outputs == ("output",)
    assert (model.bits, model.targets) == ((8,), ("esp32s3", "esp32p4"))
    assert (model.frames, model.chunk_count(3), model.chunk_of(3)) == (12, 4, {"input": 3})


def test_inputs_of_other_rates_are_cut_into_as_many_chunks() -> None:
    model = declare(**TWO_RATES, chunk_frames=(6,))
    assert model.chunk_of(6) == {"sound": 6, "motion": 3}


def test_state_inputs_have_no_frames_and_any_first_size() -> None:
    model = declare(**RECURRENT)
    assert model.frame_axes == {"x": 1}
    assert model.chunk_of(3) == {"x": 3}


@pytest.mark.parametrize(
    ("given", "at_8", "at_16"),
    [
        (None, 10, 30),
        (20, 20, 20),
        ({"output": 12.5}, 12.5, 12.5),
        ({}, 10, 30),
        (0, 0, 0),
        (-1e9, -1e9, -1e9),
    ],
)
def test_the_least_accuracy_is_declared_or_follows_from_the_width(
    given: Any, at_8: float, at_16: float
) -> None:
    model = declare(min_sqnr_db=given)
    assert (model.least_sqnr_db("output", 8), model.least_sqnr_db("output", 16)) == (at_8, at_16)


def test_a_ragged_last_chunk_counts_when_it_is_declared() -> None:
    assert declare(chunk_frames=(5,), ragged="flush").chunk_count(5) == 3


@pytest.mark.parametrize(
    "streaming", ["plan", "auto", [{"x": {"window_size": 3}}], [print], print, ({"x": {}}, print)]
)
def test_streaming_takes_words_tables_and_passes(streaming: Any) -> None:
    assert declare(streaming=streaming).streaming == streaming


def test_passes_of_ones_own_may_take_the_whole_sequence_at_once() -> None:
    assert declare(streaming=[print], chunk_frames=(12,)).chunk_frames == (12,)


class Module:
    """What a build function returns: callable too."""

    def __call__(self) -> None:
        """Run it."""

    def forward(self) -> None:
        """Run it."""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a b"}, "model name 'a b': expected letters, digits, '_' and '.'"),
        ({"name": ""}, "model name ''"),
        ({"min_sqnr_db": "20"}, "min_sqnr_db = '20': expected dB, or dB by name of an output"),
        ({"min_sqnr_db": {"mask": 20}}, "min_sqnr_db = {'mask': 20}: expected dB"),
        ({"min_sqnr_db": {"output": None}}, "min_sqnr_db = {'output': None}: expected dB"),
        ({"min_sqnr_db": False}, "min_sqnr_db = False: expected dB"),
        ({"min_sqnr_db": math.nan}, "min_sqnr_db = nan: expected a finite number of dB"),
        ({"min_sqnr_db": -math.inf}, "min_sqnr_db = -inf: expected a finite number of dB"),
        ({"min_sqnr_db": {"output": math.inf}}, "{'output': inf}: expected a finite number of dB"),
        ({"build": None}, "build is not a function that returns the module"),
        ({"build": Module()}, "build is a Module, expected a function that returns one"),
        ({"input_shape": (2, 4, 12)}, "the batch, its first size, must be 1"),
        ({"input_shape": (1,)}, "expected a tuple of two or more positive sizes"),
        ({"input_shape": (1, 0, 12)}, "expected a tuple of two or more positive sizes"),
        ({"input_shape": "1x4"}, "expected a tuple of two or more positive sizes"),
        ({"frame_axis": 3}, "frame_axis of 'input' is 3: expected 1 to 2"),
        ({"frame_axis": 0}, "frame_axis of 'input' is 0: expected 1 to 2"),
        ({"frame_axis": "2"}, "frame_axis of 'input' is '2'"),
        ({"frame_axis": {"input": 2}}, "must both be mappings from input name, or neither"),
        ({**TWO_RATES, "frame_axis": {"sound": 2, "light": 2}}, "frame_axis names 'light'"),
        ({**TWO_RATES, "frame_axis": {"sound": 2}}, "'motion' has neither a frame_axis nor"),
        ({**TWO_RATES, "frame_axis": {}}, "no input has a frame_axis"),
        ({**TWO_RATES, "chunk_frames": (1,)}, "is not a whole number of the 6 frames of 'motion'"),
        ({"chunk_frames": (5,)}, "a chunk of 5 frames does not divide the 12 frames of the input"),
        ({"chunk_frames": (24,), "ragged": "flush"}, "is longer than the 12 frames"),
        ({"chunk_frames": ()}, "chunk_frames = ()"),
        ({"chunk_frames": 3}, "chunk_frames = 3"),
        ({"chunk_frames": (3, 3)}, "expected a tuple of different positive whole numbers"),
        ({"chunk_frames": (0,)}, "expected a tuple of different positive whole numbers"),
        ({"chunk_frames": (True,)}, "expected a tuple of different positive whole numbers"),
        ({"bits": (4,)}, "an entry of bits is 4: expected 8 or 16"),
        ({"bits": 8}, "bits = 8: expected a tuple of 8 and 16"),
        ({"targets": ("esp32c6",)}, "targets = ('esp32c6',)"),
        ({"outputs": "output"}, "outputs = 'output': expected a tuple of names"),
        ({"outputs": ("input",)}, "'input' names more than one input or output"),
        ({"outputs": ("a", "a")}, "'a' names more than one input or output"),
        ({"state": ["h0"]}, "state is not a mapping"),
        ({"state": {"h0": "output"}}, "state: 'h0' is not an input"),
        ({**RECURRENT, "state": {"h0": "hx"}}, "state: 'hx' is not an output"),
        ({"state": {"input": "output"}}, "state: 'input' has a frame_axis"),
        ({"calibration": 3}, "calibration is not a function of a random generator"),
        ({"stimulus": 3}, "stimulus is not a function of a random generator"),
        ({"streaming": "manual"}, "streaming = 'manual'"),
        ({"streaming": []}, "streaming = []"),
        ({"streaming": [3]}, "streaming = [3]"),
        ({"streaming": "auto", "chunk_frames": (3, 12)}, "no chunk of the whole sequence (12 "),
        ({"streaming": [{"x": {}}], "chunk_frames": (12,)}, "no chunk of the whole sequence (12 "),
        ({"tolerance": None}, "tolerance = None"),
        ({"ragged": "pad"}, "ragged = 'pad': expected 'refuse' or 'flush'"),
        ({"seed": "x"}, "seed = 'x'"),
    ],
)
def test_a_wrong_declaration_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        declare(**changes)
    assert message in str(raised.value)
    assert "name" in changes or str(raised.value).startswith("model 'm': ")
