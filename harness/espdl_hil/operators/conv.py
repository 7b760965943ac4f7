"""Conv: windows copied into rows, one exact float GEMM over blocks of rows.

::

    input (H, W, C) -> padded -> rows (OH*OW, KH*KW*C + 1) @ weights (KH*KW*C + 1, N) -> output
                                                        ^ a column of ones meets the bias
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.espdl.weights import unpack_filter
from espdl_hil.operators.accumulate import (
    Products,
    ScaledWeights,
    gemm_kernel,
    integer_product,
    matrix_kernel,
    scaled_weights,
)
from espdl_hil.operators.depthwise import depthwise_kernel
from espdl_hil.operators.kernel import Kernel, copier, in_order
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
)
from espdl_hil.operators.saturation import Saturation, corrected
from espdl_hil.operators.signature import BIAS, INTEGER_WIDTHS, TENSOR, WEIGHT, Operator
from espdl_hil.operators.windows import (
    ONE_PICTURE,
    Geometry,
    filter_bytes,
    geometry_of,
    one_picture_rules,
    padded_input,
    per_axis,
    spatial_rank,
    window_lengths,
    window_rules,
    windows,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.espdl import Array, Shape
    from espdl_hil.operators.node import BoundNode, NodeView, PlacedNode

BLOCK_ELEMENTS = 128 * 1024  # rows of one block and their sums stay in a core's second-level cache
DENSE_MACS = 200_000  # a small depthwise filter is cheaper as a dense one: fewer numpy calls


def _conv_shapes(view: NodeView) -> list[Shape]:
    spatial, stored = spatial_rank(view), view.shape_of(1)
    if len(stored) != spatial + 2:
        raise NodeProblem(f"a filter of shape {stored} does not fit {spatial} spatial axes")
    group, channels = view.integer("group", 1), view.shape[-1]
    if group not in (1, channels):
        raise NodeProblem(
            f"group {group} with {channels} channels; ESP-DL takes group 1 or depthwise"
        )
    if stored[-2] != channels:
        raise NodeProblem(f"a filter of shape {stored} does not fit {channels} channels")
    dilations = per_axis(view, "dilations", spatial)
    lengths = window_lengths(view, stored[:spatial], dilations)
    return [(view.shape[0], *lengths, stored[-1] if group == 1 else channels)]


def _conv_rules(placed: PlacedNode) -> Iterator[str]:
    depthwise = placed.integer("group", 1) != 1
    channels = placed.shape_of(1)[-2 if depthwise else -1]
    if depthwise and placed.shape_of(1)[-1] != 1:
        yield f"a depthwise filter of shape {placed.shape_of(1)}, ESP-DL takes one of each channel"
    yield from one_picture_rules(placed)
    yield from fused_rules(placed)
    spatial = spatial_rank(placed)
    kernel, dilations = placed.shape_of(1)[:spatial], placed.integers("dilations")
    yield from window_rules(placed, kernel, dilations)
    yield from filter_rules(placed, channels)
    yield from bias_rules(placed, channels)


def build_conv(bound: BoundNode) -> Kernel:
    """Conv, one or two spatial axes, dense or depthwise.

    ``sat(round(sum(x * w) + bias) * 2**-shift)``, pads contribute 0, shift per output channel.
    On chips the accumulators saturate while they sum, see `lanes`; in C they wrap.

    Matches: ``base::conv2d``, ``base::depthwise_conv2d``.
    """
    group = bound.integer("group", 1)
    stored = bound.input(1)
    taps = unpack_filter(
        stored.array.reshape(-1), stored.shape, bound.target.name, depthwise=group != 1
    )
    n, kh, kw, _ = taps.shape
    spatial = len(bound.input().shape) - 2
    kernel = (kh, kw)[2 - spatial :]
    geometry = geometry_of(bound, kernel, per_axis(bound, "dilations", spatial, (1,) * spatial))
    products = products_of(bound, taps.reshape(n, -1).T, taps=kh * kw, depthwise=group != 1)
    rows = geometry.output_shape[0] * geometry.output_shape[1]
    if group == 1 or rows * kh * kw * n * n <= DENSE_MACS:
        dense = products if group == 1 else _as_dense(products)
        return dense_kernel(bound, geometry, dense)
    return depthwise_kernel(bound, geometry, products)


def _as_dense(products: Products) -> Products:
    """A depthwise filter (K, N) as a dense one (K * N, N), mostly zero."""
    k, n = products.weights.shape
    weights = np.zeros((k, n, n), products.weights.dtype)
    weights[:, np.arange(n), np.arange(n)] = products.weights
    return replace(products, weights=weights.reshape(k * n, n))


def dense_kernel(bound: BoundNode, geometry: Geometry, products: Products) -> Kernel:
    """A kernel for a dense convolution; the *products* are KH * KW * C by N."""
    saturation = saturation_of(bound, products)
    source, channels = bound.input().array, products.weights.shape[1]
    oh, ow = geometry.output_shape
    destination = bound.out.array.reshape(oh * ow, channels)
    if geometry.kernel == (1, 1) and geometry.strides == (1, 1) and not geometry.padded:
        rows = source.reshape(oh * ow, -1)
        if rows.size + destination.size <= 2 * BLOCK_ELEMENTS:
            return corrected(
                matrix_kernel(products, rows, destination), saturation, rows, source, destination
            )
    padded, kernels = padded_input(source, geometry, source.dtype)
    views = windows(padded, geometry)
    scaled = scaled_weights(products)
    if scaled is None:
        columns = np.empty((len(destination), len(products.weights)), views.dtype)
        product = integer_product(products, columns, destination)
        kernels += [
            copier(views, columns.reshape(views.shape)),
            corrected(product, saturation, columns, source, destination),
        ]
    else:
        kernels += _blocks(scaled, views, source, destination, saturation)
    return in_order(kernels)


def _blocks(
    scaled: ScaledWeights,
    views: Array,
    source: Array,
    destination: Array,
    saturation: Saturation | None,
) -> list[Kernel]:
    """One kernel for every few output lines; they share their buffers."""
    oh, ow = views.shape[:2]
    k, n = scaled.matrix.shape
    lines = max(1, min(oh, BLOCK_ELEMENTS // (ow * max(k, n))))
    columns = np.ones((lines * ow, k), scaled.matrix.dtype)
    sums = np.empty((lines * ow, n), scaled.matrix.dtype)
    kernels = []
    for first in range(0, oh, lines):
        picked = views[first : first + lines]
        part = destination[first * ow : (first + lines) * ow]
        rows = slice(0, len(part))
        block = gemm_kernel(scaled, picked, columns[rows], sums[rows], part)
        kernels.append(corrected(block, saturation, columns[rows, :-1], source, part))
    return kernels


OPERATORS = {
    "Conv": Operator(
        build_conv,
        _conv_shapes,
        _conv_rules,
        inputs=(TENSOR, WEIGHT, BIAS),
        flaws=bias_flaws,
        widths=INTEGER_WIDTHS,
        limits=f"{ONE_PICTURE}, group 1 or depthwise, Relu or nothing behind it; exponents per "
        "channel on esp32p4",
        arithmetic=LANES,
        macs=filter_macs,
        scratch=filter_bytes,
    )
}
