"""Activations, Exp, Log, Sqrt and look-up tables: any function of one element.

Quantized, each is evaluated once for every input value at load; a step is a look-up.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.kernel import Kernel, storer
from espdl_hil.operators.numeric import exp32, log32, quantized, sigmoid32, tanh32
from espdl_hil.operators.signature import C_FLOAT_S16, INTEGER_WIDTHS, SIMD, Arithmetic, Operator
from espdl_hil.operators.tables import (
    int8_table,
    lookup,
    stored_table,
    table_entries,
    table_rules,
    tabulate,
)
from espdl_hil.targets import Rounding

if TYPE_CHECKING:
    from collections.abc import Callable

    from espdl_hil.espdl import Array
    from espdl_hil.operators.node import BoundNode

    Function = Callable[[Array], Array]  # float32 to float32, element by element


def build_activation(bound: BoundNode) -> Kernel:
    """Sigmoid, Tanh, Swish, HardSigmoid, HardSwish, Elu, Exp, Log, Sqrt.

    ``out = sat(round(f(x * 2**ei) * 2**-eo))`` in float32, or the stored table at int8.

    Matches: ``Sigmoid::forward`` and its kin.
    """
    function = _function(bound)
    return _unary(bound, lambda real: function(real) * bound.out.rescale, function)


def build_leaky_relu(bound: BoundNode) -> Kernel:
    """LeakyRelu; below zero the slope multiplies last.

    Matches: ``LeakyRelu::forward_template``.
    """
    alpha = np.float32(bound.number("alpha", 0.01))

    def to_output(real: Array) -> Array:
        scaled = real * bound.out.rescale
        return np.where(real >= 0, scaled, scaled * alpha)

    return _unary(bound, to_output, lambda real: np.where(real >= 0, real, real * alpha))


def build_relu(bound: BoundNode) -> Kernel:
    """Relu; requantizes when the exponents differ.

    Matches: ``Relu::forward_template``.
    """
    return _unary(
        bound,
        lambda real: np.where(real >= 0, real * bound.out.rescale, np.float32(0)),
        lambda real: np.where(real >= 0, real, np.float32(0)),
    )


def _function(bound: BoundNode) -> Function:
    kind = bound.op_type
    if kind == "HardSigmoid":
        alpha = np.float32(bound.number("alpha", 0.2))
        beta = np.float32(bound.number("beta", 0.5))
        return lambda x: np.clip(alpha * x + beta, np.float32(0), np.float32(1))
    if kind == "Elu":
        slope = np.float32(bound.number("alpha", 1.0))
        return lambda x: np.where(x >= 0, x, slope * (exp32(x) - np.float32(1)))
    return FUNCTIONS[kind]


def hard_swish(x: Array) -> Array:
    """Float32 hard swish, computed in double as the C literals make it.

    Matches: ``HardSwish::forward_template``.
    """
    wide = x.astype(np.float64)
    return (np.clip(0.166667 * wide + 0.5, 0.0, 1.0) * wide).astype(np.float32)


FUNCTIONS: dict[str, Function] = {
    "Exp": exp32,
    "HardSwish": hard_swish,
    "Log": log32,
    "Sigmoid": sigmoid32,
    "Sqrt": np.sqrt,
    "Swish": lambda x: sigmoid32(x) * x,
    "Tanh": tanh32,
}


def _unary(bound: BoundNode, to_output: Function, function: Function) -> Kernel:
    """A table for integers; the function itself for float tensors."""
    source, destination = bound.input(), bound.out
    if source.is_float:
        x, y = source.array, destination.array
        return storer(y, function, x)
    stored = stored_table(bound)
    if stored is not None:
        return lookup(source.array, destination.array, stored)
    table = tabulate(
        lambda q: quantized(
            to_output(q.astype(np.float32) * source.scale), bound.rounding, destination.dtype
        ),
        source.dtype,
    )
    return lookup(source.array, destination.array, table)


def build_lut(bound: BoundNode) -> Kernel:
    """LUT: a stored table; at int16 of every ``step``-th value, nearest entry.

    The index is rounded, a half as the target does, and nothing is interpolated.

    Matches: ``base::lut_s8``, ``base::lut_s16_nearest_neighbor``.
    """
    source, destination = bound.input().array, bound.out.array
    if source.dtype == np.int8:
        return lookup(source, destination, int8_table(bound))
    stored = table_entries(bound)
    step = 65536 // (stored.size - 1)
    shift = step.bit_length() - 1

    def entry(q: Array) -> Array:
        value = q.astype(np.int32) + 32768
        index, rest, half = value >> shift, value & (step - 1), step >> 1
        if bound.rounding is Rounding.HALF_EVEN:
            up = (rest > half) | ((rest == half) & ((index & 1) == 1))
        else:
            up = rest >= half
        return stored[index + (up if shift else 0)]

    return lookup(source, destination, tabulate(entry, source.dtype))


_ACTIVATION = Operator(
    build_activation,
    rules=table_rules,
    limits="a look-up table for int8, or computed in float",
    arithmetic=(Arithmetic("SIMD", "a look-up table", widths=("S8",)), C_FLOAT_S16),
)
_LUT = Operator(
    build_lut,
    rules=partial(table_rules, must=True),
    widths=INTEGER_WIDTHS,
    limits="a look-up table; never float32",
    arithmetic=(SIMD,),
)
OPERATORS = {
    "Elu": _ACTIVATION,
    "Exp": _ACTIVATION,
    "Gelu": _LUT,
    "HardSigmoid": _ACTIVATION,
    "HardSwish": _ACTIVATION,
    "LUT": _LUT,
    "LeakyRelu": replace(_ACTIVATION, build=build_leaky_relu),
    "Log": _ACTIVATION,
    "Relu": replace(
        _ACTIVATION,
        build=build_relu,
        arithmetic=(Arithmetic("SIMD", "a look-up table", widths=("S8",)),),
    ),
    "Sigmoid": _ACTIVATION,
    "Sqrt": _ACTIVATION,
    "Swish": _ACTIVATION,
    "Tanh": _ACTIVATION,
}
