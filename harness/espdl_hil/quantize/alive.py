"""Does the quantized network say anything? What is always the same, and which inputs are clipped.

Knows arrays in the file's layout, not how they came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.errors import QuantizeError
from espdl_hil.streaming import rules
from espdl_hil.streaming.findings import find

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from espdl_hil.streaming import Finding

    Array = NDArray[Any]

_HINT = (
    "its weights may be untrained or its outputs saturated; give it trained weights, or a "
    "calibration and a stimulus like what it will see"
)
_SHOWN = 4  # channels named in one finding
_MORE_CLIPPED = 0.01  # share of elements, beyond what the calibration clips of its own batches


@dataclass(frozen=True)
class Output:
    """One graph output for the stimulus.

    Attributes:
        values: Integers (float32 where the file says so) in the file's layout.
        real: The float network's, same shape; None where there is none.
        exponent: None for float32.
        frame_axis: -1 when it has no frames: then it is judged as a whole.
    """

    values: Array
    real: Array | None
    exponent: int | None
    frame_axis: int

    @property
    def still(self) -> Array:
        """Which channels hold one value all the time; one element each, flat."""
        channels = self._channels(self.values)
        return np.asarray(channels.max(1) == channels.min(1))

    def cause(self, channel: int) -> str:
        """Say why a channel is still."""
        value = self._channels(self.values)[channel].flat[0]
        step = 1.0 if self.exponent is None else 2.0**self.exponent
        saturated = self.values.dtype.kind != "f" and value in _limits(self.values)
        if self.real is None:
            return f"{'saturated' if saturated else 'always'} at {value * step:g}"
        real = self._channels(self.real)[channel]
        low, high = float(real.min()), float(real.max())
        if low == high:
            why = "a dead Relu" if low == 0 else "it does not depend on the stimulus"
            return f"always {low:g} in the float network too: {why}"
        if saturated:
            return (
                f"saturated at {value * step:g}, in float it goes from {low:.3g} to {high:.3g}: "
                "the calibrated range clips it"
            )
        if self.exponent is not None and high - low < step:
            return f"in float it moves by {high - low:.3g}, less than one step ({step:g})"
        return f"in float it goes from {low:.3g} to {high:.3g}: clipped or rounded away before"

    def _channels(self, array: Array) -> Array:
        """Channels first, their frames behind."""
        if self.frame_axis < 0:
            return array.reshape(1, -1)
        return np.moveaxis(array, self.frame_axis, -1).reshape(-1, array.shape[self.frame_axis])


def _limits(array: Array) -> tuple[int, int]:
    limits = np.iinfo(array.dtype)
    return int(limits.min), int(limits.max)


def check_alive(outputs: Mapping[str, Output]) -> list[Finding]:
    """Check every output, channel by channel along time.

    Args:
        outputs: By name, without recurrent state.

    Returns:
        A finding for each output with channels that never change.

    Raises:
        QuantizeError: stage ``check``; an output never changes: comparing it proves nothing.
    """
    findings = []
    for name, output in outputs.items():
        frames = output.values.shape[output.frame_axis] if output.frame_axis >= 0 else 2
        if frames == 1 or output.values.size == 1:
            continue  # nothing can change
        still = np.flatnonzero(output.still).tolist()
        if len(still) == output.still.size:
            raise QuantizeError(
                f"output {name!r} of the quantized network never changes ({output.cause(0)}): a "
                "comparison would prove nothing",
                stage="check",
                hint=_HINT,
            )
        if still:
            shown = "; ".join(f"channel {c} is {output.cause(c)}" for c in still[:_SHOWN])
            more = f"; and {len(still) - _SHOWN} more" if len(still) > _SHOWN else ""
            message = f"{len(still)} of {output.still.size} channels of {name}: {shown}{more}"
            findings.append(find(rules.STILL_CHANNEL, "", message))
    return findings


def check_depends(
    outputs: Mapping[str, Array],
    inputs: Mapping[str, Array],
    state: Mapping[str, str],
    run: Callable[[dict[str, Array]], Mapping[str, Array]],
) -> None:
    """Check that every output depends on an input, and on every input an output.

    An output may change along time by itself, and of one without frames there is only one value.

    Args:
        outputs: What the network gives for the stimulus.
        inputs: The stimulus.
        state: Input to output name of recurrent state, which is not judged.
        run: Gives the outputs for other inputs.

    Raises:
        QuantizeError: stage ``check``; an output is the same whichever input is negative or zero,
            or all are whether this input is: comparing it proves nothing.
    """
    waiting, idle = outputs.keys() - state.values(), ""
    for name in [name for name in inputs if name not in state]:
        changed: set[str] = set()
        for other in (_negative, np.zeros_like):
            if waiting or not changed:
                found = run({**inputs, name: other(inputs[name])})
                changed |= {n for n, a in outputs.items() if not np.array_equal(found[n], a)}
                waiting -= changed
        idle = idle if changed else name
    if waiting or idle:
        output = f"output {min(waiting)!r}" if waiting else "no output"
        what = "no input" if waiting else f"input {idle!r}"
        raise QuantizeError(
            f"{output} of the quantized network depends on {what}: the same comes of the "
            "stimulus, of its negative and of zeros; a comparison would prove nothing",
            stage="check",
            hint=_HINT,
        )


def _negative(array: Array) -> Array:
    if array.dtype.kind == "f":
        return -array
    return -array.clip(-_limits(array)[1])  # the lowest has none


def check_range(
    stimulus: Mapping[str, Array],
    batches: Sequence[Mapping[str, Array]],
    exponents: Mapping[str, int],
    bits: int,
) -> list[Finding]:
    """Find inputs whose stimulus leaves the range that the calibration found.

    Args:
        stimulus: float32 by input name.
        batches: Calibration inputs.
        exponents: Of the quantized inputs, by name.
        bits: Their width.
    """
    findings = []
    for name, exponent in exponents.items():
        largest = (2 ** (bits - 1) - 0.5) * 2.0**exponent
        clipped = float((np.abs(stimulus[name]) > largest).mean())
        usual = float(np.mean([(np.abs(batch[name]) > largest).mean() for batch in batches]))
        if clipped > usual + _MORE_CLIPPED:
            peak = np.abs(stimulus[name]).max()
            message = (
                f"{clipped:.1%} of input {name!r} are clipped (peak {peak:.3g}, range "
                f"{largest:.3g}); of the calibration {usual:.1%}"
            )
            findings.append(find(rules.OUT_OF_RANGE, "", message))
    return findings
