"""What a model's own metric says of the float model, the offline run and the stream."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.compare import TAIL
from espdl_hil.errors import ConfigError
from espdl_hil.model import describe_error, importing_from
from espdl_hil.quantize import generator
from espdl_hil.report import METRIC

if TYPE_CHECKING:
    from collections.abc import Sequence

    from espdl_hil.compare import Array, Tensors
    from espdl_hil.proof.expected import Expected
    from espdl_hil.streaming import Alignment


def compare_metric(
    expected: Expected, offline: Tensors, stream: Sequence[Tensors]
) -> dict[str, float] | None:
    """Ask the metric of a case about three runs of the same stimulus, in the file's layout.

    Returns:
        A number by name of ``METRIC``; None for a model without a metric.

    Raises:
        ConfigError: the metric raises, or gives no finite number.
    """
    if expected.case.model.metric is None or not expected.artifacts.float_outputs:
        return None
    compared = [a for a in expected.plan.alignments if not a.state_input]
    streamed = {a.output: _joined(a, [step[a.output] for step in stream]) for a in compared}
    frames = {
        a.output: min(streamed[a.output].shape[a.frame_axis], offline[a.output].shape[a.frame_axis])
        for a in compared
        if a.kind != TAIL
    }
    runs = (expected.artifacts.float_outputs, offline, streamed)
    found = {}
    for name, run in zip(METRIC, runs, strict=True):
        outputs = {}
        for alignment in compared:
            value = run[alignment.output]
            if alignment.output in frames:
                value = np.take(value, range(frames[alignment.output]), alignment.frame_axis)
            outputs[alignment.output] = _as_module(expected, alignment.output, value)
        found[name] = _ask(expected, outputs)
    return found


def _joined(alignment: Alignment, steps: list[Array]) -> Array:
    """What a stream gave, without the frames before its latency; of a tail the last answer."""
    if alignment.kind == TAIL:
        return steps[-1]
    whole = np.concatenate(steps, alignment.frame_axis)
    return np.split(whole, [alignment.latency_frames], alignment.frame_axis)[1]


def _as_module(expected: Expected, output: str, value: Array) -> Array:
    """An output as real numbers, its axes as the module has them."""
    if value.dtype.kind != "f":
        exponents = expected.offline_graph.info(output).exponents
        value = np.ldexp(value.astype(np.float64), exponents[0])
    return value.astype(np.float64).transpose(np.argsort(expected.artifacts.layouts[output]))


def _ask(expected: Expected, outputs: dict[str, Array]) -> float:
    model = expected.case.model
    assert model.metric is not None
    assert model.source is not None
    try:
        with importing_from(model.source.parent):
            value = float(model.metric(outputs, generator(model)))
    except Exception as error:
        raise ConfigError(
            f"metric of model {model.name!r} raised {describe_error(error)}"
        ) from error
    if not math.isfinite(value):
        raise ConfigError(
            f"metric of model {model.name!r} gave {value}", hint="it must be a finite number"
        )
    return value
