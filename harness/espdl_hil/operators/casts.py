"""QuantizeLinear, DequantizeLinear and RequantizeLinear: one tensor assigned to another."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.operators.detour import Detour, MoreChannels, Steps
from espdl_hil.operators.kernel import Kernel, copier
from espdl_hil.operators.numeric import (
    quantized,
    rounder,
    saturated,
    scale_of,
    shift_right_round,
    wrapped,
)
from espdl_hil.operators.signature import NUMBERS, Arithmetic, Operator, fixed
from espdl_hil.operators.tables import every_value, lookup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.espdl import Array
    from espdl_hil.operators.node import BoundNode, PlacedNode
    from espdl_hil.targets import Target

SMALL = 50  # elements that assign leaves to C
MAX_LEFT_S16 = 14  # from int16 to int16 a longer shift to the left is left to C as well
UNWRITTEN = 8  # outputs behind the last register of inputs, from int8 to int16


def build_requantize(bound: BoundNode) -> Kernel:
    """``sat(round(x * 2**ei * 2**-eo))``; from and to float as well.

    With equal exponents integers are copied, and clipped when they get narrower. Otherwise the
    vector kernels take more than `SMALL` elements, see `shifted`.

    Matches: ``TensorBase::assign``, which takes user inputs of another exponent too.
    """
    source, destination = bound.input(), bound.out
    x, y = source.array, destination.array
    if x.dtype == y.dtype and source.exponents == destination.exponents:
        return copier(x, y)
    if source.is_float:
        return _quantize(bound)
    if destination.is_float:
        return partial(np.multiply, x, source.scale, out=y)
    cast = (bound.target, x.dtype, y.dtype, destination.exponent - source.exponent)
    return lookup(x, y, shifted(*cast) if _is_vector(x.size, *cast) else rescaled(*cast))


def rescaled(target: Target, taken: np.dtype[Any], made: np.dtype[Any], coarser: int) -> Array:
    """What is meant, and C computes: every value of *taken*, divided by ``2**coarser``."""
    real = every_value(taken).astype(np.float32) * scale_of(-coarser)
    return quantized(real, target.rounding, made)


def shifted(target: Target, taken: np.dtype[Any], made: np.dtype[Any], coarser: int) -> Array:
    """What the vector kernels make of every value of *taken*.

    Right shifts are rounded. Left shifts multiply by a power of two that wraps to 16 bits, on the
    S3 from int8 to int8 to 8 bits; the S3 keeps 20 bits of a product that becomes an int8.

    Args:
        target: A chip with vector kernels.
        taken: int8 or int16.
        made: int8 or int16.
        coarser: Output exponent minus input exponent, not 0.

    Matches: ``dl_*_s8_s8_requantize_linear`` and its kin.
    """
    values = every_value(taken).astype(np.int64)
    if coarser > 0:
        return saturated(shift_right_round(values, coarser, target.rounding), made)
    s3 = target.name == "esp32s3"
    products = values * wrapped(1 << -coarser, 8 if s3 and taken == made == np.int8 else 16)
    return saturated(wrapped(products, 20) if s3 and made == np.int8 else products, made)


def _is_vector(
    size: int, target: Target, taken: np.dtype[Any], made: np.dtype[Any], coarser: int
) -> bool:
    """Whether `shifted` computes that many integers."""
    long_shift = taken == made == np.int16 and -coarser > MAX_LEFT_S16
    return target.simd and coarser != 0 and size > SMALL and not long_shift


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
    taken, made = placed.info(0), placed.output()
    both_float = taken.dtype == made.dtype == "float32"
    if both_float and taken.exponents != made.exponents:
        yield "float to float with different exponents, the chip leaves the output as it was"

    if _vector_cast(placed) and _leaves_unwritten(placed):
        yield (
            f"the chip never writes the last {UNWRITTEN} of the {math.prod(placed.shape)} outputs, "
            f"which is 16 n + {UNWRITTEN}; split or pad the tensor (another chunk size or channel "
            "count), or keep its exponent"
        )


def _leaves_unwritten(placed: PlacedNode) -> bool:
    widens = placed.info(0).dtype == np.int8 and placed.output().dtype == np.int16
    return widens and math.prod(placed.shape) % 16 == UNWRITTEN


def _requantize_detour(placed: PlacedNode) -> Detour | None:
    """Fewer bits at a time; else one channel more, as `UNWRITTEN` is no multiple of 16."""
    cast = _vector_cast(placed)
    if cast is None:
        return None
    if steps := _steps(*cast):
        return Steps(tuple(placed.info(0).exponent - sum(steps[:i]) for i in range(1, len(steps))))
    if _leaves_unwritten(placed):
        return MoreChannels(placed.shape[-1] + 1, placed.shape[-1])
    return None


def _steps(
    target: Target, taken: np.dtype[Any], made: np.dtype[Any], coarser: int
) -> tuple[int, ...]:
    """Bits of each of several left shifts that are right; none if one is, or none would do.

    Saturating shifts to the left add up: what saturates in one step does so in all.
    """

    def is_right(source: np.dtype[Any], bits: int) -> bool:
        meant = rescaled(target, source, made, -bits)
        return np.array_equal(shifted(target, source, made, -bits), meant)

    source, finer = taken, -coarser
    if finer < 1 or is_right(taken, finer):
        return ()
    found: list[int] = []
    while finer:
        if source == made == np.int16 and finer > MAX_LEFT_S16:
            bits = finer  # which C computes
        else:
            bits = next((n for n in range(finer, 0, -1) if is_right(source, n)), 0)
        if not bits:
            return ()
        found.append(bits)
        source, finer = made, finer - bits
    return tuple(found)


def _requantize_flaws(placed: PlacedNode) -> Iterator[str]:
    cast = _vector_cast(placed)
    if cast is None:
        return
    wraps, meant = shifted(*cast), rescaled(*cast)
    wrong = np.flatnonzero(wraps != meant)
    if len(wrong):
        q = every_value(cast[1])[wrong[0]]
        yield (
            f"the output is {-cast[3]} bits finer than the input; the chip's shift to the left "
            f"wraps, {q} becomes {wraps[wrong[0]]} where {meant[wrong[0]]} is meant: calibrate "
            f"both to exponents that are closer, or take {SMALL} elements or fewer at a time"
        )


def _vector_cast(placed: PlacedNode) -> tuple[Target, np.dtype[Any], np.dtype[Any], int] | None:
    """What `shifted` is given of the node; None if it does not compute it."""
    taken, made = placed.info(0), placed.output()
    if "float32" in (taken.dtype, made.dtype):
        return None
    cast = (placed.target, taken.dtype, made.dtype, made.exponent - taken.exponent)
    return cast if _is_vector(math.prod(placed.shape), *cast) else None


_UNREAD = fixed("int8", "int16", "float32", optional=True, weight=True)
_REQUANTIZE = Operator(
    build_requantize,
    rules=_requantize_rules,
    flaws=_requantize_flaws,
    detour=_requantize_detour,
    arithmetic=(Arithmetic("SIMD", f"other exponent, more than {SMALL} elements"),),
    inputs=(NUMBERS, _UNREAD, _UNREAD),
    outputs=(NUMBERS,),
    by_tensor=True,
)
OPERATORS = dict.fromkeys(("DequantizeLinear", "QuantizeLinear", "RequantizeLinear"), _REQUANTIZE)
