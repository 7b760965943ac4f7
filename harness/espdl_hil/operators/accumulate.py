"""Sums of products brought to the output's exponent: the core of Conv, Gemm and MatMul.

A float GEMM is exact as long as no partial sum can leave the integers that the float type holds,
which the weights and the input's range decide at load. Weights and bias are scaled by the output
shift (powers of two, exact), so what the GEMM returns only needs rounding and clipping. The bias,
with the rounding offset of half-up targets, is one more row of weights against a column of ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.operators.numeric import DOUBLE_EXACT, FLOAT_EXACT, limits, shift_right_round
from espdl_hil.targets import Rounding

if TYPE_CHECKING:
    from espdl_hil.espdl import Array
    from espdl_hil.operators.kernel import Kernel
    from espdl_hil.operators.lanes import Accumulators

LEFTMOST = -40  # shifting any product further left saturates just the same
RIGHTMOST = 62


@dataclass(frozen=True)
class Products:
    """What is multiplied and summed for each output channel.

    Attributes:
        weights: (K, N) int8 or int16 in logical order.
        bias: (N,) int64, at the exponent of the products.
        shift: (N,) int64, output exponent minus product exponent.
        rounding: What an exact half becomes.
        relu: Negative results become 0.
        out_type: int8 or int16, of the input and the output.
        accumulators: Of the vector unit; None where C integers are summed, which wrap.
    """

    weights: Array
    bias: Array
    shift: Array
    rounding: Rounding
    relu: bool
    out_type: np.dtype[Any]
    accumulators: Accumulators | None

    @property
    def bound(self) -> Array:
        """(N,) float64: no partial sum, in any order, is larger in magnitude."""
        magnitude = np.abs(self.weights.astype(np.float64)).sum(0)
        total: Array = magnitude * -limits(self.out_type)[0] + np.abs(self.bias.astype(np.float64))
        return total

    @property
    def lowest(self) -> int:
        """Smallest output."""
        return 0 if self.relu else limits(self.out_type)[0]


@dataclass(frozen=True)
class ScaledWeights:
    """`Products` prepared for a float GEMM that is exact.

    Attributes:
        matrix: (K + 1, N) float32 or float64, scaled to the output; the last row is the bias,
            with the rounding offset of half-up targets.
        rounding: What an exact half becomes.
        low: Smallest output, of the matrix's type.
        high: Largest output.
    """

    matrix: Array
    rounding: Rounding
    low: np.floating[Any]
    high: np.floating[Any]

    def finish(self, sums: Array, destination: Array) -> Kernel:
        """A kernel that rounds and saturates *sums* (overwritten) into *destination*."""
        settle = np.rint if self.rounding is Rounding.HALF_EVEN else np.floor
        low, high = self.low, self.high

        def run() -> None:
            settle(sums, out=sums)
            sums.clip(low, high, out=sums)
            destination[...] = sums

        return run


def scaled_weights(products: Products) -> ScaledWeights | None:
    """Prepare a float GEMM; None when no float type would be exact.

    int8 needs every sum below 2**24 for float32, int16 commonly 2**53 for float64.
    """
    weights, bias = products.weights.astype(np.int64), products.bias
    bound = products.bound
    # a channel whose largest sum is below half an output LSB only ever gives 0
    dead = (products.shift > 0) & (bound < np.exp2((products.shift - 1).astype(np.float64)))
    weights, bias = np.where(dead, 0, weights), np.where(dead, 0, bias)
    shift = np.where(dead, 0, np.clip(products.shift, LEFTMOST, RIGHTMOST))
    offset = np.zeros_like(bias)
    if products.rounding is Rounding.HALF_UP:
        offset = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
    largest = np.max(np.where(dead, 0, bound) + offset, initial=0.0)
    if products.accumulators is None and largest >= _wrap_limit(products.out_type):
        return None
    if largest < FLOAT_EXACT:
        kind: type[np.floating[Any]] = np.float32
    elif largest < DOUBLE_EXACT:
        kind = np.float64
    else:
        return None
    rows = np.concatenate([weights, (bias + offset)[None]]).astype(kind)
    matrix = np.ldexp(rows, -shift.astype(np.int32))
    low, high = kind(products.lowest), kind(limits(products.out_type)[1])
    return ScaledWeights(np.ascontiguousarray(matrix), products.rounding, low, high)


def _wrap_limit(dtype: np.dtype[Any]) -> float:
    """C integers overflow here: int32 for int8 data, int64 for int16."""
    return 2.0**31 if dtype.itemsize == 1 else 2.0**63


def settled(products: Products, sums: Array, channels: Array | slice = slice(None)) -> Array:
    """Outputs, int64, of finished accumulators *sums*, int64, whose last axis is *channels*."""
    shift = np.clip(products.shift[channels], LEFTMOST, RIGHTMOST)
    rounded = shift_right_round(sums, shift, products.rounding)
    return rounded.clip(products.lowest, limits(products.out_type)[1])


def settle_integers(products: Products, sums: Array, destination: Array) -> None:
    """The slow way to finish: int64 sums (..., N), wrapped where C integers would wrap."""
    total = sums + products.bias
    if products.accumulators is None and products.out_type.itemsize == 1:
        total = total.astype(np.int32).astype(np.int64)
    destination[...] = settled(products, total)


def integer_product(products: Products, columns: Array, destination: Array) -> Kernel:
    """A kernel for sums that no float type holds: *columns* (M, K) are of any integer type."""
    weights = products.weights.astype(np.int64)

    def run() -> None:
        settle_integers(products, columns.astype(np.int64) @ weights, destination)

    return run


def gemm_kernel(
    scaled: ScaledWeights, rows: Array, columns: Array, sums: Array, destination: Array
) -> Kernel:
    """A kernel for ``destination = finish(rows @ weights)``.

    Args:
        scaled: The weights.
        rows: View of the input, M x K elements.
        columns: (M, K + 1) scratch of the matrix's type; its last column holds ones.
        sums: (M, N) scratch of the matrix's type.
        destination: (M, N) view of the output.
    """
    matrix, inner = scaled.matrix, columns[:, :-1].reshape(rows.shape)
    assert np.shares_memory(inner, columns)
    finish = scaled.finish(sums, destination)

    def run() -> None:
        inner[...] = rows
        np.dot(columns, matrix, out=sums)
        finish()

    return run


def matrix_kernel(products: Products, rows: Array, destination: Array) -> Kernel:
    """A kernel for ``destination = finish(rows @ weights)``, (M, K) and (M, N) views of tensors."""
    scaled = scaled_weights(products)
    if scaled is None:
        return integer_product(products, rows, destination)
    columns = np.ones((len(rows), len(scaled.matrix)), scaled.matrix.dtype)
    sums = np.empty(destination.shape, scaled.matrix.dtype)
    return gemm_kernel(scaled, rows, columns, sums, destination)
