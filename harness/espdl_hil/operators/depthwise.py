"""Depthwise Conv: one multiply-add of a shifted input for each tap, in exact floats."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.accumulate import Products, ScaledWeights, scaled_weights, settle_integers
from espdl_hil.operators.kernel import Kernel, in_order
from espdl_hil.operators.products import saturation_of
from espdl_hil.operators.windows import Geometry, padded_input, windows

if TYPE_CHECKING:
    from espdl_hil.espdl import Array
    from espdl_hil.operators.node import BoundNode

BLOCK_ELEMENTS = 16 * 1024  # one block's sums stay in the first cache levels over all taps


def depthwise_kernel(bound: BoundNode, geometry: Geometry, products: Products) -> Kernel:
    """A kernel for a depthwise convolution; the *products* are KH * KW by C.

    Matches: ``base::depthwise_conv2d``.
    """
    scaled = scaled_weights(products)
    kind = np.dtype(np.int64) if scaled is None else scaled.matrix.dtype
    source = bound.input().array
    padded, kernels = padded_input(source, geometry, kind)
    views = windows(padded, geometry)
    taps = [views[:, :, i, j] for i, j in np.ndindex(*geometry.kernel)]
    destination = bound.out.array.reshape(taps[0].shape)
    if scaled is None:
        kernels.append(_integer_taps(products, taps, destination))
    else:
        kernels += _blocks(scaled, taps, destination)
    saturation = saturation_of(bound, products)
    if saturation is not None:
        kernels.append(partial(saturation.correct_taps, taps, source, destination))
    return in_order(kernels)


def _integer_taps(products: Products, taps: list[Array], destination: Array) -> Kernel:
    weights = products.weights.astype(np.int64)

    def run() -> None:
        sums = sum((tap * w for tap, w in zip(taps, weights, strict=True)), np.int64(0))
        settle_integers(products, np.asarray(sums), destination)

    return run


def _blocks(scaled: ScaledWeights, taps: list[Array], destination: Array) -> list[Kernel]:
    """One kernel for every few output lines; they share their buffers."""
    oh, ow, channels = destination.shape
    lines = max(1, min(oh, BLOCK_ELEMENTS // (ow * channels)))
    # weights repeated along a line (a block, if lines are single elements) keep inner loops long
    repeated = (lines if ow == 1 else 1, ow, channels)
    weights = [np.ascontiguousarray(np.broadcast_to(row, repeated)) for row in scaled.matrix]
    sums, product = (np.empty((lines, ow, channels), scaled.matrix.dtype) for _ in range(2))
    kernels = []
    for first in range(0, oh, lines):
        part = destination[first : first + lines]
        picked = [tap[first : first + lines] for tap in taps]
        rows = [row[: len(part)] for row in weights]
        kernels.append(_block(scaled, picked, rows, sums[: len(part)], product[: len(part)], part))
    return kernels


def _block(
    scaled: ScaledWeights,
    taps: list[Array],
    weights: list[Array],
    sums: Array,
    product: Array,
    destination: Array,
) -> Kernel:
    first, first_weight, bias = taps[0], weights[0], weights[-1]
    others = list(zip(taps[1:], weights[1:-1], strict=True))
    finish = scaled.finish(sums, destination)

    def run() -> None:
        np.multiply(first, first_weight, out=sums)
        for tap, weight in others:
            np.multiply(tap, weight, out=product)
            np.add(sums, product, out=sums)
        np.add(sums, bias, out=sums)
        finish()

    return run
