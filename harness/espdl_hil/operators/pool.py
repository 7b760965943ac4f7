"""AveragePool, GlobalAveragePool and MaxPool."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.kernel import Kernel, in_order
from espdl_hil.operators.numeric import finisher, limits
from espdl_hil.operators.products import fused_rules
from espdl_hil.operators.signature import INTEGER_WIDTHS, SIMD, STEP_VISITS, Operator
from espdl_hil.operators.windows import (
    ONE_PICTURE,
    Geometry,
    geometry_of,
    one_picture_rules,
    padded_input,
    pads_of,
    per_axis,
    spatial_rank,
    window_bytes,
    window_lengths,
    window_rules,
    windows,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.espdl import Shape
    from espdl_hil.operators.node import BoundNode, NodeView, PlacedNode


def _pool_shapes(view: NodeView) -> list[Shape]:
    spatial = spatial_rank(view)
    kernel = per_axis(view, "kernel_shape", spatial)
    return [(view.shape[0], *window_lengths(view, kernel, (1,) * spatial), view.shape[-1])]


def _pool_rules(placed: PlacedNode) -> Iterator[str]:
    yield from one_picture_rules(placed)
    yield from fused_rules(placed)
    spatial = spatial_rank(placed)
    kernel, ones = placed.integers("kernel_shape"), (1,) * spatial
    if placed.integers("dilations", ones) != ones:
        yield f"dilations {placed.integers('dilations')}, the chip does not read them"
    yield from window_rules(placed, kernel, ones)
    pads, strides = pads_of(placed, spatial), placed.integers("strides")
    if placed.integer("ceil_mode", 0) and any(
        (placed.shape[1 + i] + pads[i] + pads[spatial + i] - kernel[i]) % strides[i]
        for i in range(spatial)
    ):
        yield "ceil_mode adds a window that the chip does not compute"


def _pool_geometry(bound: BoundNode) -> Geometry:
    return geometry_of(bound, per_axis(bound, "kernel_shape", len(bound.shape) - 2))


def build_average(bound: BoundNode) -> Kernel:
    """AveragePool.

    Matches: ``AveragePool::forward_template``.
    """
    return _average(bound, _pool_geometry(bound))


def _global_shapes(view: NodeView) -> list[Shape]:
    return [(1,) * (1 + spatial_rank(view)) + (view.shape[-1],)]


def build_global_average(bound: BoundNode) -> Kernel:
    """GlobalAveragePool: an AveragePool whose window is the input.

    Matches: ``GlobalAveragePool::forward_template``.
    """
    height, width = (*bound.input().shape[1:-1], 1)[:2]
    geometry = Geometry(
        kernel=(height, width),
        strides=(1, 1),
        dilations=(1, 1),
        pads=(0, 0, 0, 0),
        input_shape=(height, width, bound.input().shape[-1]),
        output_shape=(1, 1),
    )
    return _average(bound, geometry)


def _average(bound: BoundNode, geometry: Geometry) -> Kernel:
    """Sum of the valid elements times ``2**ei * (1 / area) * 2**-eo``, area of the whole window.

    Integer sums are exact; float sums are taken in the order of the C loops.

    Matches: ``base::avgpool2d_hwc``.
    """
    source, destination = bound.input(), bound.out
    area = geometry.kernel[0] * geometry.kernel[1]
    kind = np.dtype(np.float32 if source.is_float else np.int32)
    padded, load = padded_input(source.array, geometry, kind)
    views = windows(padded, geometry)
    sums = np.empty((*views.shape[:2], views.shape[-1]), kind)
    output = destination.array.reshape(sums.shape)
    inverse = np.float32(1) / np.float32(area)
    if source.is_float:
        taps = [views[:, :, i, j] for i, j in np.ndindex(*geometry.kernel)]

        def run_float() -> None:
            sums[...] = taps[0]
            for tap in taps[1:]:
                np.add(sums, tap, out=sums)
            np.multiply(sums, inverse, out=output)

        return in_order([*load, run_float])
    scale = source.scale * inverse * destination.rescale
    scaled = np.empty(sums.shape, np.float32)
    finish = finisher(scaled, output, bound.rounding)

    def run() -> None:
        np.add.reduce(views, axis=(2, 3), out=sums)
        scaled[...] = sums
        np.multiply(scaled, scale, out=scaled)
        finish()

    return in_order([*load, run])


def build_maximum(bound: BoundNode) -> Kernel:
    """MaxPool: the largest valid element; exponents are ignored.

    Matches: ``MaxPool::forward_template``, ``base::max_pool2d_hwc1``.
    """
    source, geometry = bound.input().array, _pool_geometry(bound)
    padded, load = padded_input(source, geometry, source.dtype, border=limits(source.dtype)[0])
    views = windows(padded, geometry)
    output = bound.out.array.reshape(*views.shape[:2], views.shape[-1])
    return in_order([*load, partial(np.maximum.reduce, views, axis=(2, 3), out=output)])


def _visits(view: NodeView, output: Shape) -> int:
    return (math.prod(output) + STEP_VISITS) * math.prod(view.integers("kernel_shape"))


def _global_visits(view: NodeView, output: Shape) -> int:
    return (math.prod(output) + STEP_VISITS) * math.prod(view.shape[1:-1])


OPERATORS = {
    "AveragePool": Operator(
        build_average,
        _pool_shapes,
        _pool_rules,
        limits=f"{ONE_PICTURE}, no dilation",
        arithmetic=(SIMD,),
        visits=_visits,
        scratch=window_bytes,
    ),
    "GlobalAveragePool": Operator(
        build_global_average,
        _global_shapes,
        one_picture_rules,
        limits=ONE_PICTURE,
        arithmetic=(SIMD,),
        visits=_global_visits,
    ),
    "MaxPool": Operator(
        build_maximum,
        _pool_shapes,
        _pool_rules,
        widths=INTEGER_WIDTHS,
        limits=f"{ONE_PICTURE}, no dilation",
        arithmetic=(SIMD,),
        copies=True,
        visits=_visits,
        scratch=window_bytes,
    ),
}
