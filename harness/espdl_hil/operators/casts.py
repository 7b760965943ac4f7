"""QuantizeLinear, DequantizeLinear and RequantizeLinear: one tensor assigned to another."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.kernel import copier
from espdl_hil.operators.numeric import quantized, rounder, saturated
from espdl_hil.operators.signature import NUMBERS, Operator, fixed
from espdl_hil.operators.tables import lookup, tabulate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.operators.kernel import Kernel
    from espdl_hil.operators.node import BoundNode, PlacedNode


def build_requantize(bound: BoundNode) -> Kernel:
    """``sat(round(x * 2**ei * 2**-eo))``; from and to float as well.

    With equal exponents integers are copied, and clipped when they get narrower.

    Matches: ``TensorBase::assign``.
    """
    source, destination = bound.input(), bound.out
    x, y = source.array, destination.array
    if x.dtype == y.dtype and source.exponents == destination.exponents:
        return copier(x, y)
    if source.is_float:
        return _quantize(bound)
    if destination.is_float:
        scale = source.scale
        return partial(np.multiply, x, scale, out=y)
    if source.exponent == destination.exponent:
        return lookup(x, y, tabulate(lambda q: saturated(q.astype(np.int32), y.dtype), x.dtype))
    scale, inverse = source.scale, np.float32(1) / destination.scale
    return lookup(
        x,
        y,
        tabulate(
            lambda q: quantized(q.astype(np.float32) * scale * inverse, bound.rounding, y.dtype),
            x.dtype,
        ),
    )


def _quantize(bound: BoundNode) -> Kernel:
    x, y, rescale = bound.input().array, bound.out.array, bound.out.rescale
    scaled = np.empty(x.shape, np.float32)
    settle = rounder(bound.rounding)

    def quantize() -> None:
        np.multiply(x, rescale, out=scaled)
        settle(scaled)
        y[...] = saturated(scaled, y.dtype)

    return quantize


def _requantize_rules(placed: PlacedNode) -> Iterator[str]:
    """QuantizeLinear, DequantizeLinear and RequantizeLinear: the tensors' own exponents count."""
    taken, made = placed.info(0), placed.output()
    both_float = taken.dtype == made.dtype == "float32"
    if both_float and taken.exponents != made.exponents:
        yield "float to float with different exponents, the chip leaves the output as it was"


_UNREAD = fixed("int8", "int16", "float32", optional=True, weight=True)
_REQUANTIZE = Operator(
    build_requantize,
    rules=_requantize_rules,
    inputs=(NUMBERS, _UNREAD, _UNREAD),
    outputs=(NUMBERS,),
    by_tensor=True,
)
OPERATORS = dict.fromkeys(("DequantizeLinear", "QuantizeLinear", "RequantizeLinear"), _REQUANTIZE)
