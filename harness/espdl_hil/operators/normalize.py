"""LayerNormalization, RMSNormalization and LpNormalization."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.numeric import quantized, sequential_sum, sqrt_newton
from espdl_hil.operators.signature import C_FLOAT_S16, OPTIONAL, TENSOR, Operator, fixed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.espdl import Array, Shape
    from espdl_hil.operators.kernel import Kernel
    from espdl_hil.operators.node import BoundNode, NodeView, Operand, PlacedNode

ONE = np.float32(1)


def _slices(bound: BoundNode) -> tuple[int, int]:
    """Number and length of the slices from the node's axis on."""
    shape = bound.input().shape
    axis = bound.axis(bound.integer("axis", -1), len(shape))
    return int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))


def _real(operand: Operand) -> Array:
    """All elements as real values, flat."""
    return operand.array.reshape(-1).astype(np.float32) * operand.scale


def _layer_shapes(view: NodeView) -> list[Shape]:
    rank = len(view.shape)
    axis = view.axis(view.integer("axis", -1), rank)
    per_slice = view.shape[:axis] + (1,) * (rank - axis)
    return [view.shape, per_slice, per_slice]


def _layer_rules(placed: PlacedNode) -> Iterator[str]:
    axis = placed.axis(placed.integer("axis", -1), len(placed.shape))
    inner = math.prod(placed.shape[axis:])
    for i in range(1, len(placed.node.inputs)):
        if placed.has(i) and math.prod(placed.shape_of(i)) != inner:
            yield f"input {i} has shape {placed.shape_of(i)}, expected {inner} elements"
    epsilon = placed.number("epsilon", 1e-5)
    if not 0 < epsilon < math.inf:
        yield f"epsilon {epsilon} is not a positive number"


def build_layer_normalization(bound: BoundNode) -> Kernel:
    """LayerNormalization: exact integer sum, float32 mean and variance, Newton's square root.

    Optional outputs: mean and inverse standard deviation of each slice.

    Matches: ``LayerNormalization::forward_template``.
    """
    source = bound.input()
    x = source.array.reshape(_slices(bound))
    count = np.float32(x.shape[1])
    gain, bias = bound.optional(1), bound.optional(2)
    epsilon = np.float32(bound.number("epsilon", 1e-5))
    scale = source.scale

    def run() -> None:
        if source.is_float:
            mean = (sequential_sum(x) / count)[:, None]
        else:
            exact = x.sum(1, keepdims=True, dtype=np.int64)
            mean = (exact.astype(np.float64) / x.shape[1]).astype(np.float32)
        deviation = x - mean
        variance = sequential_sum(deviation * deviation)[:, None] * (scale * scale) / count
        inverse = ONE / sqrt_newton(variance + epsilon)
        result = (x * scale - mean * scale) * inverse
        result = result if gain is None else result * _real(gain)
        _store(bound, 0, result if bias is None else result + _real(bias))
        for index, values in enumerate((mean * scale, inverse), start=1):
            if index < len(bound.outputs):
                _store(bound, index, values)

    return run


def _store(bound: BoundNode, index: int, real: Array) -> None:
    """Write real values to an output, quantized if it is."""
    output: Operand = bound.outputs[index]
    values = real.reshape(output.shape)
    if output.is_float:
        output.array[...] = values
    else:
        output.array[...] = quantized(values * output.rescale, bound.rounding, output.dtype)


def build_rms_normalization(bound: BoundNode) -> Kernel:
    """RMSNormalization; the gain is float32 at every width.

    Matches: ``RMSNormalization::forward_int8`` and its kin, ``base::rms_norm``.
    """
    source, output = bound.input(), bound.out
    x = source.array.reshape(_slices(bound))
    y = output.array.reshape(x.shape)
    count = np.float32(x.shape[1])
    gain = bound.input(1).array.reshape(-1)
    epsilon = np.float32(bound.number("epsilon", 1e-5))

    def run_float() -> None:
        squares = sequential_sum(x * x)[:, None] / count
        y[...] = x * (ONE / np.sqrt(squares + epsilon)) * gain

    if source.is_float:
        return run_float
    square_scale, factor = source.scale * source.scale, source.scale * output.rescale

    def run() -> None:
        exact = (x.astype(np.int64) ** 2).sum(1, keepdims=True).astype(np.float32)
        inverse = ONE / np.sqrt(exact * square_scale / count + epsilon)
        values = x.astype(np.float32) * (inverse * factor) * gain
        y[...] = quantized(values, bound.rounding, y.dtype)

    return run


def _lp_rules(placed: PlacedNode) -> Iterator[str]:
    if len(placed.shape):
        placed.axis(placed.integer("axis", -1), len(placed.shape))
    if placed.integer("p", 2) not in (1, 2):
        yield f"p is {placed.integer('p')}, the chip computes 2 for all but 1"


def build_lp_normalization(bound: BoundNode) -> Kernel:
    """LpNormalization along one axis, p 1 or 2; a slice without a norm becomes 0.

    Matches: ``LpNormalization::forward_int8`` and its kin.
    """
    source, output = bound.input(), bound.out
    rank = len(source.shape)
    if rank == 0:
        return lambda: output.array.fill(0)
    axis = bound.axis(bound.integer("axis", -1), rank)
    x = np.moveaxis(source.array, axis, -1)
    first_power = bound.integer("p", 2) == 1

    def inverse_norm(values: Array) -> Array:
        if first_power:
            norm = sequential_sum(np.abs(values.astype(np.float32)))
        elif source.is_float:
            norm = np.sqrt(_unrolled_squares(values, contiguous=axis == rank - 1))
        else:
            norm = np.sqrt((values.astype(np.int64) ** 2).sum(-1).astype(np.float32))
        return ONE / norm

    def run() -> None:
        inverse = inverse_norm(x)[..., None]
        values = np.where(np.isfinite(inverse), x.astype(np.float32) * inverse, np.float32(0))
        _store(bound, 0, np.moveaxis(values, -1, axis))

    return run


def _unrolled_squares(values: Array, *, contiguous: bool) -> Array:
    """Float32 sum of squares, four at a time where the C loop is unrolled.

    Matches: ``base::reduce_l2(float *)``.
    """
    squares = values * values
    whole = squares.shape[-1] // 4 * 4 if contiguous else 0
    fours = squares[..., :whole].reshape(*squares.shape[:-1], -1, 4)
    sums = np.concatenate([sequential_sum(fours), squares[..., whole:]], -1)
    return sequential_sum(sums)


OPERATORS = {
    "LayerNormalization": Operator(
        build_layer_normalization,
        _layer_shapes,
        _layer_rules,
        inputs=(TENSOR, OPTIONAL, OPTIONAL),
        outputs=(TENSOR, TENSOR, TENSOR),
        limits="over the last axes",
        arithmetic=(C_FLOAT_S16,),
    ),
    "LpNormalization": Operator(
        build_lp_normalization, rules=_lp_rules, limits="p 1 or 2", arithmetic=(C_FLOAT_S16,)
    ),
    "RMSNormalization": Operator(
        build_rms_normalization,
        rules=_layer_rules,
        inputs=(TENSOR, fixed("float32", constant=True)),
        limits="over the last axes",
        arithmetic=(C_FLOAT_S16,),
    ),
}
