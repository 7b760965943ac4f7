"""QuantizeLinear, DequantizeLinear and RequantizeLinear: one tensor assigned to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.numeric import quantized, rounder, saturated
from espdl_hil.operators.tables import lookup, tabulate

if TYPE_CHECKING:
    from espdl_hil.operators.prepare import Kernel, Op


def build_requantize(op: Op) -> Kernel:
    """``sat(round(x * 2**ei * 2**-eo))``; from and to float as well.

    With equal exponents integers are copied, and clipped when they get narrower.

    Matches: ``TensorBase::assign``.
    """
    source, destination = op.input(), op.out
    x, y = source.array, destination.array
    if x.dtype == y.dtype and source.exponents == destination.exponents:

        def copy() -> None:
            y[...] = x

        return copy
    if source.is_float:
        return _quantize(op)
    if destination.is_float:
        scale = source.scale

        def dequantize() -> None:
            np.multiply(x, scale, out=y)

        return dequantize
    if source.exponent == destination.exponent:
        return lookup(x, y, tabulate(lambda q: saturated(q.astype(np.int32), y.dtype), x.dtype))
    scale, inverse = source.scale, np.float32(1) / destination.scale
    return lookup(
        x,
        y,
        tabulate(
            lambda q: quantized(q.astype(np.float32) * scale * inverse, op.rounding, y.dtype),
            x.dtype,
        ),
    )


def _quantize(op: Op) -> Kernel:
    x, y, rescale = op.input().array, op.out.array, op.out.rescale
    scaled = np.empty(x.shape, np.float32)
    settle = rounder(op.rounding)

    def quantize() -> None:
        np.multiply(x, rescale, out=scaled)
        settle(scaled)
        y[...] = saturated(scaled, y.dtype)

    return quantize
