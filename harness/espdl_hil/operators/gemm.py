"""Gemm and MatMul: one exact float GEMM a node, see `accumulate`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.espdl.weights import unpack_filter, unpack_matrices
from espdl_hil.operators.accumulate import Products, integer_product, scaled_weights
from espdl_hil.operators.node_view import NodeProblem
from espdl_hil.operators.numeric import limits
from espdl_hil.operators.prepare import in_order
from espdl_hil.operators.s3_accumulator import watch

if TYPE_CHECKING:
    from espdl_hil.espdl import Array
    from espdl_hil.operators.prepare import Kernel, Op


def products_of(op: Op, weights: Array) -> Products:
    """The node's products, with bias, shifts and activation.

    Args:
        op: Conv, Gemm or MatMul; inputs 0 and 1, and 2 for a bias.
        weights: (K, N) in logical order.
    """
    channels = weights.shape[1]
    bias = op.optional(2)
    filter_exponents = np.array(op.input(1).exponents, np.int64)
    shift = op.out.exponent - op.input().exponent - filter_exponents
    return Products(
        weights=weights,
        bias=np.zeros(channels, np.int64) if bias is None else bias.array.astype(np.int64),
        shift=np.broadcast_to(shift, (channels,)),
        rounding=op.rounding,
        relu=op.view.text("activation", "Linear") == "Relu",
        out_type=op.out.dtype,
    )


def build_gemm(op: Op) -> Kernel:
    """Gemm over the last axis: ``sat(round((x @ w + b) * 2**-shift))``.

    Matches: ``Gemm::forward_template``, a 1 x 1 ``base::conv2d``.
    """
    stored = op.input(1)
    n_k = unpack_filter(stored.array.reshape(-1), stored.shape, op.target.name)
    weights = n_k.reshape(n_k.shape[0], -1).T
    rows = op.input().array.reshape(-1, weights.shape[0])
    products = products_of(op, weights)
    watch(op, products, lambda: rows)
    return matrix_kernel(products, rows, op.out.array.reshape(len(rows), -1))


def matrix_kernel(products: Products, rows: Array, destination: Array) -> Kernel:
    """A kernel for ``destination = finish(rows @ weights)``.

    Args:
        products: What is multiplied, K x N.
        rows: (M, K) of the input's type, a view of the input.
        destination: (M, N) of the output's type, a view of the output.
    """
    scaled = scaled_weights(products)
    if scaled is None:
        return integer_product(products, rows, destination)
    matrix = scaled.matrix
    columns = np.ones((len(rows), len(matrix)), matrix.dtype)
    inner = columns[:, :-1]
    sums = np.empty((len(rows), matrix.shape[1]), matrix.dtype)
    finish = scaled.finish(sums, destination)

    def run() -> None:
        inner[...] = rows
        np.dot(columns, matrix, out=sums)
        finish()

    return run


def build_matmul(op: Op) -> Kernel:
    """MatMul, broadcast over leading axes; the second operand is packed like a filter.

    Matches: ``MatMul::forward_template``, one 1 x 1 ``base::conv2d`` a matrix.
    """
    first, second = op.input(), op.input(1)
    rows = first.array[None] if first.array.ndim == 1 else first.array
    matrices = _logical(op)
    batch = np.broadcast_shapes(rows.shape[:-2], matrices.shape[:-2])
    destination = op.out.array.reshape(*batch, rows.shape[-2], matrices.shape[-1])
    rows = np.broadcast_to(rows, (*batch, *rows.shape[-2:]))
    if second.constant is None:
        return _computed_matmul(op, rows, destination)
    matrices = np.broadcast_to(matrices, (*batch, *matrices.shape[-2:]))
    kernels = []
    for i in np.ndindex(*batch):
        products = products_of(op, matrices[i])
        watch(op, products, partial(rows.__getitem__, i))
        kernels.append(matrix_kernel(products, rows[i], destination[i]))
    return in_order(kernels)


def _logical(op: Op) -> Array:
    """The second operand as matrices (..., K, N)."""
    second = op.input(1)
    matrices = unpack_matrices(second.array, second.shape, op.target.name)
    return matrices[:, None] if matrices.ndim == 1 else matrices


def _computed_matmul(op: Op, rows: Array, destination: Array) -> Kernel:
    """MatMul whose second operand is computed by the graph; its weights are the worst case."""
    second, matrices = op.input(1), _logical(op)
    worst = np.full(matrices.shape[-2:], limits(second.dtype)[0], second.dtype)
    products = products_of(op, worst)
    scaled = scaled_weights(products)
    if scaled is None:
        raise NodeProblem(f"{len(worst)} products a sum are more than the interpreter can hold")
    factors = scaled.matrix[0] / scaled.matrix.dtype.type(worst[0, 0])
    offset = scaled.matrix[-1]
    columns = np.empty(rows.shape, scaled.matrix.dtype)
    sums = np.empty(destination.shape, scaled.matrix.dtype)
    finish = scaled.finish(sums, destination)

    def run() -> None:
        columns[...] = rows
        np.matmul(columns, _logical(op) * factors, out=sums)
        np.add(sums, offset, out=sums)
        finish()

    return run
