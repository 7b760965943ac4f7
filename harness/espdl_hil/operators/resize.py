"""Resize of int8: nearest and linear, over one or two spatial axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.espdl.weights import block_size
from espdl_hil.operators.detour import MoreChannels
from espdl_hil.operators.kernel import Kernel, gatherer, in_order
from espdl_hil.operators.node import INT32_MAX, BoundNode, NodeView, PlacedNode
from espdl_hil.operators.numeric import HALF, MAX_SCALE_BITS, quantized
from espdl_hil.operators.problem import NodeProblem
from espdl_hil.operators.signature import LENGTHS_OPTIONAL, TENSOR, Arithmetic, Operator, fixed
from espdl_hil.operators.tables import lookup, tabulate
from espdl_hil.operators.windows import ONE_PICTURE, one_picture_rules, spatial_rank

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.espdl import Array, Shape

ONE = np.float32(1)
SINGLE = {"pytorch_half_pixel": "half_pixel", "align_corners": "a division by zero"}


def _resize_shapes(view: NodeView) -> list[Shape]:
    spatial = spatial_rank(view)
    sizes = view.constant_integers(3)
    if sizes:
        if len(sizes) != spatial + 2:
            raise NodeProblem(f"sizes {sizes} do not fit the input {view.shape}")
        return [(view.shape[0], *sizes[2:], view.shape[-1])]
    scales = view.constant(2)
    if scales is None or len(scales) != spatial + 2 or scales.dtype != "<f4":
        raise NodeProblem("neither sizes nor float32 scales for every axis")
    if not all(0 < scale < INT32_MAX for scale in scales.tolist()):
        raise NodeProblem(f"scales {scales.tolist()} are not positive numbers")
    # int(length * scale) in float32, as the chip computes it
    lengths = (int(scales[2 + i] * scales.dtype.type(view.shape[1 + i])) for i in range(spatial))
    return [(view.shape[0], *lengths, view.shape[-1])]


def _resize_rules(placed: PlacedNode) -> Iterator[str]:
    yield from one_picture_rules(placed)
    if placed.has(1) and placed.info(1).size:
        yield "a region of interest, the chip does not read it"
    if placed.integer("antialias", 0):
        yield "antialias, the chip does not read it"
    scales = None if placed.constant_integers(3) else placed.constant(2)
    if scales is not None and tuple(scales[:2].tolist()) != (1.0, 1.0):
        yield f"scales {scales.tolist()} change the batch or the channels"
    mode = placed.text("mode", "nearest")
    if mode == "nearest":
        yield from _nearest_rules(placed)
    elif mode == "linear":
        yield from _linear_rules(placed)
    else:
        yield f"mode {mode!r}, ESP-DL has nearest and linear"


def _nearest_rules(placed: PlacedNode) -> Iterator[str]:
    transform = placed.text("coordinate_transformation_mode", "half_pixel")
    rounding = placed.text("nearest_mode", "round_prefer_floor")
    if (transform, rounding) != ("asymmetric", "floor"):
        yield f"nearest with {transform} and {rounding}, the chip does asymmetric and floor"
    finer = placed.info(0).exponent - placed.output().exponent
    if finer > 0 and not placed.target.simd:
        yield "the output is finer than the input; the portable kernel does not saturate"
    if finer > MAX_SCALE_BITS:
        yield f"the output is {finer} bits finer than the input, {MAX_SCALE_BITS} is the most"
    if finer < 0 and placed.target.name == "esp32p4":
        yield (
            f"the output is {-finer} bits coarser than the input; the chip does not set the "
            "rounding mode and floors unless another kernel set it before: keep the exponent, or "
            "requantize behind it"
        )
    if _is_garbage(placed):
        before, after = placed.shape[1:-1], placed.results[0][1:-1]
        yield (
            f"{placed.shape[-1]} channels from {before} to {after}: the vector kernels give "
            "garbage below 16 channels unless height and width are doubled; pad to 16 channels"
        )


def _is_garbage(placed: PlacedNode) -> bool:
    """Whether the rows of channels are shorter than the vector kernels take."""
    before, after = placed.shape[1:-1], placed.results[0][1:-1]
    twice = len(before) == 2 and after == tuple(2 * n for n in before)
    short = placed.shape[-1] < block_size(placed.info(0).dtype)
    return placed.target.simd and short and not twice


def _resize_detour(placed: PlacedNode) -> MoreChannels | None:
    if placed.text("mode", "nearest") != "nearest" or not _is_garbage(placed):
        return None
    return MoreChannels(block_size(placed.info(0).dtype), placed.shape[-1])


def _linear_rules(placed: PlacedNode) -> Iterator[str]:
    transform = placed.text("coordinate_transformation_mode", "half_pixel")
    if transform not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        yield f"linear with {transform}, the chip does half_pixel or align_corners"
    lengths = placed.shape[1:-1]
    if 1 in lengths:
        yield f"linear over {lengths}: the chip reads outside an axis of length 1"
    if transform != "half_pixel" and 1 in placed.results[0][1:-1]:
        yield f"{transform} to a length of 1, which the chip computes as {SINGLE[transform]}"


def build_resize(bound: BoundNode) -> Kernel:
    """Resize. The coordinate modes are two: ``align_corners`` and, for linear, half pixel.

    Nearest takes ``int(index / scale)``, whatever the node's ``nearest_mode`` says.

    Matches: ``Resize::forward_template``, ``base::resize<int8_t>``.
    """
    return _nearest(bound) if bound.text("mode", "nearest") == "nearest" else _linear(bound)


def _scales(bound: BoundNode) -> list[np.float32]:
    if bound.constant_integers(3):
        lengths = zip(bound.input().shape[1:-1], bound.out.shape[1:-1], strict=True)
        return [np.float32(after) / np.float32(before) for before, after in lengths]
    stored = bound.constant(2)
    assert stored is not None  # the shapes were inferred from it
    return [np.float32(scale) for scale in stored[2:]]


def _nearest(bound: BoundNode) -> Kernel:
    source = bound.input()
    shape, output = source.shape[1:-1], bound.out.shape[1:-1]
    scales = _scales(bound)
    rows = [
        np.minimum((np.arange(m).astype(np.float32) * (ONE / scale)).astype(np.int64), n - 1)
        for n, m, scale in zip(shape, output, scales, strict=True)
    ]
    places = np.arange(source.array.size).reshape(*shape, -1)
    gather = gatherer(source.array, bound.out.array, places[np.ix_(*rows)])
    if source.exponent == bound.out.exponent:
        return gather
    ratio = np.ldexp(ONE, source.exponent - bound.out.exponent)

    table = tabulate(
        lambda q: quantized(q.astype(np.float32) * ratio, bound.rounding, q.dtype), source.dtype
    )
    return in_order([gather, lookup(bound.out.array, bound.out.array, table)])


def linear_axis(
    before: int, after: int, scale: np.float32, *, align_corners: bool
) -> tuple[Array, Array]:
    """Linear interpolation along one axis.

    Args:
        before: Input length, 2 or more.
        after: Output length.
        scale: Output length over input length.
        align_corners: First and last elements stand for each other.

    Returns:
        (after,) index of the left neighbour, and (after,) float32 weight of the right one.

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
    return first, right


