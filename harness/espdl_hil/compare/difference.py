"""Element-by-element comparison of one tensor. Knows arrays, not streams."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from espdl_hil.compare.tolerance import EXACT, Tolerance
from espdl_hil.errors import HarnessError

Array: TypeAlias = NDArray[Any]
Tensors: TypeAlias = Mapping[str, Array]


class NotComparableError(HarnessError):
    """Two tensors differ in shape or type, so no element can be compared."""


@dataclass(frozen=True)
class FirstDifference:
    """The first element, in memory order, that is out of tolerance.

    Attributes:
        chunk: Number of the chunk, from 0.
        frame: Frame of the output stream, counted from the stream's start.
        channel: Index on the last axis that is not the frame axis.
        expected: The expected value, a quantization level or a float.
        observed: The observed value.
        output: Name of the tensor; empty when there is but one.
        index: Index of the element in its own tensor.
    """

    chunk: int
    frame: int
    channel: int
    expected: int | float
    observed: int | float
    output: str = ""
    index: tuple[int, ...] = ()

    def __str__(self) -> str:
        of = f" of {self.output}" if self.output else ""
        return (
            f"first at frame {self.frame}, channel {self.channel}{of}: "
            f"expected {self.expected:g}, observed {self.observed:g}"
        )


@dataclass(frozen=True)
class Fidelity:
    """How much of a reference survives in an approximation; sums, so that chunks add up.

    Attributes:
        signal: Energy of the reference.
        noise: Energy of the difference.
        cross: Inner product of both.
        energy: Energy of the approximation.
        changes: Energy of what changes in the reference along time: a constant says nothing, and
            beside a large one any small error looks good.
    """

    signal: float = 0.0
    noise: float = 0.0
    cross: float = 0.0
    energy: float = 0.0
    changes: float = 0.0

    @classmethod
    def of(cls, reference: Array, approximation: Array, frame_axis: int | None = None) -> Fidelity:
        """Measure two tensors of one shape, in any numeric type and the same unit.

        Args:
            reference: Any shape.
            approximation: Of the same shape.
            frame_axis: Where the mean is taken that is no change; None for that of all elements.
                Of a single frame, all is.

        >>> Fidelity.of(np.array([3.0, 4.0]), np.array([3.0, 4.5])).sqnr_db
        20.0
        >>> round(Fidelity.of(np.array([101.0, 99.0]), np.array([101.0, 99.2]), 0).changes_db)
        17
        """
        a = np.asarray(reference, dtype=np.float64).ravel()
        b = np.asarray(approximation, dtype=np.float64).ravel()
        with np.errstate(invalid="ignore", over="ignore"):  # a model may well say inf
            noise = b - a
            changes = a - _mean(np.asarray(reference, dtype=np.float64), frame_axis)
            return cls(
                float(a @ a),
                float(noise @ noise),
                float(a @ b),
                float(b @ b),
                float(changes @ changes),
            )

    def __add__(self, other: Fidelity) -> Fidelity:
        return Fidelity(
            self.signal + other.signal,
            self.noise + other.noise,
            self.cross + other.cross,
            self.energy + other.energy,
            self.changes + other.changes,
        )

    @property
    def finite(self) -> bool:
        """Whether both tensors are."""
        return math.isfinite(self.signal) and math.isfinite(self.noise)

    @property
    def sqnr_db(self) -> float | None:
        """Signal to quantization noise ratio; None without signal, or without any noise."""
        return _decibels(self.signal, self.noise)

    @property
    def changes_db(self) -> float | None:
        """As ``sqnr_db``, of the changes along time alone."""
        return _decibels(self.changes, self.noise)

    @property
    def cosine(self) -> float | None:
        """Cosine of the angle between both; None where one of them is all zero."""
        scale = math.sqrt(self.signal) * math.sqrt(self.energy)
        return min(1.0, max(-1.0, self.cross / scale)) if 0 < scale < math.inf else None


def _decibels(signal: float, noise: float) -> float | None:
    if not (0 < signal < math.inf and 0 < noise < math.inf):
        return None
    return 10 * math.log10(signal / noise)


def _mean(tensor: NDArray[np.float64], frame_axis: int | None) -> NDArray[np.float64]:
    """The mean along time for each element, flat; zeros where there is but one value."""
    if tensor.size < 2 or (frame_axis is not None and tensor.shape[frame_axis] < 2):
        return np.zeros(tensor.size)
    mean = tensor.mean(axis=frame_axis, keepdims=True)
    return np.broadcast_to(mean, tensor.shape).ravel()


@dataclass(frozen=True)
class Difference:
    """What a comparison of two tensors found.

    Attributes:
        elements: Elements compared; 0 means *not compared*, which is never equal.
        differing: Elements that are not the same; a float counts once it is out of tolerance.
        beyond: Elements out of tolerance.
        max_lsb: Largest difference of an integer tensor, in steps; None for a float tensor.
        max_relative: Largest relative difference of a float tensor; None for integers.
        first: The first element out of tolerance, else the first that differs, else None.
    """

    elements: int
    differing: int
    beyond: int
    max_lsb: int | None
    max_relative: float | None
    first: FirstDifference | None

    @property
    def compared(self) -> bool:
        """Whether there was anything to compare."""
        return self.elements > 0

    @property
    def equal(self) -> bool:
        """Whether there was something to compare and all of it is within tolerance."""
        return self.compared and self.beyond == 0

    def __str__(self) -> str:
        return summarize(self.elements, self.differing, self.max_lsb, self.max_relative, self.first)


def summarize(
    elements: int,
    differing: int,
    max_lsb: int | None,
    max_relative: float | None,
    first: FirstDifference | None,
) -> str:
    """Say in one line what a comparison found.

    >>> summarize(4096, 3, 2, None, FirstDifference(5, 17, 5, 12, 14))
    '3 of 4096 differ, max 2 LSB; first at frame 17, channel 5: expected 12, observed 14'
    >>> summarize(0, 0, 0, None, None)
    'not compared: no elements'
    """
    if not elements:
        return "not compared: no elements"
    if not differing:
        return f"all {elements} equal"
    sizes = [] if not max_lsb else [f"max {max_lsb} LSB"]
    sizes += [] if not max_relative else [f"max {max_relative:.2g} relative"]
    where = "" if first is None else f"; {first}"
    return ", ".join([f"{differing} of {elements} differ", *sizes]) + where


def compare(
    expected: Array,
    observed: Array,
    tolerance: Tolerance = EXACT,
    *,
    frame_axis: int | None = 1,
    chunk: int = 0,
    first_frame: int = 0,
    output: str = "",
    room: Array | None = None,
) -> Difference:
    """Compare every element of two tensors.

    Args:
        expected: What should be there: int8, int16, int32 or float32, any shape.
        observed: What is there, of the same shape and type.
        tolerance: Integers are compared in steps, floats relative to the expected value.
        frame_axis: The time axis of both, for naming a frame; None if they have none.
        chunk: Number of the chunk, for naming it.
        first_frame: Frame of the output stream at which both tensors begin.
        output: Name of the tensor, for naming it.
        room: How far each single element may be off, if that is more than *tolerance*: of the same
            shape, in steps, or relative to the expected float.

    Returns:
        Counts, the largest difference and the first element out of tolerance.

    Raises:
        NotComparableError: shapes or types differ.
    """
    require_alike(expected, observed, f"chunk {chunk}{' of ' + output if output else ''}")
    if not expected.size:
        return Difference(0, 0, 0, 0, None, None)
    if expected.dtype.kind == "f":
        size = relative_difference(expected, observed)
        unequal = ~(size <= tolerance.relative)  # also true of NaN
        beyond = unequal if room is None else unequal & ~(size <= room)
        max_lsb, max_relative = None, float(size.max())
    else:
        size = np.abs(np.subtract(observed, expected, dtype=np.int64))
        unequal, beyond = size > 0, size > tolerance.max_lsb
        beyond = beyond if room is None else beyond & (size > room)
        max_lsb, max_relative = int(size.max()), None
    differing, out_of_tolerance = int(unequal.sum()), int(beyond.sum())
    first = None
    if differing:
        flat = int(np.argmax(beyond if out_of_tolerance else unequal))
        first = _locate(expected, observed, flat, frame_axis, chunk, first_frame, output)
    return Difference(expected.size, differing, out_of_tolerance, max_lsb, max_relative, first)


def require_alike(expected: Array, observed: Array, where: str) -> None:
    """Refuse two tensors of different shape or type.

    Raises:
        NotComparableError: they differ; the message begins with *where*.
    """
    if expected.shape != observed.shape or expected.dtype != observed.dtype:
        wanted, seen = (f"{tensor.dtype}{list(tensor.shape)}" for tensor in (expected, observed))
        raise NotComparableError(f"{where}: expected {wanted}, observed {seen}")


def relative_difference(expected: Array, observed: Array) -> NDArray[np.float64]:
    """Relative differences; equal infinities and NaN in both places count as equal."""
    a, b = np.asarray(expected, np.float64), np.asarray(observed, np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(all="ignore"):
        size = np.abs(b - a) / np.maximum(np.abs(a), np.finfo(np.float32).tiny)
    return np.where(same, 0.0, np.where(np.isnan(size), np.inf, size))


def _locate(
    expected: Array,
    observed: Array,
    flat: int,
    frame_axis: int | None,
    chunk: int,
    first_frame: int,
    output: str,
) -> FirstDifference:
    index = tuple(int(i) for i in np.unravel_index(flat, expected.shape))
    axis = None if frame_axis is None or not index else frame_axis % len(index)
    others = [position for number, position in enumerate(index) if number != axis]
    return FirstDifference(
        chunk=chunk,
        frame=first_frame + (0 if axis is None else index[axis]),
        channel=others[-1] if others else 0,
        expected=expected.flat[flat].item(),
        observed=observed.flat[flat].item(),
        output=output,
        index=index,
    )
