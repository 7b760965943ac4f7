"""Add, Sub, Mul and the comparisons: two operands, broadcast like numpy."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.espdl.weights import block_size
from espdl_hil.operators.broadcast import LIMITS, broadcast_rules, broadcast_shapes, merged_loops
from espdl_hil.operators.detour import Repeated
from espdl_hil.operators.numeric import finisher, limits
from espdl_hil.operators.signature import INTEGER_WIDTHS, SIMD, TENSOR, Arithmetic, Operator, fixed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.espdl import Shape
    from espdl_hil.operators.kernel import Kernel
    from espdl_hil.operators.node import BoundNode, PlacedNode


COMPARISONS: dict[str, np.ufunc] = {
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
}


def build_add_sub(bound: BoundNode) -> Kernel:
    """Add or Sub: a saturating integer sum; exponents play no part.

    Matches: ``base::elemwise_add``, ``base::elemwise_sub``.
    """
    combine = np.add if bound.op_type == "Add" else np.subtract
    a, b, y = bound.input().array, bound.input(1).array, bound.out.array
    if bound.out.is_float:
        return partial(combine, a, b, out=y)
    wide = np.dtype(f"i{2 * y.dtype.itemsize}")
    wide_a, wide_b, sums = (np.empty(array.shape, wide) for array in (a, b, y))
    low, high = (wide.type(limit) for limit in limits(y.dtype))

    def run() -> None:
        wide_a[...] = a
        wide_b[...] = b
        combine(wide_a, wide_b, out=sums)
        sums.clip(low, high, out=sums)
        y[...] = sums

    return run


def build_mul(bound: BoundNode) -> Kernel:
    """Mul: ``sat(round(a * b * 2**(ea + eb - eo)))``.

    C rounds the product of two int16 to float32 first. The vector kernels shift the exact product;
    they run when the innermost merged dimension fills a register, see `vector_loop`.
    At int8 both give the same.

    Matches: ``base::elemwise_mul``; ``dl_*_s16_mul_w1_8_w2_8`` and its kin from 8 elements of the
    innermost dimension on (16 at int8), ``c_impl_mul_n_n`` and its kin below.
    """
    a, b, y = bound.input(), bound.input(1), bound.out.array
    if bound.out.is_float:
        return partial(np.multiply, a.array, b.array, out=y)
    vector = bound.uniform or vector_loop(a.shape, b.shape, y.dtype)
    exact = bound.target.simd and vector
    kind = np.dtype(np.float64 if exact and y.dtype == np.int16 else np.float32)
    real_a, real_b, products = (np.empty(array.shape, kind) for array in (a.array, b.array, y))
    scale = np.float32(a.scale * b.scale * bound.out.rescale)
    finish = finisher(products, y, bound.rounding)
    # a power of two may multiply either side; the smaller one is cheaper
    smaller = real_a if real_a.size < real_b.size else real_b

    def run() -> None:
        real_a[...] = a.array
        real_b[...] = b.array
        np.multiply(smaller, scale, out=smaller)
        np.multiply(real_a, real_b, out=products)
        finish()

    return run


def vector_loop(first: Shape, second: Shape, dtype: np.dtype[Any]) -> bool:
    """Whether the innermost merged dimension fills a vector register."""
    loops = merged_loops(first, second)
    return bool(loops) and max(loops[-1]) >= block_size(dtype)


def _mul_code(placed: PlacedNode) -> str:
    """SIMD or C; at int8 both give the same."""
    if placed.width != "S16" or not placed.target.simd:
        return ""
    info = placed.info(0)
    return "SIMD" if vector_loop(placed.shape_of(0), placed.shape_of(1), info.dtype) else "C"


def _mul_rules(placed: PlacedNode) -> Iterator[str]:
    """Products are shifted right by the vector kernels."""
    yield from broadcast_rules(placed)
    if not placed.quantized or not placed.target.simd:
        return
    shift = placed.output().exponent - placed.info(0).exponent - placed.info(1).exponent
    wide = vector_loop(placed.shape_of(0), placed.shape_of(1), placed.info(0).dtype)
    if shift < 0 and wide:
        yield (
            f"output exponent minus input exponents is {shift}: the product would be shifted "
            f"left, which the vector kernels of {placed.target.name} cannot do"
        )


def build_comparison(bound: BoundNode) -> Kernel:
    """Equal, Greater, GreaterOrEqual, Less, LessOrEqual of the integers as they are.

    Matches: ``base::elemwise_equal`` and its kin.
    """
    compare = COMPARISONS[bound.op_type]
    return partial(compare, bound.input().array, bound.input(1).array, out=bound.out.array)


def _comparison_rules(placed: PlacedNode) -> Iterator[str]:
    """Comparisons look at the integers alone."""
    yield from broadcast_rules(placed)
    if placed.info(0).exponents != placed.info(1).exponents:
        yield (
            f"the inputs have exponents {placed.info(0).exponents} and {placed.info(1).exponents}; "
            "the chip compares the integers and ignores them"
        )
    if placed.target.name != "c":
        yield from _placement_rules(placed)


def _placement_rules(placed: PlacedNode) -> Iterator[str]:
    """The memory planner counts bytes: one of an output is half an int16 of an input.

    Matches: ``MemoryManagerGreedy::alloc``, in-place if ``get_size()`` of an input suffices.
    """
    made = math.prod(placed.results[0])
    for i in _overwritten(placed):
        held = math.prod(placed.shape_of(i)) * placed.info(i).dtype.itemsize
        yield (
            f"the chip places the output ({made} bytes) in input {i} ({held} bytes), which it "
            "repeats and still needs: later rows would be wrong; expand that input to "
            f"{placed.results[0]} before, or compare at int8"
        )


def _overwritten(placed: PlacedNode) -> list[int]:
    """Inputs that hold the output, byte for byte, and are repeated."""
    made = math.prod(placed.results[0])
    sizes = {i: math.prod(placed.shape_of(i)) for i in (0, 1) if placed.stored(i) is None}
    return [i for i, n in sizes.items() if n < made <= n * placed.info(i).dtype.itemsize]


def _comparison_detour(placed: PlacedNode) -> Repeated | None:
    """The input as it would be repeated, which is twice on one axis: two bytes make it fit."""
    if placed.target.name == "c":
        return None
    for i in _overwritten(placed):
        shape, whole = placed.shape_of(i), placed.results[0]
        if len(shape) == len(whole):
            return Repeated(i, next(a for a, n in enumerate(whole) if n != shape[a]), times=2)
    return None


_ALIGNED = Operator(
    build_add_sub,
    broadcast_shapes,
    broadcast_rules,
    inputs=(TENSOR, TENSOR),
    limits=f"{LIMITS}; one exponent",
    arithmetic=(SIMD,),
    copies=True,
)
_COMPARISON = Operator(
    build_comparison,
    broadcast_shapes,
    _comparison_rules,
    inputs=(TENSOR, TENSOR),
    outputs=(fixed("bool"),),
    detour=_comparison_detour,
    widths=INTEGER_WIDTHS,
    limits=LIMITS,
    arithmetic=(SIMD,),
)
OPERATORS = {
    **dict.fromkeys(COMPARISONS, _COMPARISON),
    "Add": _ALIGNED,
    "Mul": Operator(
        build_mul,
        broadcast_shapes,
        _mul_rules,
        inputs=(TENSOR, TENSOR),
        limits=LIMITS,
        by_size=_mul_code,
        arithmetic=(
            Arithmetic("SIMD", "innermost merged dimension >= 8", widths=("S16",)),
            Arithmetic("SIMD", "innermost merged dimension >= 16", widths=("S8",)),
        ),
    ),
    "Sub": _ALIGNED,
}
