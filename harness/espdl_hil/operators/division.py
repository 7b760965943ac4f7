"""Div, Pow and Mod: float32 arithmetic on two quantized operands."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.broadcast import LIMITS, broadcast_rules, broadcast_shapes, merged_loops
from espdl_hil.operators.detour import Repeated
from espdl_hil.operators.kernel import Kernel, storer
from espdl_hil.operators.numeric import limits, quantized
from espdl_hil.operators.signature import TENSOR, Operator
from espdl_hil.operators.tables import lookup, tabulate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from espdl_hil.espdl import Array, Shape
    from espdl_hil.operators.node import BoundNode, PlacedNode


def build_div(bound: BoundNode) -> Kernel:
    """Div in float32; ``0 / x`` is 0 and ``x / 0`` saturates by the sign of x.

    With one divisor for a whole row its reciprocal multiplies, which rounds differently.

    Matches: ``base::elemwise_div``; ``c_impl_div_n_1`` where the innermost merged dimension has one
    divisor, else ``c_impl_div_n_n`` and ``c_impl_div_1_n``, which give the same.
    """
    a, b = bound.input(), bound.input(1)
    narrow = bound.out.dtype.itemsize == 1
    reciprocal = _one_divisor(a.shape, b.shape) and not bound.uniform
    if bound.out.is_float:
        if reciprocal:
            return storer(bound.out.array, lambda x, d: x * (np.float32(1) / d), a.array, b.array)
        return partial(np.divide, a.array, b.array, out=bound.out.array)
    rescale = bound.out.rescale * a.scale / b.scale
    if narrow and 1 in (a.array.size, b.array.size):
        return _table_div(bound, rescale, one_dividend=a.array.size == 1)
    x, d, y = a.array, b.array, bound.out.array
    low, high = limits(y.dtype)

    def run() -> None:
        dividend, divisor = x.astype(np.float32), d.astype(np.float32)
        quotient = dividend * (rescale / divisor) if reciprocal else dividend * rescale / divisor
        result = quantized(quotient, bound.rounding, y.dtype)
        result = np.where(d == 0, np.where(x > 0, high, low), result)
        y[...] = np.where(x == 0, 0, result)

    return run


def _one_divisor(first: Shape, second: Shape) -> bool:
    """Whether a whole row of the innermost merged dimension has one divisor."""
    loops = merged_loops(first, second)
    return not loops or loops[-1][1] == 1


def _div_code(placed: PlacedNode) -> str:
    """By the reciprocal, or each quotient; a single operand of int8 has a table at every size."""
    if placed.width == "S8" and _single(placed) is not None:
        return ""
    return "reciprocal" if _one_divisor(placed.shape_of(0), placed.shape_of(1)) else "quotient"


def _table_div(bound: BoundNode, rescale: np.float32, *, one_dividend: bool) -> Kernel:
    """int8 with a single constant dividend or divisor: a table.

    Its zeros are its own: over 0, a dividend that is not positive gives the minimum.

    Matches: ``base::create_div_lut``.
    """
    x, d, y = bound.input().array, bound.input(1).array, bound.out.array

    def table_of(q: Array) -> Array:
        value = q.astype(np.float32)
        if one_dividend:
            dividend = np.float32(x.reshape(-1)[0]) * rescale
            table = quantized(dividend / value, bound.rounding, y.dtype)
            return np.where(q == 0, np.int8(127 if dividend > 0 else -128), table)
        scale = rescale / np.float32(d.reshape(-1)[0])
        return np.where(q == 0, np.int8(0), quantized(value * scale, bound.rounding, y.dtype))

    source = d if one_dividend else x
    return lookup(source, y.reshape(source.shape), tabulate(table_of, y.dtype))


def _div_rules(placed: PlacedNode) -> Iterator[str]:
    """An int8 quotient with a single operand becomes a table at the first run."""
    yield from broadcast_rules(placed)
    if placed.width != "S8":
        return
    index = _single(placed)
    if index is None:
        return
    operand = placed.stored(index)
    if operand is None:
        yield (
            f"input {index} is a single computed element; the chip makes a table of the first "
            "run's value and uses it ever after"
        )
    elif operand.raw[0] == 0:
        yield f"input {index} is the constant 0"


def _single(placed: PlacedNode) -> int | None:
    # Matches: create_div_lut, which looks for a dividend first
    return next((i for i in (0, 1) if math.prod(placed.shape_of(i)) == 1), None)


def _div_detour(placed: PlacedNode) -> Repeated | None:
    """A single computed operand as long as the other one, which no table is made of."""
    index = _single(placed) if placed.width == "S8" else None
    if index is None or placed.stored(index) is not None:
        return None
    shape, whole = placed.shape_of(index), placed.results[0]
    longer = [axis for axis, n in enumerate(whole) if n > 1]
    if len(shape) != len(whole) or not longer:
        return None
    return Repeated(index, longer[-1], whole[longer[-1]])


def build_pow(bound: BoundNode) -> Kernel:
    """Pow: ``powf`` of the real values.

    Matches: ``base::elemwise_pow``.
    """
    return _float_binary(bound, power)


def power(base: Array, exponent: Array) -> Array:
    """``powf``: float32 in and out, correctly rounded."""
    return np.power(base.astype(np.float64), exponent).astype(np.float32)


def build_mod(bound: BoundNode) -> Kernel:
    """Mod as C's ``fmodf``, sign of the dividend, whatever the ``fmod`` attribute; ``x % 0`` is 0.

    Matches: ``base::elemwise_mod``.
    """
    return _float_binary(bound, remainder)


def remainder(dividend: Array, divisor: Array) -> Array:
    """``fmodf`` with 0 for a divisor of 0."""
    return np.where(divisor == 0, np.float32(0), np.fmod(dividend, divisor))


def _mod_rules(placed: PlacedNode) -> Iterator[str]:
    yield from broadcast_rules(placed)
    if placed.integer("fmod", 1) != 1:
        yield "fmod is 0, the chip takes the sign of the dividend as fmod 1 does"


def _float_binary(bound: BoundNode, function: Callable[[Array, Array], Array]) -> Kernel:
    """``sat(round(f(a * 2**ea, b * 2**eb) * 2**-eo))``; the plain function for float tensors."""
    a, b, y = bound.input(), bound.input(1), bound.out.array
    if bound.out.is_float:
        return storer(y, function, a.array, b.array)
    rescale = bound.out.rescale
    if b.constant is not None and b.array.size == 1 and a.array.size == y.size:
        second = b.array.reshape(-1)[:1].astype(np.float32) * b.scale
        table = tabulate(
            lambda q: quantized(
                function(q.astype(np.float32) * a.scale, second) * rescale, bound.rounding, y.dtype
            ),
            a.dtype,
        )
        return lookup(a.array, y.reshape(a.shape), table)

    def run() -> None:
        first = a.array.astype(np.float32) * a.scale
        result = function(first, b.array.astype(np.float32) * b.scale)
        y[...] = quantized(result * rescale, bound.rounding, y.dtype)

    return run


_POW = Operator(
    build_pow, broadcast_shapes, broadcast_rules, inputs=(TENSOR, TENSOR), limits=LIMITS
)
OPERATORS = {
    "Div": replace(_POW, build=build_div, rules=_div_rules, detour=_div_detour, by_size=_div_code),
    "Mod": replace(_POW, build=build_mod, rules=_mod_rules),
    "Pow": _POW,
}
