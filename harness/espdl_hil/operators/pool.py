"""AveragePool, GlobalAveragePool and MaxPool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.numeric import limits, rounder
from espdl_hil.operators.shapes import per_axis
from espdl_hil.operators.windows import Geometry, geometry_of, padded_input, windows

if TYPE_CHECKING:
    from espdl_hil.operators.prepare import Kernel, Op


def build_pool(op: Op) -> Kernel:
    """AveragePool or MaxPool.

    Matches: ``AveragePool::forward_template``, ``MaxPool::forward_template``.
    """
    spatial = len(op.input().shape) - 2
    geometry = geometry_of(op, per_axis(op.view, "kernel_shape", spatial))
    return _average(op, geometry) if op.op_type == "AveragePool" else _maximum(op, geometry)


def build_global_average(op: Op) -> Kernel:
    """GlobalAveragePool: an AveragePool whose window is the input.

    Matches: ``GlobalAveragePool::forward_template``.
    """
    height, width = (*op.input().shape[1:-1], 1)[:2]
    geometry = Geometry(
        kernel=(height, width),
        strides=(1, 1),
        dilations=(1, 1),
        pads=(0, 0, 0, 0),
        input_shape=(height, width, op.input().shape[-1]),
        output_shape=(1, 1),
    )
    return _average(op, geometry)


def _average(op: Op, geometry: Geometry) -> Kernel:
    """Sum of the valid elements times ``2**ei * (1 / area) * 2**-eo``, area of the whole window.

    Integer sums are exact; float sums are taken in the order of the C loops.

    Matches: ``base::avgpool2d_hwc``.
    """
    source, destination = op.input(), op.out
    area = geometry.kernel[0] * geometry.kernel[1]
    kind = np.dtype(np.float32 if source.is_float else np.int32)
    padded = padded_input(source.array, geometry, kind)
    views = windows(padded.array, geometry)
    taps = [views[:, :, i, j] for i in range(views.shape[2]) for j in range(views.shape[3])]
    sums = np.empty(taps[0].shape, kind)
    output = destination.array.reshape(sums.shape)
    inverse = np.float32(1) / np.float32(area)

    def add_up() -> None:
        if padded.load is not None:
            padded.load()
        if kind != np.float32 and len(taps) > 1:
            np.add.reduce(views, axis=(2, 3), out=sums)
            return
        sums[...] = taps[0]
        for tap in taps[1:]:
            np.add(sums, tap, out=sums)

    if source.is_float:

        def run_float() -> None:
            add_up()
            np.multiply(sums, inverse, out=output)

        return run_float
    scale = source.scale * inverse * destination.rescale
    scaled = np.empty(sums.shape, np.float32)
    settle = rounder(op.rounding)
    low, high = (np.float32(bound) for bound in limits(destination.dtype))

    def run() -> None:
        add_up()
        scaled[...] = sums
        np.multiply(scaled, scale, out=scaled)
        settle(scaled)
        scaled.clip(low, high, out=scaled)
        output[...] = scaled

    return run


def _maximum(op: Op, geometry: Geometry) -> Kernel:
    """Largest valid element; exponents are ignored.

    Matches: ``base::max_pool2d_hwc1``.
    """
    source = op.input().array
    padded = padded_input(source, geometry, source.dtype, border=limits(source.dtype)[0])
    views = windows(padded.array, geometry)
    output = op.out.array.reshape(*views.shape[:2], views.shape[-1])

    def run() -> None:
        if padded.load is not None:
            padded.load()
        np.maximum.reduce(views, axis=(2, 3), out=output)

    return run
