"""Resize of int8: nearest and linear, over one or two spatial axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.layout import gatherer
from espdl_hil.operators.numeric import quantized
from espdl_hil.operators.tables import lookup, tabulate

if TYPE_CHECKING:
    from espdl_hil.espdl import Array, Shape
    from espdl_hil.operators.prepare import Kernel, Op

HALF = np.float32(0.5)
ONE = np.float32(1)


def build_resize(op: Op) -> Kernel:
    """Resize. The coordinate modes are two: ``align_corners`` and, for linear, half pixel.

    Nearest takes ``int(index / scale)``, whatever the node's ``nearest_mode`` says.

    Matches: ``Resize::forward_template``, ``base::resize<int8_t>``.
    """
    mode = op.view.text("mode", "nearest")
    return _nearest(op) if mode == "nearest" else _linear(op)


def _scales(op: Op) -> list[np.float32]:
    """Scale of each spatial axis, float32."""
    before, after = op.input().shape[1:-1], op.out.shape[1:-1]
    if op.view.constant_integers(3):
        return [np.float32(m) / np.float32(n) for n, m in zip(before, after, strict=True)]
    stored = op.view.constant(2)
    assert stored is not None  # the shapes were inferred from it
    return [np.float32(scale) for scale in stored[2:]]


def _nearest(op: Op) -> Kernel:
    source = op.input()
    shape, output = source.shape[1:-1], op.out.shape[1:-1]
    scales = _scales(op)
    rows = [
        np.minimum((np.arange(m).astype(np.float32) * (ONE / scale)).astype(np.int64), n - 1)
        for n, m, scale in zip(shape, output, scales, strict=True)
    ]
    places = np.arange(source.array.size).reshape(*shape, -1)
    gather = gatherer(op, places[np.ix_(*rows)])
    if source.exponent == op.out.exponent:
        return gather
    ratio = np.ldexp(ONE, source.exponent - op.out.exponent)

    table = tabulate(
        lambda q: quantized(q.astype(np.float32) * ratio, op.rounding, q.dtype), source.dtype
    )
    rescale = lookup(op.out.array, op.out.array, table)

    def run() -> None:
        gather()
        rescale()

    return run


@dataclass(frozen=True)
class Axis:
    """Linear interpolation along one axis.

    Attributes:
        first: (n,) index of the left neighbour of each output element.
        left: (n,) float32 weight of the left neighbour.
        right: (n,) float32 weight of the right one.
    """

    first: Array
    left: Array
    right: Array


def linear_axis(before: int, after: int, scale: np.float32, *, align_corners: bool) -> Axis:
    """Neighbours and weights.

    Args:
        before: Input length, 2 or more.
        after: Output length.
        scale: Output length over input length.
        align_corners: First and last elements stand for each other.

    Matches: ``base::linear_coeffs``.
    """
    index = np.arange(after).astype(np.float32)
    if align_corners:
        place = index * (ONE / (np.float32(after - 1) / np.float32(before - 1)))
    else:
        place = (index + HALF) * (ONE / scale) - HALF
    first = np.floor(place).astype(np.int64)
    right = place - first.astype(np.float32)
    right[first < 0] = 0
    first = np.maximum(first, 0)
    right[first >= before - 1] = 1
    first = np.minimum(first, before - 2)
    return Axis(first, ONE - right, right)


def _linear(op: Op) -> Kernel:
    source, output = op.input(), op.out
    corners = op.view.text("coordinate_transformation_mode", "half_pixel") == "align_corners"
    shape: Shape = source.shape[1:-1]
    axes = [
        linear_axis(n, m, scale, align_corners=corners)
        for n, m, scale in zip(shape, output.shape[1:-1], _scales(op), strict=True)
    ]
    x, y, scale = source.array[0], output.array[0], source.scale

    def run() -> None:
        real = x * scale
        for axis, along in reversed(list(enumerate(axes))):
            weight = (slice(None), *(None,) * (real.ndim - 1 - axis))
            left = real.take(along.first, axis) * along.left[weight]
            real = left + real.take(along.first + 1, axis) * along.right[weight]
        y[...] = quantized(real * output.rescale, op.rounding, y.dtype)

    return run
