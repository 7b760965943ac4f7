"""Seeded input sequences: the stimulus and the calibration batches. Knows shapes, not networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.errors import QuantizeError
from espdl_hil.model import describe_error

if TYPE_CHECKING:
    from espdl_hil.model import Source, StreamingModel

    Arrays = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


def make_stimulus(model: StreamingModel) -> Arrays:
    """Make the test sequence of a model.

    Args:
        model: The model; its *seed* and *stimulus* decide.

    Returns:
        float32 by input name, shaped as ``model.inputs``; state inputs are zero.

    Raises:
        QuantizeError: stage ``build``; the model's own function raised, gave other shapes, or
            the same frame over and over, of which every order and history looks alike.
    """
    stimulus = _make(model, model.stimulus, "stimulus", 0)
    _require_motion(model, [stimulus], "stimulus", "a lost history would not show")
    return stimulus


def make_calibration(model: StreamingModel) -> list[Arrays]:
    """Make the calibration batches of a model.

    Returns:
        ``model.quantization.batches`` batches like ``make_stimulus``'s, none of them equal to it.
        State inputs are zero here too: what they hold later is for the network to say.

    Raises:
        QuantizeError: as for ``make_stimulus``.
    """
    source = model.calibration or model.stimulus
    label = "calibration" if model.calibration else "stimulus"
    count = model.quantization.batches
    batches = [_make(model, source, label, index + 1) for index in range(count)]
    _require_motion(model, batches, label, "the ranges would be those of one frame")
    return batches


def _require_motion(
    model: StreamingModel, sequences: list[Arrays], label: str, otherwise: str
) -> None:
    moving = [name for name, axis in model.frame_axes.items() if model.inputs[name][axis] > 1]
    if moving and not any(
        np.ptp(arrays[name], model.frame_axes[name]).any()
        for arrays in sequences
        for name in moving
    ):
        error = _error(model, label, f"is the same in every frame: {otherwise}")
        error.hint = "give a recording, or leave it out for noise"
        raise error


def generator(model: StreamingModel, index: int = 0) -> np.random.Generator:
    """Return what the stimulus is drawn from; above 0, the calibration batch of that number."""
    return np.random.default_rng([model.seed, index])


def _error(model: StreamingModel, label: str, what: str) -> QuantizeError:
    return QuantizeError(f"{label} of model {model.name!r} {what}", stage="build")


def _make(model: StreamingModel, source: Source | None, label: str, index: int) -> Arrays:
    random = generator(model, index)
    if source is None:
        given: Any = {name: random.standard_normal(model.inputs[name]) for name in model.frame_axes}
    else:
        try:
            given = source(random)
        except Exception as error:
            raise _error(model, label, f"raised {describe_error(error)}") from error
    arrays = dict(given) if isinstance(given, Mapping) else {next(iter(model.frame_axes)): given}
    for name in model.state:
        arrays.setdefault(name, np.zeros(model.inputs[name]))
    if set(arrays) != set(model.inputs):
        what = f"gave inputs {sorted(arrays)}, expected {sorted(model.inputs)}"
        raise _error(model, label, what)
    result: Arrays = {}
    for name, shape in model.inputs.items():
        try:
            array = np.ascontiguousarray(arrays[name], dtype=np.float32)
        except (TypeError, ValueError) as error:
            what = (
                f"gave no numbers for input {name!r} ({describe_error(error)}), expected values of "
                f"shape {shape}"
            )
            raise _error(model, label, what) from error
        if array.shape != shape or not np.isfinite(array).all():
            found = f"shape {array.shape}" if array.shape != shape else "values that are not finite"
            what = f"gave {found} for input {name!r}, expected finite values of shape {shape}"
            raise _error(model, label, what)
        result[name] = array
    return result
