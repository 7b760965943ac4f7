"""Sliding windows over (H, W, C): geometry, what the chip asks of it, strided views. No sums."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.operators.kernel import Kernel, copier
from espdl_hil.operators.problem import NodeProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.espdl import Array, Shape
    from espdl_hil.operators.node import BoundNode, NodeView, PlacedNode

ONE_PICTURE = "(1, W, C) or (1, H, W, C)"


def pads_of(view: NodeView, spatial: int) -> Shape:
    """Pads as (begin..., end...) over the *spatial* axes; ESP-DL takes 0, 2 or 4 of them.

    Raises:
        NodeProblem: Another number of pads.
    """
    pads = view.integers("pads", ())
    if len(pads) == 0:
        return (0,) * (2 * spatial)
    if len(pads) != 2 * spatial:
        raise NodeProblem(f"pads {pads} do not fit {spatial} spatial axes")
    return pads


def spatial_rank(view: NodeView) -> int:
    """1 for (N, W, C), 2 for (N, H, W, C).

    Raises:
        NodeProblem: Another rank.
    """
    rank = len(view.shape)
    if rank not in (3, 4):
        raise NodeProblem(f"input of {rank} dimensions, ESP-DL takes (N, W, C) or (N, H, W, C)")
    return rank - 2


def per_axis(view: NodeView, name: str, spatial: int, default: Shape | None = None) -> Shape:
    """One positive integer a spatial axis.

    Raises:
        NodeProblem: Too few, or one that is not positive.
    """
    values = view.integers(name, default)
    if len(values) != spatial or any(v < 1 for v in values):
        raise NodeProblem(f"attribute {name} {values} does not fit {spatial} spatial axes")
    return values


def window_lengths(view: NodeView, kernel: Shape, dilations: Shape) -> Shape:
    """Spatial lengths of what a sliding window makes of the first input.

    Raises:
        NodeProblem: The window is longer than the padded input.
    """
    spatial = len(kernel)
    pads, strides = pads_of(view, spatial), per_axis(view, "strides", spatial)
    lengths = []
    for i in range(spatial):
        padded = view.shape[1 + i] + pads[i] + pads[spatial + i]
        span = dilations[i] * (kernel[i] - 1) + 1
        if span > padded:
            raise NodeProblem(f"the kernel spans {span} of axis {1 + i}, padded to {padded}")
        lengths.append((padded - span) // strides[i] + 1)
    return tuple(lengths)


def window_bytes(view: NodeView, _: Shape) -> int:
    """The padded input, as wide as any kernel wants it."""
    spatial = spatial_rank(view)
    pads, lengths = pads_of(view, spatial), view.shape[1:-1]
    padded = (length + pads[i] + pads[spatial + i] for i, length in enumerate(lengths))
    return 8 * math.prod(padded) * view.shape[-1]


def filter_bytes(view: NodeView, output: Shape) -> int:
    """The padded input, and all its windows gathered into rows."""
    return window_bytes(view, output) + math.prod(output[:-1]) * math.prod(view.shape_of(1)[:-1])


def one_picture_rules(placed: PlacedNode) -> Iterator[str]:
    """The chip takes a batch of 1."""
    if placed.shape[0] != 1:
        yield f"a batch of {placed.shape[0]}, the kernel computes the first one only"


def window_rules(placed: PlacedNode, kernel: Shape, dilations: Shape) -> Iterator[str]:
    """A window that lies in the padding alone gives the kernels a width of 0 or less."""
    spatial = len(kernel)
    pads, strides = pads_of(placed, spatial), placed.integers("strides")
    for i in range(spatial):
        length, span = placed.shape[1 + i], dilations[i] * (kernel[i] - 1) + 1
        last = (placed.results[0][1 + i] - 1) * strides[i] - pads[i]
        if min(pads[i], pads[spatial + i]) < 0:
            yield f"pads {pads} are negative"
        elif pads[i] >= span or last >= length:
            yield f"a window of axis {1 + i} lies in the padding alone"


@dataclass(frozen=True)
class Geometry:
    """Windows of a Conv or pooling node; one spatial axis counts as height, of width 1.

    Attributes:
        kernel: (KH, KW).
        strides: (SH, SW).
        dilations: (DH, DW).
        pads: (top, left, bottom, right) elements.
        input_shape: (H, W, C).
        output_shape: (OH, OW).
    """

    kernel: Shape
    strides: Shape
    dilations: Shape
    pads: Shape
    input_shape: Shape
    output_shape: Shape

    @property
    def padded(self) -> bool:
        """Whether any window leaves the input."""
        return any(self.pads)


def geometry_of(bound: BoundNode, kernel: Shape, dilations: Shape | None = None) -> Geometry:
    """The node's windows.

    Args:
        bound: A node with one spatial input of batch 1.
        kernel: Window, one entry a spatial axis.
        dilations: Like *kernel*; None for 1.

    Raises:
        NodeProblem: The chip would read behind the input.
    """
    spatial = spatial_rank(bound)
    pads = pads_of(bound, spatial)
    strides = per_axis(bound, "strides", spatial, (1,) * spatial)
    dilations = dilations or (1,) * spatial
    _check_short_input(bound.input().shape[1:-1], kernel, strides, dilations, pads)
    ones, none = (1,) * (2 - spatial), (0,) * (2 - spatial)
    return Geometry(
        kernel=kernel + ones,
        strides=strides + ones,
        dilations=dilations + ones,
        pads=pads[:spatial] + none + pads[spatial:] + none,
        input_shape=bound.input().shape[1:-1] + ones + bound.input().shape[-1:],
        output_shape=bound.out.shape[1:-1] + ones,
    )


def _check_short_input(
    lengths: Shape, kernel: Shape, strides: Shape, dilations: Shape, pads: Shape
) -> None:
    """Refuse a window that only the padding behind a short input makes room for.

    ESP-DL counts whole windows as ``(length + head - span) / stride + 1``. When that numerator is
    negative but above ``-stride``, C rounds it to 0, and one whole window is taken that is not.

    Matches: ``conv_operation_shell``, ``avg_pool_shell``.
    """
    if not any(pads):
        return  # the loops without padding do not count
    for i, length in enumerate(lengths):
        span = dilations[i] * (kernel[i] - 1) + 1
        if pads[i] == 0 and -strides[i] < length - span < 0:
            raise NodeProblem(
                f"axis {1 + i} has {length} of the {span} elements that a window spans, and "
                "padding behind; with a stride the chip takes that window for a whole one and "
                "reads behind the input"
            )


def windows(padded: Array, geometry: Geometry) -> Array:
    """A read-only view (OH, OW, KH, KW, C) of a padded input (H + pads, W + pads, C)."""
    h, w, c = padded.strides
    (sh, sw), (dh, dw) = geometry.strides, geometry.dilations
    return np.lib.stride_tricks.as_strided(
        padded,
        (*geometry.output_shape, *geometry.kernel, padded.shape[2]),
        (h * sh, w * sw, h * dh, w * dw, c),
        writeable=False,
    )


def padded_input(
    source: Array, geometry: Geometry, dtype: np.dtype[Any], border: int = 0
) -> tuple[Array, list[Kernel]]:
    """The input of *geometry*, padded and of another type if need be.

    Args:
        source: (1, ..., C), the node's input.
        geometry: The windows.
        dtype: Of the result; holds every input exactly.
        border: Value of the pads.

    Returns:
        (H + pads, W + pads, C), and what copies the input into its middle; nothing has to when
        there are no pads and the type is the input's own.
    """
    plain = source.reshape(geometry.input_shape)
    if not geometry.padded and plain.dtype == dtype:
        return plain, []
    top, left, bottom, right = geometry.pads
    height, width, channels = geometry.input_shape
    array = np.full((height + top + bottom, width + left + right, channels), border, dtype)
    return array, [copier(plain, array[top : top + height, left : left + width])]
