"""Seeded input sequences: the stimulus and the calibration batches. Knows shapes, not networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import QuantizeError
from harness.model import describe_error

if TYPE_CHECKING:
    from harness.model import Source, StreamingModel

    Arrays = dict[str, np.ndarray[Any, np.dtype[np.float32]]]

CALIBRATION_BATCHES = 8


def make_stimulus(model: StreamingModel) -> Arrays:
    """Make the test sequence of a model.

    Args:
        model: The model; its *seed* and *stimulus* decide.

    Returns:
        float32 by input name, shaped as ``model.inputs``; state inputs are zero.

    Raises:
        QuantizeError: stage ``build``; the model's own function raised or gave other shapes.
    """
    return _make(model, model.stimulus, "stimulus", 0)


def make_calibration(model: StreamingModel) -> list[Arrays]:
    """Make the calibration batches of a model.

    Returns:
        ``CALIBRATION_BATCHES`` batches like ``make_stimulus``'s, none of them equal to it. State
        inputs are zero here too: what they hold later is for the network to say.

    Raises:
        QuantizeError: as for ``make_stimulus``.
    """
    source = model.calibration or model.stimulus
    label = "calibration" if model.calibration else "stimulus"
    return [_make(model, source, label, index + 1) for index in range(CALIBRATION_BATCHES)]


def _make(model: StreamingModel, source: Source | None, label: str, index: int) -> Arrays:
    random = np.random.default_rng([model.seed, index])
    if source is None:
        given: Any = {name: random.standard_normal(model.inputs[name]) for name in model.frame_axes}
    else:
        try:
            given = source(random)
        except Exception as error:
            raise QuantizeError(
                f"{label} of model {model.name!r} raised {describe_error(error)}", stage="build"
            ) from error
    arrays = dict(given) if isinstance(given, Mapping) else {next(iter(model.frame_axes)): given}
    for name in model.state:
        arrays.setdefault(name, np.zeros(model.inputs[name]))
    if set(arrays) != set(model.inputs):
        raise QuantizeError(
            f"{label} of model {model.name!r} gave inputs {sorted(arrays)}, expected "
            f"{sorted(model.inputs)}",
            stage="build",
        )
    result: Arrays = {}
    for name, shape in model.inputs.items():
        array = np.ascontiguousarray(arrays[name], dtype=np.float32)
        if array.shape != shape or not np.isfinite(array).all():
            found = f"shape {array.shape}" if array.shape != shape else "values that are not finite"
            raise QuantizeError(
                f"{label} of model {model.name!r} gave {found} for input {name!r}, expected "
                f"finite values of shape {shape}",
                stage="build",
            )
        result[name] = array
    return result