def _linear(bound: BoundNode) -> Kernel:
    source, output = bound.input(), bound.out
    corners = bound.text("coordinate_transformation_mode", "half_pixel") == "align_corners"
    shape: Shape = source.shape[1:-1]
    axes = [
        linear_axis(n, m, scale, align_corners=corners)
        for n, m, scale in zip(shape, output.shape[1:-1], _scales(bound), strict=True)
    ]
    x, y, scale = source.array[0], output.array[0], source.scale

    def run() -> None:
        real = x * scale
        for axis, (first, weight) in reversed(list(enumerate(axes))):
            right = weight[(slice(None), *(None,) * (real.ndim - 1 - axis))]
            real = real.take(first, axis) * (ONE - right) + real.take(first + 1, axis) * right
        y[...] = quantized(real * output.rescale, bound.rounding, y.dtype)

    return run


OPERATORS = {
    "Resize": Operator(
        build_resize,
        _resize_shapes,
        _resize_rules,
        detour=_resize_detour,
        inputs=(
            TENSOR,
            fixed("float32", optional=True),
            fixed("float32", constant=True, optional=True),
            LENGTHS_OPTIONAL,
        ),
        widths=("S8",),
        arithmetic=(
            Arithmetic("C", "linear", float_step_lsb=1, mode="linear"),
            Arithmetic("SIMD", "nearest, 16 channels or 2 x 2", mode="nearest"),
        ),
        limits=f"{ONE_PICTURE}, nearest or linear",
    )
}
