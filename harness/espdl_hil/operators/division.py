"""Div, Pow and Mod: float32 arithmetic on two quantized operands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.numeric import limits, quantized
from espdl_hil.operators.tables import lookup, tabulate

if TYPE_CHECKING:
    from collections.abc import Callable

    from espdl_hil.espdl import Array, Shape
    from espdl_hil.operators.prepare import Kernel, Op


def merged_inner(first: Shape, second: Shape) -> tuple[int, int]:
    """Innermost lengths of both operands after ESP-DL has merged equal axes.

    They decide which of its three loops runs: n with n, n with 1, or 1 with n.

    Matches: ``base::get_elemwise_operation_args``.
    """
    rank = max(len(first), len(second))
    a = [1] * (rank - len(first)) + list(first)
    b = [1] * (rank - len(second)) + list(second)
    for i in range(rank):
        j = i + 1
        while j < rank:
            same = a[i] == b[i] and a[j] == b[j]
            if not same and a[i] * a[j] != 1 and b[i] * b[j] != 1:
                break
            a[i], b[i] = a[i] * a[j], b[i] * b[j]
            a[j] = b[j] = 1
            j += 1
        if j >= rank:
            return a[i], b[i]
    return 1, 1


def build_div(op: Op) -> Kernel:
    """Div in float32; ``0 / x`` is 0 and ``x / 0`` saturates by the sign of x.

    With one divisor for a whole row its reciprocal multiplies, which rounds differently.

    Matches: ``base::elemwise_div``.
    """
    a, b = op.input(), op.input(1)
    inner_a, inner_b = merged_inner(a.shape, b.shape)
    narrow = op.out.dtype.itemsize == 1
    if op.out.is_float:
        return _float_div(op, reciprocal=inner_b == 1)
    rescale = op.out.rescale * a.scale / b.scale
    if narrow and 1 in (a.array.size, b.array.size):
        return _table_div(op, rescale, one_dividend=inner_a == 1)
    reciprocal = inner_b == 1 and not (narrow and inner_a == 1)
    x, d, y = a.array, b.array, op.out.array
    low, high = limits(y.dtype)

    def run() -> None:
        dividend, divisor = x.astype(np.float32), d.astype(np.float32)
        quotient = dividend * (rescale / divisor) if reciprocal else dividend * rescale / divisor
        result = quantized(quotient, op.rounding, y.dtype)
        result = np.where(d == 0, np.where(x > 0, high, low), result)
        y[...] = np.where(x == 0, 0, result)

    return run


def _float_div(op: Op, *, reciprocal: bool) -> Kernel:
    x, d, y = op.input().array, op.input(1).array, op.out.array

    def run() -> None:
        if reciprocal:
            np.multiply(x, np.float32(1) / d, out=y)
        else:
            np.divide(x, d, out=y)

    return run


def _table_div(op: Op, rescale: np.float32, *, one_dividend: bool) -> Kernel:
    """int8 with a single constant dividend or divisor: a table.

    Its zeros are its own: over 0, a dividend that is not positive gives the minimum.

    Matches: ``base::create_div_lut``.
    """
    x, d, y = op.input().array, op.input(1).array, op.out.array

    def table_of(q: Array) -> Array:
        value = q.astype(np.float32)
        if one_dividend:
            dividend = np.float32(x.reshape(-1)[0]) * rescale
            table = quantized(dividend / value, op.rounding, y.dtype)
            return np.where(q == 0, np.int8(127 if dividend > 0 else -128), table)
        scale = rescale / np.float32(d.reshape(-1)[0])
        return np.where(q == 0, np.int8(0), quantized(value * scale, op.rounding, y.dtype))

    source = d if one_dividend else x
    return lookup(source, y.reshape(source.shape), tabulate(table_of, y.dtype))


def build_pow(op: Op) -> Kernel:
    """Pow: ``powf`` of the real values.

    Matches: ``base::elemwise_pow``.
    """
    return _float_binary(op, power)


def power(base: Array, exponent: Array) -> Array:
    """``powf``: float32 in and out, correctly rounded."""
    result: Array = np.power(base.astype(np.float64), exponent).astype(np.float32)
    return result


def build_mod(op: Op) -> Kernel:
    """Mod as C's ``fmodf``, sign of the dividend, whatever the ``fmod`` attribute; ``x % 0`` is 0.

    Matches: ``base::elemwise_mod``.
    """
    return _float_binary(op, remainder)


def remainder(dividend: Array, divisor: Array) -> Array:
    """``fmodf`` with 0 for a divisor of 0."""
    result: Array = np.where(divisor == 0, np.float32(0), np.fmod(dividend, divisor))
    return result


def _float_binary(op: Op, function: Callable[[Array, Array], Array]) -> Kernel:
    """``sat(round(f(a * 2**ea, b * 2**eb) * 2**-eo))``; the plain function for float tensors."""
    a, b, y = op.input(), op.input(1), op.out.array
    if op.out.is_float:

        def run_float() -> None:
            y[...] = function(a.array, b.array)

        return run_float
    rescale = op.out.rescale
    if b.constant is not None and b.array.size == 1 and a.array.size == y.size:
        second = b.array.reshape(-1)[:1].astype(np.float32) * b.scale
        table = tabulate(
            lambda q: quantized(
                function(q.astype(np.float32) * a.scale, second) * rescale, op.rounding, y.dtype
            ),
            a.dtype,
        )
        return lookup(a.array, y.reshape(a.shape), table)

    def run() -> None:
        first = a.array.astype(np.float32) * a.scale
        result = function(first, b.array.astype(np.float32) * b.scale)
        y[...] = quantized(result * rescale, op.rounding, y.dtype)

    return run
