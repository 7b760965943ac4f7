"""Clip, Neg and PRelu: piecewise linear, in integers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.kernel import Kernel, storer
from espdl_hil.operators.numeric import (
    MAX_SCALE_BITS,
    limits,
    quantized,
    saturated,
    shift_right_round,
    wrapped,
)
from espdl_hil.operators.signature import OPTIONAL, TENSOR, WEIGHT, Arithmetic, Operator
from espdl_hil.operators.tables import every_value, lookup, stored_table, table_rules, tabulate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.espdl import Array
    from espdl_hil.operators.node import BoundNode, PlacedNode

MAX_PRODUCT_SHIFT = 31


def build_clip(bound: BoundNode) -> Kernel:
    """Clip in the input's integers, then requantize; bounds may be computed by the graph.

    Matches: ``Clip::forward_template``.
    """
    source, destination = bound.input(), bound.out
    low, high = bound.optional(1), bound.optional(2)
    rescale = source.scale * destination.rescale
    smallest, largest = (None, None) if source.is_float else limits(source.dtype)

    def clipped(values: Array) -> Array:
        lo = smallest if low is None else low.array.reshape(-1)[0]
        hi = largest if high is None else high.array.reshape(-1)[0]
        # not np.clip: with crossed bounds the lower one wins in the C macro
        below = values if hi is None else np.where(values > hi, hi, values)
        return below if lo is None else np.where(values < lo, lo, below)

    def requantized(values: Array) -> Array:
        scaled = clipped(values).astype(np.float32) * rescale
        return quantized(scaled, bound.rounding, destination.dtype)

    convert = clipped if source.is_float else requantized
    fixed = all(bound is None or bound.constant is not None for bound in (low, high))
    if source.is_float or not fixed:
        return storer(destination.array, convert, source.array)
    stored = stored_table(bound)
    table = tabulate(requantized, source.dtype) if stored is None else stored
    return lookup(source.array, destination.array, table)


def _clip_rules(placed: PlacedNode) -> Iterator[str]:
    """Bounds are compared as integers."""
    yield from table_rules(placed)
    if placed.width == "S8" and "lut" in placed.node.attributes:
        return
    count = len(placed.node.inputs)
    if placed.width == "F32" and count > 1 and not placed.has(1):
        yield "there is no lower bound; the chip takes the smallest positive float for it"
    for i in range(1, count):
        if not placed.has(i):
            continue
        if placed.stored(i) is not None and not placed.info(i).size:
            yield f"bound {i} is empty"
        if placed.info(i).exponents != placed.info(0).exponents:
            yield (
                f"bound {i} has exponent {placed.info(i).exponents}, the input "
                f"{placed.info(0).exponents}; the chip compares the integers"
            )


def build_neg(bound: BoundNode) -> Kernel:
    """Neg; the smallest integer becomes the largest. Exponents and tables are ignored.

    Matches: ``Neg::forward_int8``, ``Neg::forward_int16``.
    """
    source, destination = bound.input().array, bound.out.array
    if bound.input().is_float:
        return partial(np.negative, source, out=destination)
    table = tabulate(lambda q: saturated(-q.astype(np.int32), q.dtype), source.dtype)
    return lookup(source, destination, table)


def build_prelu(bound: BoundNode) -> Kernel:
    """PRelu with a slope per channel.

    ==========  =============================================================================
    C           negative ``sat(x * slope >> shift)``, wrapped to twice the width; others copied
    int8, chip  negative ``sat(round(x * slope, shift))``; positive rescaled to the output's
                exponent: ``sat(round(x, eo - ei))`` or ``sat(x * wrap8(1 << (ei - eo)))``
    int16, S3   not positive ``wrap(x * slope >> shift)``; others copied
    int16, P4   as C
    ==========  =============================================================================

    Matches: ``base::prelu``, ``PRelu::forward``; ``dl_*_s8_prelu_11c``,
    ``dl_tie728_s16_prelu_11c``, else ``prelu_11c``.
    """
    source, destination, alpha = bound.input(), bound.out, bound.input(1)
    stored = stored_table(bound)
    if stored is not None:
        return lookup(source.array, destination.array, stored)
    slopes = alpha.array.reshape(-1)  # one a channel, or one for all
    x, y = source.array, destination.array
    if source.is_float:
        return storer(y, lambda: np.where(x >= 0, x, x * slopes))
    shift = destination.exponent - source.exponent - alpha.exponent
    factors = slopes.astype(np.int64)
    if bound.target.simd and x.dtype == np.int8:
        positive = _rescaled(every_value(x.dtype), bound)

        def run_int8() -> None:
            rounded = shift_right_round(x * factors, shift, bound.rounding)
            kept = positive.take(x.view(np.uint8))
            y[...] = np.where(x < 0, saturated(rounded, y.dtype), kept)

        return run_int8
    if bound.target.simd and bound.target.name == "esp32s3":
        down = np.int64(shift)
        return storer(y, lambda: np.where(x <= 0, ((x * factors) >> down).astype(y.dtype), x))
    # ESP-DL's products are twice as wide as the data, and wrap there when shifted left
    wide = np.dtype(f"i{2 * source.dtype.itemsize}")
    right, left = np.int64(np.clip(shift, 0, 62)), np.int64(np.clip(-shift, 0, 62))

    def run() -> None:
        products = ((x * factors) >> right) << left
        y[...] = np.where(x < 0, saturated(products.astype(wide), x.dtype), x)

    return run


def _rescaled(x: Array, bound: BoundNode) -> Array:
    """What the int8 kernels make of positive values."""
    coarser = bound.out.exponent - bound.input().exponent
    factor = wrapped(1 << max(-coarser, 0), 8)
    products = x * np.int64(factor)
    return saturated(shift_right_round(products, max(coarser, 0), bound.rounding), x.dtype)


def _prelu_rules(placed: PlacedNode) -> Iterator[str]:
    """A slope for each channel of one picture; or a table."""
    yield from table_rules(placed)
    if placed.width == "S8" and "lut" in placed.node.attributes:
        return
    if len(placed.shape) != 4:
        yield f"input {placed.shape}, ESP-DL takes (N, H, W, C)"
        return
    slope = placed.shape_of(1)
    if len(slope) != 3 or slope[1:] != (1, 1):
        yield f"a slope of shape {slope}, the chip asserts (C, 1, 1)"
    elif slope[0] != placed.shape[3] and (slope[0] != 1 or placed.width == "S8"):
        yield f"{slope[0]} slopes for {placed.shape[3]} channels"
    if placed.quantized:
        yield from _prelu_exponents(placed)


def _prelu_exponents(placed: PlacedNode) -> Iterator[str]:
    """Only the int8 vector kernels rescale what is not negative."""
    finer = placed.info(0).exponent - placed.output().exponent
    rescales = placed.width == "S8" and placed.target.simd
    if finer and not rescales:
        yield "input and output exponents differ; the chip copies what is not negative"
    shift = -finer - placed.info(1).exponent
    low = 0 if rescales or placed.target.name == "esp32s3" else -MAX_SCALE_BITS
    if not low <= shift <= MAX_PRODUCT_SHIFT:
        yield f"the product is shifted right by {shift} bits, {low} to {MAX_PRODUCT_SHIFT} work"


def _prelu_flaws(placed: PlacedNode) -> Iterator[str]:
    """The int8 vector kernels rescale by a factor of 8 bits."""
    if placed.width != "S8" or len(placed.shape) != 4 or "lut" in placed.node.attributes:
        return
    finer = placed.info(0).exponent - placed.output().exponent
    if finer > MAX_SCALE_BITS and placed.target.simd:
        yield (
            f"the output is {finer} bits finer than the input; the chip multiplies what is "
            f"positive by {wrapped(1 << finer, 8)}, {MAX_SCALE_BITS} bits are the most: calibrate "
            "both to exponents that are closer"
        )


OPERATORS = {
    "Clip": Operator(build_clip, rules=_clip_rules, inputs=(TENSOR, OPTIONAL, OPTIONAL)),
    "Neg": Operator(build_neg, copies=True),
    "PRelu": Operator(
        build_prelu,
        rules=_prelu_rules,
        flaws=_prelu_flaws,
        arithmetic=(
            Arithmetic(
                "SIMD", confidence="medium: saturation", widths=("S8",), targets=("esp32p4",)
            ),
            Arithmetic("SIMD", widths=("S8",), targets=("esp32s3",)),
            Arithmetic("SIMD", confidence="medium: wrap", widths=("S16",), targets=("esp32s3",)),
        ),
        inputs=(TENSOR, WEIGHT),
        limits="(1, H, W, C) with a slope a channel, or a table",
    ),
}
