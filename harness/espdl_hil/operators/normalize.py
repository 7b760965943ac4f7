"""LayerNormalization, RMSNormalization and LpNormalization."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.numeric import quantized, sequential_sum, sqrt_newton

if TYPE_CHECKING:
    from espdl_hil.espdl import Array
    from espdl_hil.operators.prepare import Kernel, Op, Operand

ONE = np.float32(1)


def _slices(op: Op) -> tuple[int, int]:
    """Number and length of the slices from the node's axis on."""
    shape = op.input().shape
    axis = op.view.axis(op.view.integer("axis", -1), len(shape))
    return int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))


def _real(operand: Operand) -> Array:
    """All elements as real values, flat."""
    flat = operand.array.reshape(-1)
    return flat if operand.is_float else flat.astype(np.float32) * operand.scale


def build_layer_normalization(op: Op) -> Kernel:
    """LayerNormalization: exact integer sum, float32 mean and variance, Newton's square root.

    Optional outputs: mean and inverse standard deviation of each slice.

    Matches: ``LayerNormalization::forward_template``.
    """
    source = op.input()
    x = source.array.reshape(_slices(op))
    count = np.float32(x.shape[1])
    gain, bias = op.optional(1), op.optional(2)
    epsilon = np.float32(op.view.number("epsilon", 1e-5))
    scale = np.float32(1) if source.is_float else source.scale

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
        _store(op, 0, result if bias is None else result + _real(bias))
        for index, values in enumerate((mean * scale, inverse), start=1):
            if index < len(op.outputs):
                _store(op, index, values)

    return run


def _store(op: Op, index: int, real: Array) -> None:
    """Write real values to an output, quantized if it is."""
    output: Operand = op.outputs[index]
    values = real.reshape(output.shape)
    if output.is_float:
        output.array[...] = values
    else:
        output.array[...] = quantized(values * output.rescale, op.rounding, output.dtype)


def build_rms_normalization(op: Op) -> Kernel:
    """RMSNormalization; the gain is float32 at every width.

    Matches: ``RMSNormalization::forward_int8`` and its kin, ``base::rms_norm``.
    """
    source, output = op.input(), op.out
    x = source.array.reshape(_slices(op))
    y = output.array.reshape(x.shape)
    count = np.float32(x.shape[1])
    gain = op.input(1).array.reshape(-1)
    epsilon = np.float32(op.view.number("epsilon", 1e-5))

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
        y[...] = quantized(values, op.rounding, y.dtype)

    return run


def build_lp_normalization(op: Op) -> Kernel:
    """LpNormalization along one axis, p 1 or 2; a slice without a norm becomes 0.

    Matches: ``LpNormalization::forward_int8`` and its kin.
    """
    source, output = op.input(), op.out
    rank = len(source.shape)
    if rank == 0:
        return lambda: output.array.fill(0)
    axis = op.view.axis(op.view.integer("axis", -1), rank)
    x, y = np.moveaxis(source.array, axis, -1), np.moveaxis(output.array, axis, -1)
    first_power = op.view.integer("p", 2) == 1

    def inverse_norm(values: Array) -> Array:
        if first_power:
            norm = sequential_sum(np.abs(values.astype(np.float32)))
        elif source.is_float:
            norm = np.sqrt(_unrolled_squares(values, contiguous=axis == rank - 1))
        else:
            norm = np.sqrt((values.astype(np.int64) ** 2).sum(-1).astype(np.float32))
        inverse: Array = ONE / norm
        return inverse

    def run() -> None:
        inverse = inverse_norm(x)[..., None]
        values = np.where(np.isfinite(inverse), x.astype(np.float32) * inverse, np.float32(0))
        if source.is_float:
            y[...] = values
        else:
            y[...] = quantized(values * output.rescale, op.rounding, y.dtype)

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
