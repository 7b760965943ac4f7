"""Scales, rounding and saturation as ESP-DL computes them. Knows numbers, not operators.

ESP-DL converts float32 to integers in C; out of range that is undefined, and the chips saturate
(a NaN gives the largest value). So does this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.operators.problem import NodeProblem
from espdl_hil.targets import Rounding

if TYPE_CHECKING:
    from espdl_hil.espdl import Array

FLOAT_EXACT = 2**24  # every integer up to here is a float32
DOUBLE_EXACT = 2**53  # every integer up to here is a float64
MAX_SCALE_BITS = 6  # the int8 vector kernels multiply by 2**bits, as an int8
HALF = np.float32(0.5)
RoundInPlace = Callable[["Array"], None]


def scale_of(exponent: int) -> np.float32:
    """The value of one LSB; of the negated exponent, LSBs in one unit.

    Matches: ``DL_SCALE``, ``DL_RESCALE``.
    """
    return np.float32(2.0**exponent)


def limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Smallest and largest value of an integer type."""
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def rounder(rounding: Rounding) -> RoundInPlace:
    """Rounds a float array to integers in place, a half as the target does.

    Half up adds 0.5 in the array's own type first, as the C code does: the largest float32 below
    0.5 becomes 1.

    Matches: ``tool::round`` on float.
    """
    if rounding is Rounding.HALF_EVEN:

        def half_even(values: Array) -> None:
            np.rint(values, out=values)

        return half_even

    def half_up(values: Array) -> None:
        np.add(values, HALF, out=values)
        np.floor(values, out=values)

    return half_up


def finisher(values: Array, destination: Array, rounding: Rounding) -> Callable[[], None]:
    """A kernel that rounds float *values* (overwritten) and saturates them into *destination*."""
    settle = rounder(rounding)
    low, high = (values.dtype.type(limit) for limit in limits(destination.dtype))

    def finish() -> None:
        settle(values)
        values.clip(low, high, out=values)
        destination[...] = values

    return finish


def quantized(values: Array, rounding: Rounding, dtype: np.dtype[Any]) -> Array:
    """Float32 values as saturated integers; for work done once at load.

    Args:
        values: Multiples of the output's LSB, any shape; not changed.
        rounding: What an exact half becomes.
        dtype: int8 or int16.

    Returns:
        Integers of *dtype*, same shape.

    Matches: ``tool::truncate(out, tool::round(value))``.
    """
    rounded = np.array(values, np.float32)
    rounder(rounding)(rounded)
    return saturated(rounded, dtype)


def saturated(values: Array, dtype: np.dtype[Any]) -> Array:
    """Integral numbers clipped to *dtype*; a NaN becomes the largest."""
    low, high = limits(dtype)
    clipped: Array = np.maximum(np.fmin(values, values.dtype.type(high)), values.dtype.type(low))
    return clipped.astype(dtype)


def wrapped(values: Any, bits: Any) -> Any:
    """An integer, or an int64 array, in *bits* bits of two's complement, 63 at most."""
    half = 1 << (bits - 1)
    return ((values + half) & (2 * half - 1)) - half


def shift_right_round(value: Array, shift: Array | int, rounding: Rounding) -> Array:
    """Divide by ``2**shift``, rounding to the nearest integer.

    Args:
        value: int64 accumulators, any shape; with the rounding offset within int64.
        shift: int64 bits to discard, broadcast to *value*; negative multiplies.
        rounding: What an exact half becomes.

    Returns:
        int64, same shape as *value*.

    Matches: ``tool::shift_and_round`` without its saturation, which the caller's own implies.
    """
    shift = np.asarray(shift, np.int64)
    right = np.clip(shift, 0, 62)
    half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), 0)
    rounded = (value + half) >> right
    if rounding is Rounding.HALF_EVEN:
        tie = (right > 0) & ((value & ((np.int64(1) << right) - 1)) == half)
        rounded = rounded - (tie & ((rounded & 1) == 1))
    result: Array = rounded << np.clip(-shift, 0, 62)
    return result


def sequential_sum(values: Array) -> Array:
    """Sum over the last axis in float32, strictly in index order as a C loop adds.

    Args:
        values: float32, shape (..., n), n > 0.

    Returns:
        float32, shape (...).
    """
    return np.add.accumulate(values, axis=-1)[..., -1]


def sqrt_newton(values: Array) -> Array:
    """Newton's square root, stopped when a step changes less than 1e-5.

    Args:
        values: float32, any shape, not negative.

    Returns:
        float32, same shape.

    Raises:
        NodeProblem: A root still swings after 1000 steps; the chip would hang.

    Matches: ``math::sqrt_newton``.
    """
    result = np.array(values, np.float32)
    active = result != 0
    for _ in range(1000):
        if not active.any():
            return result
        last = result[active]
        result[active] = (last + values[active] / last) * HALF
        active[active] = np.abs(result[active] - last) > np.float32(0.00001)
    raise NodeProblem("the Newton square root swings between two values; the chip would hang")


def exp32(values: Array) -> Array:
    """``expf``: float32 in and out, correctly rounded, which numpy's own float32 exp is not."""
    return np.exp(values.astype(np.float64)).astype(np.float32)


def log32(values: Array) -> Array:
    """``logf``: float32 in and out, correctly rounded."""
    return np.log(values.astype(np.float64)).astype(np.float32)


def sigmoid32(values: Array) -> Array:
    """Float32 sigmoid; the division is in double as in C.

    Matches: ``math::sigmoid``.
    """
    return (1.0 / (1.0 + exp32(-values).astype(np.float64))).astype(np.float32)


def tanh32(values: Array) -> Array:
    """Float32 hyperbolic tangent.

    Matches: ``math::tanh``.
    """
    two = np.float32(2)
    return two * sigmoid32(two * values) - np.float32(1)
