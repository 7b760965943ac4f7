"""Gemm and MatMul: one exact float GEMM a node, see `accumulate`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.espdl.weights import block_size, unpack_filter, unpack_matrices
from espdl_hil.operators.accumulate import matrix_kernel, scaled_weights
from espdl_hil.operators.broadcast import broadcast
from espdl_hil.operators.kernel import Kernel, in_order
from espdl_hil.operators.numeric import limits
from espdl_hil.operators.problem import NodeProblem
from espdl_hil.operators.products import (
    LANES,
    bias_flaws,
    bias_rules,
    filter_macs,
    filter_rules,
    fused_rules,
    products_of,
    saturation_of,
    shift_rules,
)
from espdl_hil.operators.saturation import Saturation, corrected
from espdl_hil.operators.signature import (
    BIAS,
    INTEGER_WIDTHS,
    STEP_VISITS,
    TENSOR,
    WEIGHT,
    Operator,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.espdl import Array, Shape
    from espdl_hil.operators.node import BoundNode, NodeView, PlacedNode


def _gemm_shapes(view: NodeView) -> list[Shape]:
    stored = view.shape_of(1)
    if len(stored) != 4 or stored[:2] != (1, 1) or not view.shape:
        raise NodeProblem(f"a filter of shape {stored}, ESP-DL takes (1, 1, C, N)")
    if view.shape[-1] != stored[2]:
        raise NodeProblem(f"the input {view.shape} has not the filter's {stored[2]} channels")
    return [(*view.shape[:-1], stored[3])]


def _gemm_rules(placed: PlacedNode) -> Iterator[str]:
    channels = placed.shape_of(1)[-1]
    for name in ("transA", "transB"):
        if placed.integer(name, 0) != 0:
            yield f"{name} is {placed.integer(name)}, the chip asserts that it is 0"
    for name in ("alpha", "beta"):
        if placed.number(name, 1.0) != 1.0:
            yield f"{name} is {placed.number(name)}, the chip does not read it"
    yield from fused_rules(placed)
    yield from filter_rules(placed, channels)
    yield from bias_rules(placed, channels)


def build_gemm(bound: BoundNode) -> Kernel:
    """Gemm over the last axis: ``sat(round((x @ w + b) * 2**-shift))``.

    Accumulators as in Conv, see `lanes`.

    Matches: ``Gemm::forward_template``, a 1 x 1 ``base::conv2d``.
    """
    stored = bound.input(1)
    n_k = unpack_filter(stored.array.reshape(-1), stored.shape, bound.target.name)
    weights = n_k.reshape(n_k.shape[0], -1).T
    rows = bound.input().array.reshape(-1, weights.shape[0])
    products = products_of(bound, weights)
    destination = bound.out.array.reshape(len(rows), -1)
    kernel = matrix_kernel(products, rows, destination)
    return corrected(kernel, saturation_of(bound, products), rows, rows, destination)


def _matmul_shapes(view: NodeView) -> list[Shape]:
    first, second = view.shape_of(0), view.shape_of(1)
    if not first or not second or max(len(first), len(second)) > 4:
        raise NodeProblem(f"shapes {first} and {second}; ESP-DL takes 1 to 4 dimensions")
    if first[-1] != second[max(len(second) - 2, 0)]:
        raise NodeProblem(f"shapes {first} and {second} do not multiply")
    if len(first) == len(second) == 1:
        return [(1,)]
    if len(second) == 1:
        return [first[:-1]]
    if len(first) == 1:
        return [(*second[:-2], second[-1])]
    return [(*broadcast(first[:-2], second[:-2]), first[-2], second[-1])]


def _matmul_rules(placed: PlacedNode) -> Iterator[str]:
    """Matrix product; the second operand is read in packed order."""
    yield from fused_rules(placed)
    layout = placed.text("input1_layout", "packed")
    if layout != "packed" and not _packing_is_identity(placed):
        yield (
            f"the second operand has layout {layout!r}; ESP-DL 3.3 does not read that attribute, "
            "takes the rows for packed blocks and multiplies other elements"
        )
    shift = placed.output().exponent - placed.info(0).exponent - placed.info(1).exponent
    yield from shift_rules(placed, shift, shift)


def _packing_is_identity(placed: PlacedNode) -> bool:
    shape = placed.shape_of(1)
    if len(shape) < 2 or 1 in shape[-2:]:
        return True
    return placed.target.packed_filters and shape[-1] == block_size(placed.info(1).dtype)


def build_matmul(bound: BoundNode) -> Kernel:
    """MatMul, broadcast over leading axes; the second operand is packed like a filter.

    Matches: ``MatMul::forward_template``, one 1 x 1 ``base::conv2d`` a matrix.
    """
    first, second = bound.input(), bound.input(1)
    rows = first.array[None] if first.array.ndim == 1 else first.array
    matrices = _logical(bound)
    batch = np.broadcast_shapes(rows.shape[:-2], matrices.shape[:-2])
    destination = bound.out.array.reshape(*batch, rows.shape[-2], matrices.shape[-1])
    rows = np.broadcast_to(rows, (*batch, *rows.shape[-2:]))
    if second.constant is None:
        return _computed_matmul(bound, rows, destination)
    matrices = np.broadcast_to(matrices, (*batch, *matrices.shape[-2:]))
    kernels = []
    for i in np.ndindex(*batch):
        products = products_of(bound, matrices[i])
        kernel = matrix_kernel(products, rows[i], destination[i])
        saturation = saturation_of(bound, products)
        kernels.append(corrected(kernel, saturation, rows[i], rows[i], destination[i]))
    return in_order(kernels)


def _logical(bound: BoundNode) -> Array:
    """The second operand as matrices (..., K, N)."""
    second = bound.input(1)
    matrices = unpack_matrices(second.array, second.shape, bound.target.name)
    return matrices[:, None] if matrices.ndim == 1 else matrices


def _computed_matmul(bound: BoundNode, rows: Array, destination: Array) -> Kernel:
    """MatMul whose second operand is computed by the graph; its weights are the worst case."""
    second, matrices = bound.input(1), _logical(bound)
    worst = np.full(matrices.shape[-2:], limits(second.dtype)[0], second.dtype)
    products = products_of(bound, worst)
    scaled = scaled_weights(products)
    if scaled is None:
        raise NodeProblem(f"{len(worst)} products a sum are more than the interpreter can hold")
    factors = scaled.matrix[0] / scaled.matrix.dtype.type(worst[0, 0])
    offset = scaled.matrix[-1]
    columns = np.empty(rows.shape, scaled.matrix.dtype)
    sums = np.empty(destination.shape, scaled.matrix.dtype)
    finish = scaled.finish(sums, destination)
    possible = saturation_of(bound, products) is not None and not bound.uniform

    def run() -> None:
        columns[...] = rows
        weights = _logical(bound)
        np.matmul(columns, weights * factors, out=sums)
        np.add(sums, offset, out=sums)
        finish()
        if possible:
            weights = np.broadcast_to(weights, (*rows.shape[:-2], *weights.shape[-2:]))
            for i in np.ndindex(*rows.shape[:-2]):
                exact = replace(products, weights=weights[i])
                Saturation(exact, bound.lanes[0]).correct(rows[i], rows[i], destination[i])

    return run


def _matmul_code(placed: PlacedNode) -> str:
    """How many columns are summed in lanes; a stored second operand has as many at every size."""
    if not placed.target.simd or placed.stored(1) is not None:
        return ""
    columns = placed.results[0][-1]
    block = block_size(placed.info(1).dtype)
    return f"{columns // block * block} of {columns} columns in lanes"


def _matmul_macs(view: NodeView, output: Shape) -> int:
    return math.prod(output) * view.shape[-1]


def _matmul_visits(_: NodeView, output: Shape) -> int:
    """Each matrix is prepared and multiplied by a kernel of its own."""
    return 64 * STEP_VISITS * math.prod(output[:-2])


OPERATORS = {
    "Gemm": Operator(
        build_gemm,
        _gemm_shapes,
        _gemm_rules,
        inputs=(TENSOR, WEIGHT, BIAS),
        flaws=bias_flaws,
        widths=INTEGER_WIDTHS,
        limits="no transA, transB, alpha, beta",
        arithmetic=LANES,
        macs=filter_macs,
    ),
    "MatMul": Operator(
        build_matmul,
        _matmul_shapes,
        _matmul_rules,
        inputs=(TENSOR, TENSOR),
        widths=INTEGER_WIDTHS,
        limits="1 to 4 dimensions, second operand packed",
        by_size=_matmul_code,
        arithmetic=LANES,
        macs=_matmul_macs,
        visits=_matmul_visits,
    ),
}
