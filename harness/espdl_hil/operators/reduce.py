"""The ten reductions. Integer sums are exact; float sums are taken in the order of the C loops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.numeric import (
    exp32,
    limits,
    log32,
    quantized,
    scale_of,
    sequential_sum,
    shift_right_round,
    sqrt_newton,
)
from espdl_hil.operators.shapes import reduced_axes
from espdl_hil.targets import Rounding

if TYPE_CHECKING:
    from collections.abc import Callable

    from espdl_hil.espdl import Array
    from espdl_hil.operators.prepare import Kernel, Op

    Reduction = Callable[[Op, Array], Array]


def build_reduce(op: Op) -> Kernel:
    """ReduceL1, L2, LogSum, LogSumExp, Max, Mean, Min, Prod, Sum, SumSquare.

    Matches: ``ReduceBase::forward_template`` with each operator's ``reduce``.
    """
    axes = sorted(reduced_axes(op.view))
    source = op.input()
    kept = [axis for axis in range(len(source.shape)) if axis not in axes]
    moved = source.array.transpose(kept + axes)
    rows = (int(np.prod([source.shape[axis] for axis in kept])), -1)
    function = (FLOAT_REDUCTIONS if source.is_float else INTEGER_REDUCTIONS)[op.op_type]
    output = op.out.array.reshape(-1)

    def run() -> None:
        output[...] = function(op, moved.reshape(rows))

    return run


def _magnitudes(x: Array) -> Array:
    return np.abs(x.astype(np.int64))


def _squares(x: Array) -> Array:
    return x.astype(np.int64) ** 2


def _shifted(op: Op, sums: Array, powers: int = 1) -> Array:
    """``sat(shift_and_round(sum))``, int32 sums wrapping at int8."""
    if op.input().dtype.itemsize == 1:
        sums = sums.astype(np.int32).astype(np.int64)
    shift = np.array(op.out.exponent - powers * op.input().exponent)
    settled: Array = shift_right_round(sums, shift, op.rounding).clip(*limits(op.out.dtype))
    return settled


def _to_output(op: Op, real: Array) -> Array:
    return quantized(real * op.out.rescale, op.rounding, op.out.dtype)


def _real_sum(op: Op, x: Array) -> Array:
    """Exact integer sum, rounded to float32, as a real value."""
    real: Array = x.sum(-1, dtype=np.int64).astype(np.float32) * op.input().scale
    return real


def _mean(op: Op, x: Array) -> Array:
    return _to_output(op, _real_sum(op, x) / np.float32(x.shape[-1]))


def _l2(op: Op, x: Array) -> Array:
    scale = scale_of(2 * op.input().exponent)
    return _to_output(op, sqrt_newton(_squares(x).sum(-1).astype(np.float32) * scale))


def _log_sum(op: Op, x: Array) -> Array:
    return _to_output(op, log32(_real_sum(op, x)))


def _log_sum_exp(op: Op, x: Array) -> Array:
    exps = exp32(x.astype(np.float32) * op.input().scale)
    return _to_output(op, log32(sequential_sum(exps)))


def _prod(op: Op, x: Array) -> Array:
    """Products in float32 at int8, in double at int16 with double's own rounding."""
    real = x.astype(np.float32) * op.input().scale
    if x.dtype.itemsize == 1:
        return _to_output(op, np.multiply.accumulate(real, axis=-1)[..., -1])
    wide = np.multiply.accumulate(real.astype(np.float64), axis=-1)[..., -1]
    return _quantized_double(op, wide * np.float64(op.out.rescale))


def _quantized_double(op: Op, values: Array) -> Array:
    """``truncate(round(double))``; half even takes all within 1e-6 of a half for one.

    Matches: ``round_half_even(double)``, ``round_half_up(double)``.
    """
    low, high = limits(op.out.dtype)
    values = np.fmin(values, 2.0**30).clip(-(2.0**30))
    if op.rounding is Rounding.HALF_UP:
        rounded = np.floor(values + 0.5)
    else:
        moved = values + np.where(values < 0, -0.5, 0.5)
        rounded = np.trunc(moved)
        odd = (np.abs(moved - rounded) < 1e-6) & (rounded % 2 != 0)
        rounded = rounded - np.where(values < 0, -1.0, 1.0) * odd
    clipped: Array = rounded.clip(low, high).astype(op.out.dtype)
    return clipped


INTEGER_REDUCTIONS: dict[str, Reduction] = {
    "ReduceL1": lambda op, x: _shifted(op, _magnitudes(x).sum(-1)),
    "ReduceL2": _l2,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": lambda _, x: x.max(-1),
    "ReduceMean": _mean,
    "ReduceMin": lambda _, x: x.min(-1),
    "ReduceProd": _prod,
    "ReduceSum": lambda op, x: _shifted(op, x.sum(-1, dtype=np.int64)),
    "ReduceSumSquare": lambda op, x: _shifted(op, _squares(x).sum(-1), powers=2),
}
FLOAT_REDUCTIONS: dict[str, Reduction] = {
    "ReduceL1": lambda _, x: sequential_sum(np.abs(x)),
    "ReduceL2": lambda _, x: sqrt_newton(sequential_sum(x * x)),
    "ReduceLogSum": lambda _, x: log32(sequential_sum(x)),
    "ReduceLogSumExp": lambda _, x: log32(sequential_sum(exp32(x))),
    "ReduceMax": lambda _, x: x.max(-1),
    "ReduceMean": lambda _, x: sequential_sum(x) / np.float32(x.shape[-1]),
    "ReduceMin": lambda _, x: x.min(-1),
    "ReduceProd": lambda _, x: np.multiply.accumulate(x, axis=-1)[..., -1],
    "ReduceSum": lambda _, x: sequential_sum(x),
    "ReduceSumSquare": lambda _, x: sequential_sum(x * x),
}
