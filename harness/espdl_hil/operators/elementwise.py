"""Add, Sub, Mul and the comparisons: two operands, broadcast like numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.operators.numeric import limits, rounder

if TYPE_CHECKING:
    from espdl_hil.espdl import Array
    from espdl_hil.operators.prepare import Kernel, Op

COMPARISONS: dict[str, np.ufunc] = {
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
}


def build_add_sub(op: Op) -> Kernel:
    """Add or Sub: a saturating integer sum; exponents play no part.

    Matches: ``base::elemwise_add``, ``base::elemwise_sub``.
    """
    combine = np.add if op.op_type == "Add" else np.subtract
    a, b, y = op.input().array, op.input(1).array, op.out.array
    if op.out.is_float:

        def run_float() -> None:
            combine(a, b, out=y)

        return run_float
    wide = np.dtype(f"i{2 * y.dtype.itemsize}")
    load_a, wide_a = widened(op, 0, wide)
    load_b, wide_b = widened(op, 1, wide)
    sums = np.empty(y.shape, wide)
    low, high = (wide.type(bound) for bound in limits(y.dtype))

    def run() -> None:
        load_a()
        load_b()
        combine(wide_a, wide_b, out=sums)
        sums.clip(low, high, out=sums)
        y[...] = sums

    return run


def build_mul(op: Op) -> Kernel:
    """Mul: ``sat(round(float32(a * b) * 2**(ea + eb - eo)))``.

    The product of two int16 is rounded to float32, as the C code does.

    Matches: ``base::elemwise_mul``.
    """
    a, b, y = op.input(), op.input(1), op.out.array
    if op.out.is_float:

        def run_float() -> None:
            np.multiply(a.array, b.array, out=y)

        return run_float
    kind = np.dtype(np.float32)
    load_a, real_a = widened(op, 0, kind)
    load_b, real_b = widened(op, 1, kind)
    scale = np.float32(a.scale * b.scale * op.out.rescale)
    products = np.empty(y.shape, np.float32)
    settle = rounder(op.rounding)
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


def build_comparison(op: Op) -> Kernel:
    """Equal, Greater, GreaterOrEqual, Less, LessOrEqual of the integers as they are.

    Matches: ``base::elemwise_equal`` and its kin.
    """
    compare = COMPARISONS[op.op_type]
    a, b, y = op.input().array, op.input(1).array, op.out.array

    def run() -> None:
        compare(a, b, out=y)

    return run


def widened(op: Op, index: int, kind: np.dtype[Any]) -> tuple[Kernel, Array]:
    """A copy of an input in a wider type.

    Returns:
        The kernel that fills the copy, and the copy.
    """
    source = op.input(index).array
    copy = np.empty(source.shape, kind)

    def load() -> None:
        copy[...] = source

    return load, copy
