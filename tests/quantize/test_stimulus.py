"""Stimulus and calibration: seeded, shaped, and checked where an author makes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from espdl_hil import Quantization, StreamingModel
from espdl_hil.errors import QuantizeError
from espdl_hil.quantize.stimulus import make_calibration, make_stimulus


def declare(**changes: Any) -> StreamingModel:
    fields: dict[str, Any] = {
        "name": "m",
        "build": print,
        "input_shape": {"x": (1, 4, 12), "h0": (1, 1, 8)},
        "frame_axis": {"x": 2},
        "outputs": ("y", "hn"),
        "state": {"h0": "hn"},
        "chunk_frames": (3,),
    }
    return StreamingModel(**{**fields, **changes})


def test_the_default_is_seeded_noise_with_a_cold_state() -> None:
    first, again, other = (make_stimulus(declare(seed=seed)) for seed in (0, 0, 1))
    assert first["x"].dtype == np.float32
    assert first["x"].shape == (1, 4, 12)
    assert not first["h0"].any()
    assert np.array_equal(first["x"], again["x"])
    assert not np.array_equal(first["x"], other["x"])


def test_calibration_batches_differ_from_each_other_and_from_the_stimulus() -> None:
    model = declare(quantization=Quantization(batches=5))
    batches = [make_stimulus(model), *make_calibration(model)]
    assert len(batches) == 5 + 1
    assert len({batch["x"].tobytes() for batch in batches}) == len(batches)


def test_calibration_follows_the_stimulus_unless_it_is_given() -> None:
    ramp = np.arange(48.0).reshape(1, 4, 12)

    def rising(random: np.random.Generator) -> dict[str, Any]:
        return {"x": ramp}

    def twice(random: np.random.Generator) -> Any:
        return 2 * ramp

    assert (make_calibration(declare(stimulus=rising))[0]["x"] == ramp).all()
    assert (make_calibration(declare(stimulus=rising, calibration=twice))[0]["x"] == 2 * ramp).all()
    assert (make_stimulus(declare(stimulus=rising, calibration=twice))["x"] == ramp).all()


@pytest.mark.parametrize("frame", [np.zeros((1, 4, 1)), np.arange(4.0).reshape(1, 4, 1)])
def test_a_stimulus_of_equal_frames_is_refused(frame: Any) -> None:
    with pytest.raises(QuantizeError, match="stimulus of model 'm' is the same in every frame"):
        make_stimulus(declare(stimulus=lambda random: np.repeat(frame, 12, 2)))


def test_a_calibration_of_equal_frames_is_refused() -> None:
    moving = lambda random: random.standard_normal((1, 4, 12))  # noqa: E731
    still = lambda random: np.repeat(random.standard_normal((1, 4, 1)), 12, 2)  # noqa: E731
    with pytest.raises(QuantizeError, match="calibration of model 'm' is the same in every frame"):
        make_calibration(declare(stimulus=moving, calibration=still))
    assert len(make_calibration(declare(stimulus=still, calibration=moving))) > 1


def test_one_impulse_or_one_moving_input_is_enough() -> None:
    impulse = np.zeros((1, 4, 12))
    impulse[0, 2, 5] = 1
    assert make_stimulus(declare(stimulus=lambda random: impulse))["x"].sum() == 1
    shapes = {"x": (1, 4, 12), "condition": (1, 2, 12)}
    model = declare(
        input_shape=shapes,
        frame_axis=dict.fromkeys(shapes, 2),
        outputs=("y",),
        state={},
        stimulus=lambda random: {"x": impulse, "condition": np.ones((1, 2, 12))},
    )
    assert make_stimulus(model)["condition"].all()


def raising(random: np.random.Generator) -> Any:
    raise OSError("no recording")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda random: "noise.npy", "gave no numbers for input 'x' (ValueError: could not"),
        (raising, "stimulus of model 'm' raised OSError: no recording"),
        (lambda r: np.zeros((1, 4, 11)), "gave shape (1, 4, 11) for input 'x', expected finite"),
        (lambda r: np.full((1, 4, 12), np.nan), "gave values that are not finite for input 'x'"),
        (lambda r: {"z": np.zeros(3)}, "gave inputs ['h0', 'z'], expected ['h0', 'x']"),
        (lambda r: {}, "gave inputs ['h0'], expected ['h0', 'x']"),
    ],
)
def test_a_wrong_stimulus_is_refused(source: Any, message: str) -> None:
    with pytest.raises(QuantizeError) as raised:
        make_stimulus(declare(stimulus=source))
    assert str(raised.value).startswith("quantize (build): stimulus of model 'm' ")
    assert message in str(raised.value)


def test_a_wrong_calibration_is_named_as_such() -> None:
    with pytest.raises(QuantizeError, match="calibration of model 'm' raised OSError"):
        make_calibration(declare(calibration=raising))
