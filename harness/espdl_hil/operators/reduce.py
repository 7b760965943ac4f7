"""The ten reductions. Integer sums are exact; float sums are taken in the order of the C loops."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.broadcast import MAX_LOOPS
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
from espdl_hil.operators.signature import LENGTHS_OPTIONAL, TENSOR, Operator
from espdl_hil.targets import Rounding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from espdl_hil.espdl import Array, Shape
    from espdl_hil.operators.kernel import Kernel
    from espdl_hil.operators.node import BoundNode, NodeView, PlacedNode

    Reduction = Callable[[BoundNode, Array], Array]


def reduced_axes(view: NodeView) -> frozenset[int]:
    """The axes that a Reduce operator removes."""
    rank, axes = len(view.shape), view.constant_integers(1)
    if axes:
        return frozenset(view.axis(axis, rank) for axis in axes)
    return frozenset() if view.integer("noop_with_empty_axes", 0) else frozenset(range(rank))


def _reduce_shapes(view: NodeView) -> list[Shape]:
    axes, shape = reduced_axes(view), view.shape
    if view.integer("keepdims", 1):
        return [tuple(1 if i in axes else dim for i, dim in enumerate(shape))]
    kept = tuple(dim for i, dim in enumerate(shape) if i not in axes)
    return [kept or (1,)]


def _reduce_rules(placed: PlacedNode) -> Iterator[str]:
    axes = reduced_axes(placed)
    if not axes:
        yield "no axis is reduced (noop_with_empty_axes); the chip reduces all of them"
        return
    flags = [i in axes for i in range(len(placed.shape))]
    loops = sum(1 for i, flag in enumerate(flags) if i == 0 or flag != flags[i - 1])
    if loops > MAX_LOOPS:
        yield f"{loops} alternations of reduced and kept axes, the chip computes up to {MAX_LOOPS}"


def build_reduce(bound: BoundNode) -> Kernel:
    """ReduceL1, L2, LogSum, LogSumExp, Max, Mean, Min, Prod, Sum, SumSquare.

    Matches: ``ReduceBase::forward_template`` with each operator's ``reduce``.
    """
    axes = sorted(reduced_axes(bound))
    source = bound.input()
    kept = [axis for axis in range(len(source.shape)) if axis not in axes]
    moved = source.array.transpose(kept + axes)
    rows = (int(np.prod([source.shape[axis] for axis in kept])), -1)
    function = (FLOAT_REDUCTIONS if source.is_float else INTEGER_REDUCTIONS)[bound.op_type]
    output = bound.out.array.reshape(-1)

    def run() -> None:
        output[...] = function(bound, moved.reshape(rows))

    return run


def _magnitudes(x: Array) -> Array:
    return np.abs(x.astype(np.int64))


def _squares(x: Array) -> Array:
    return x.astype(np.int64) ** 2


def _shifted(bound: BoundNode, sums: Array, powers: int = 1) -> Array:
    """``sat(shift_and_round(sum))``, int32 sums wrapping at int8."""
    if bound.input().dtype.itemsize == 1:
        sums = sums.astype(np.int32).astype(np.int64)
    shift = np.array(bound.out.exponent - powers * bound.input().exponent)
    return shift_right_round(sums, shift, bound.rounding).clip(*limits(bound.out.dtype))


def _to_output(bound: BoundNode, real: Array) -> Array:
    return quantized(real * bound.out.rescale, bound.rounding, bound.out.dtype)


def _real_sum(bound: BoundNode, x: Array) -> Array:
    """Exact integer sum, rounded to float32, as a real value."""
    real: Array = x.sum(-1, dtype=np.int64).astype(np.float32) * bound.input().scale
    return real


def _mean(bound: BoundNode, x: Array) -> Array:
    return _to_output(bound, _real_sum(bound, x) / np.float32(x.shape[-1]))


def _l2(bound: BoundNode, x: Array) -> Array:
    scale = scale_of(2 * bound.input().exponent)
    return _to_output(bound, sqrt_newton(_squares(x).sum(-1).astype(np.float32) * scale))


def _log_sum(bound: BoundNode, x: Array) -> Array:
    return _to_output(bound, log32(_real_sum(bound, x)))


def _log_sum_exp(bound: BoundNode, x: Array) -> Array:
    exps = exp32(x.astype(np.float32) * bound.input().scale)
    return _to_output(bound, log32(sequential_sum(exps)))


def _prod(bound: BoundNode, x: Array) -> Array:
    """Products in float32 at int8, in double at int16 with double's own rounding."""
    real = x.astype(np.float32) * bound.input().scale
    if x.dtype.itemsize == 1:
        return _to_output(bound, np.multiply.accumulate(real, axis=-1)[..., -1])
    wide = np.multiply.accumulate(real.astype(np.float64), axis=-1)[..., -1]
    return _quantized_double(bound, wide * np.float64(bound.out.rescale))


def _quantized_double(bound: BoundNode, values: Array) -> Array:
    """``truncate(round(double))``; half even takes all within 1e-6 of a half for one.

    Matches: ``round_half_even(double)``, ``round_half_up(double)``.
    """
    low, high = limits(bound.out.dtype)
    values = np.fmin(values, 2.0**30).clip(-(2.0**30))
    if bound.rounding is Rounding.HALF_UP:
        rounded = np.floor(values + 0.5)
    else:
        moved = values + np.where(values < 0, -0.5, 0.5)
        rounded = np.trunc(moved)
        odd = (np.abs(moved - rounded) < 1e-6) & (rounded % 2 != 0)
        rounded = rounded - np.where(values < 0, -1.0, 1.0) * odd
    return rounded.clip(low, high).astype(bound.out.dtype)


INTEGER_REDUCTIONS: dict[str, Reduction] = {
    "ReduceL1": lambda bound, x: _shifted(bound, _magnitudes(x).sum(-1)),
    "ReduceL2": _l2,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": lambda _, x: x.max(-1),
    "ReduceMean": _mean,
    "ReduceMin": lambda _, x: x.min(-1),
    "ReduceProd": _prod,
    "ReduceSum": lambda bound, x: _shifted(bound, x.sum(-1, dtype=np.int64)),
    "ReduceSumSquare": lambda bound, x: _shifted(bound, _squares(x).sum(-1), powers=2),
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


_REDUCE = Operator(
    build_reduce,
    _reduce_shapes,
    _reduce_rules,
    inputs=(TENSOR, LENGTHS_OPTIONAL),
    limits="up to 4 merged dimensions",
)
OPERATORS = dict.fromkeys(INTEGER_REDUCTIONS, _REDUCE) | dict.fromkeys(
    ("ReduceMax", "ReduceMin"), replace(_REDUCE, copies=True)
)
