"""Add, Sub, Mul and the comparisons: two operands, broadcast like numpy."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.espdl.weights import VECTOR_BYTES
from espdl_hil.operators.broadcast import LIMITS, broadcast_rules, broadcast_shapes, merged_loops
from espdl_hil.operators.numeric import limits, rounder
from espdl_hil.operators.signature import INTEGER_WIDTHS, TENSOR, Operator, fixed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.espdl import Array
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
    load_a, wide_a = widened(bound, 0, wide)
    load_b, wide_b = widened(bound, 1, wide)
    sums = np.empty(y.shape, wide)
    low, high = (wide.type(bound) for bound in limits(y.dtype))

    def run() -> None:
        load_a()
        load_b()
        combine(wide_a, wide_b, out=sums)
        sums.clip(low, high, out=sums)
        y[...] = sums

    return run


def build_mul(bound: BoundNode) -> Kernel:
    """Mul: ``sat(round(float32(a * b) * 2**(ea + eb - eo)))``.

    The product of two int16 is rounded to float32, as the C code does.

    Matches: ``base::elemwise_mul``.
    """
    a, b, y = bound.input(), bound.input(1), bound.out.array
    if bound.out.is_float:
        return partial(np.multiply, a.array, b.array, out=y)
    kind = np.dtype(np.float32)
    load_a, real_a = widened(bound, 0, kind)
    load_b, real_b = widened(bound, 1, kind)
    scale = np.float32(a.scale * b.scale * bound.out.rescale)
    products = np.empty(y.shape, np.float32)
    settle = rounder(bound.rounding)
    low, high = (np.float32(bound) for bound in limits(y.dtype))
    # a power of two may multiply either side; the smaller one is cheaper
    smaller = real_a if real_a.size < real_b.size else real_b

    def run() -> None:
        load_a()
        load_b()
        np.multiply(smaller, scale, out=smaller)
        np.multiply(real_a, real_b, out=products)
        settle(products)
        products.clip(low, high, out=products)
        y[...] = products

    return run


def _mul_rules(placed: PlacedNode) -> Iterator[str]:
    """Products are shifted right by the vector kernels."""
    yield from broadcast_rules(placed)
    if not placed.quantized or not placed.target.packed_filters:
        return
    shift = placed.output().exponent - placed.info(0).exponent - placed.info(1).exponent
    loops = merged_loops(placed.shape_of(0), placed.shape_of(1))
    lanes = VECTOR_BYTES // placed.info(0).dtype.itemsize
    if shift < 0 and loops and max(loops[-1]) >= lanes:
        yield (
            f"output exponent minus input exponents is {shift}: the product would be shifted "
            f"left, which the vector kernels of {placed.target.name} cannot do"
        )


def build_comparison(bound: BoundNode) -> Kernel:
    """Equal, Greater, GreaterOrEqual, Less, LessOrEqual of the integers as they are.

    Matches: ``base::elemwise_equal`` and its kin.
    """
    compare = COMPARISONS[bound.op_type]
    a, b, y = bound.input().array, bound.input(1).array, bound.out.array
    return partial(compare, a, b, out=y)


def _comparison_rules(placed: PlacedNode) -> Iterator[str]:
    """Comparisons look at the integers alone."""
    yield from broadcast_rules(placed)
    if placed.info(0).exponents != placed.info(1).exponents:
        yield (
            f"the inputs have exponents {placed.info(0).exponents} and {placed.info(1).exponents}; "
            "the chip compares the integers and ignores them"
        )


def widened(bound: BoundNode, index: int, kind: np.dtype[Any]) -> tuple[Kernel, Array]:
    """A copy of an input in a wider type.

    Returns:
        The kernel that fills the copy, and the copy.
    """
    source = bound.input(index).array
    copy = np.empty(source.shape, kind)

    def load() -> None:
        copy[...] = source

    return load, copy


_ALIGNED = Operator(
    build_add_sub,
    broadcast_shapes,
    broadcast_rules,
    inputs=(TENSOR, TENSOR),
    limits=f"{LIMITS}; one exponent",
    copies=True,
)
_COMPARISON = Operator(
    build_comparison,
    broadcast_shapes,
    _comparison_rules,
    inputs=(TENSOR, TENSOR),
    outputs=(fixed("bool"),),
    widths=INTEGER_WIDTHS,
    limits=LIMITS,
)
OPERATORS = {
    **dict.fromkeys(COMPARISONS, _COMPARISON),
    "Add": _ALIGNED,
    "Mul": Operator(
        build_mul, broadcast_shapes, _mul_rules, inputs=(TENSOR, TENSOR), limits=LIMITS
    ),
    "Sub": _ALIGNED,
}
