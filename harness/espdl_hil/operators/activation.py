"""Functions of one element: activations, Clip, Exp, Log, Sqrt, Neg and look-up tables.

Quantized, each is evaluated once for every input value at load; a step is a look-up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.numeric import (
    exp32,
    limits,
    log32,
    quantized,
    saturated,
    sigmoid32,
    tanh32,
)
from espdl_hil.operators.tables import lookup, tabulate
from espdl_hil.targets import Rounding

if TYPE_CHECKING:
    from collections.abc import Callable

    from espdl_hil.espdl import Array
    from espdl_hil.operators.prepare import Kernel, Op

    Function = Callable[[Array], Array]  # float32 to float32, element by element


def build_activation(op: Op) -> Kernel:
    """Sigmoid, Tanh, Swish, HardSigmoid, HardSwish, Elu, Exp, Log, Sqrt.

    ``out = sat(round(f(x * 2**ei) * 2**-eo))`` in float32, or the stored table at int8.

    Matches: ``Sigmoid::forward`` and its kin.
    """
    function = _function(op)
    return _unary(op, lambda real: function(real) * op.out.rescale, function)


def build_leaky_relu(op: Op) -> Kernel:
    """LeakyRelu; below zero the slope multiplies last.

    Matches: ``LeakyRelu::forward_template``.
    """
    alpha = np.float32(op.view.number("alpha", 0.01))

    def to_output(real: Array) -> Array:
        scaled = real * op.out.rescale
        return np.where(real >= 0, scaled, scaled * alpha)

    return _unary(op, to_output, lambda real: np.where(real >= 0, real, real * alpha))


def build_relu(op: Op) -> Kernel:
    """Relu; requantizes when the exponents differ.

    Matches: ``Relu::forward_template``.
    """
    return _unary(
        op,
        lambda real: np.where(real >= 0, real * op.out.rescale, np.float32(0)),
        lambda real: np.where(real >= 0, real, np.float32(0)),
    )


def _function(op: Op) -> Function:
    """The float32 function of the node."""
    kind = op.op_type
    if kind == "HardSigmoid":
        alpha = np.float32(op.view.number("alpha", 0.2))
        beta = np.float32(op.view.number("beta", 0.5))
        return lambda x: np.clip(alpha * x + beta, np.float32(0), np.float32(1))
    if kind == "Elu":
        slope = np.float32(op.view.number("alpha", 1.0))
        return lambda x: np.where(x >= 0, x, slope * (exp32(x) - np.float32(1)))
    return FUNCTIONS[kind]


def hard_swish(x: Array) -> Array:
    """Float32 hard swish, computed in double as the C literals make it.

    Matches: ``HardSwish::forward_template``.
    """
    wide = x.astype(np.float64)
    result: Array = (np.clip(0.166667 * wide + 0.5, 0.0, 1.0) * wide).astype(np.float32)
    return result


FUNCTIONS: dict[str, Function] = {
    "Exp": exp32,
    "HardSwish": hard_swish,
    "Log": log32,
    "Sigmoid": sigmoid32,
    "Sqrt": np.sqrt,
    "Swish": lambda x: sigmoid32(x) * x,
    "Tanh": tanh32,
}


def _unary(op: Op, to_output: Function, function: Function) -> Kernel:
    """A table for integers; the function itself for float tensors."""
    source, destination = op.input(), op.out
    if source.is_float:
        x, y = source.array, destination.array

        def run() -> None:
            y[...] = function(x)

        return run
    stored = stored_table(op)
    if stored is not None:
        return lookup(source.array, destination.array, stored)
    table = tabulate(
        lambda q: quantized(
            to_output(q.astype(np.float32) * source.scale), op.rounding, destination.dtype
        ),
        source.dtype,
    )
    return lookup(source.array, destination.array, table)


def stored_table(op: Op) -> Array | None:
    """The node's own int8 table, in the order that `lookup` wants; None without one.

    Matches: the modules' ``deserialize``, which makes an int8 node with a table a LUT.
    """
    if op.input().dtype != np.int8 or "lut" not in op.view.node.attributes:
        return None
    return int8_table(op)


def int8_table(op: Op) -> Array:
    """A stored table of 256 entries, first that of -128, reordered for `lookup`.

    Matches: ``base::lut_s8``.
    """
    return np.roll(_entries(op), 128)


def _entries(op: Op) -> Array:
    return op.view.constants[op.view.text("lut")].reshape(-1)


def build_lut(op: Op) -> Kernel:
    """LUT: a stored table; at int16 of every ``step``-th value, nearest entry.

    The index is rounded, a half as the target does, and nothing is interpolated.

    Matches: ``base::lut_s8``, ``base::lut_s16_nearest_neighbor``.
    """
    source, destination = op.input().array, op.out.array
    if source.dtype == np.int8:
        return lookup(source, destination, int8_table(op))
    stored = _entries(op)
    step = 65536 // (stored.size - 1)
    shift = step.bit_length() - 1

    def entry(q: Array) -> Array:
        value = q.astype(np.int32) + 32768
        index, rest, half = value >> shift, value & (step - 1), step >> 1
        if op.rounding is Rounding.HALF_EVEN:
            up = (rest > half) | ((rest == half) & ((index & 1) == 1))
        else:
            up = rest >= half
        nearest: Array = stored[index + (up if shift else 0)]
        return nearest

    return lookup(source, destination, tabulate(entry, source.dtype))


def build_clip(op: Op) -> Kernel:
    """Clip in the input's integers, then requantize; bounds may be computed by the graph.

    Matches: ``Clip::forward_template``.
    """
    source, destination = op.input(), op.out
    low, high = op.optional(1), op.optional(2)
    rescale = np.float32(1) if source.is_float else source.scale * destination.rescale
    smallest, largest = (None, None) if source.is_float else limits(source.dtype)

    def clipped(values: Array) -> Array:
        lo = smallest if low is None else low.array.reshape(-1)[0]
        hi = largest if high is None else high.array.reshape(-1)[0]
        # not np.clip: with crossed bounds the lower one wins in the C macro
        below = values if hi is None else np.where(values > hi, hi, values)
        return below if lo is None else np.where(values < lo, lo, below)

    def requantized(values: Array) -> Array:
        scaled = clipped(values).astype(np.float32) * rescale
        return quantized(scaled, op.rounding, destination.dtype)

    convert = clipped if source.is_float else requantized
    fixed = all(bound is None or bound.constant is not None for bound in (low, high))
    if source.is_float or not fixed:

        def run() -> None:
            destination.array[...] = convert(source.array)

        return run
    stored = stored_table(op)
    table = tabulate(requantized, source.dtype) if stored is None else stored
    return lookup(source.array, destination.array, table)


def build_neg(op: Op) -> Kernel:
    """Neg; the smallest integer becomes the largest. Exponents and tables are ignored.

    Matches: ``Neg::forward_int8``, ``Neg::forward_int16``.
    """
    source, destination = op.input().array, op.out.array
    if op.input().is_float:

        def negate() -> None:
            np.negative(source, out=destination)

        return negate
    table = tabulate(lambda q: saturated(-q.astype(np.int32), q.dtype), source.dtype)
    return lookup(source, destination, table)


def build_prelu(op: Op) -> Kernel:
    """PRelu with a slope per channel; negative products are shifted without rounding.

    Matches: ``base::prelu``, ``PRelu::forward``.
    """
    source, destination, alpha = op.input(), op.out, op.input(1)
    stored = stored_table(op)
    if stored is not None:
        return lookup(source.array, destination.array, stored)
    slopes = alpha.array.reshape(-1)  # one a channel, or one for all
    x, y = source.array, destination.array
    if source.is_float:

        def run_float() -> None:
            y[...] = np.where(x >= 0, x, x * slopes)

        return run_float
    shift = destination.exponent - source.exponent - alpha.exponent
    # ESP-DL's products are twice as wide as the data, and wrap there when shifted left
    wide = np.dtype(f"i{2 * source.dtype.itemsize}")
    right, left = np.int64(np.clip(shift, 0, 62)), np.int64(np.clip(-shift, 0, 62))
    factors = slopes.astype(np.int64)

    def run() -> None:
        products = ((x * factors) >> right) << left
        y[...] = np.where(x < 0, saturated(products.astype(wide), x.dtype), x)

    return run
