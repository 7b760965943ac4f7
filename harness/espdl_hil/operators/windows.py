"""Sliding windows over (H, W, C): geometry and strided views, no arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.operators.node_view import NodeProblem
from espdl_hil.operators.shapes import pads_of, per_axis, spatial_rank

if TYPE_CHECKING:
    from espdl_hil.espdl import Array, Shape
    from espdl_hil.operators.prepare import Kernel, Op


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


def geometry_of(op: Op, kernel: Shape, dilations: Shape | None = None) -> Geometry:
    """The node's windows.

    Args:
        op: A node with one spatial input of batch 1.
        kernel: Window, one entry a spatial axis.
        dilations: Like *kernel*; None for 1.

    Raises:
        NodeProblem: The chip would read behind the input.
    """
    spatial = spatial_rank(op.view)
    pads = pads_of(op.view, spatial)
    strides = per_axis(op.view, "strides", spatial, (1,) * spatial)
    _check_short_input(op.input().shape[1:-1], kernel, strides, dilations, pads)
    ones, none = (1,) * (2 - spatial), (0,) * (2 - spatial)
    return Geometry(
        kernel=kernel + ones,
        strides=strides + ones,
        dilations=(dilations or (1,) * spatial) + ones,
        pads=pads[:spatial] + none + pads[spatial:] + none,
        input_shape=op.input().shape[1:-1] + ones + op.input().shape[-1:],
        output_shape=op.out.shape[1:-1] + ones,
    )


def _check_short_input(
    lengths: Shape, kernel: Shape, strides: Shape, dilations: Shape | None, pads: Shape
) -> None:
    """Refuse a window that only the padding behind a short input makes room for.

    ESP-DL counts whole windows as ``(length + head - span) / stride + 1``. When that numerator is
    negative but above ``-stride``, C rounds it to 0, and one whole window is taken that is not.

    Matches: ``conv_operation_shell``, ``avg_pool_shell``.
    """
    if not any(pads):
        return  # the loops without padding do not count
    for i, length in enumerate(lengths):
        span = (1 if dilations is None else dilations[i]) * (kernel[i] - 1) + 1
        if pads[i] == 0 and -strides[i] < length - span < 0:
            raise NodeProblem(
                f"axis {1 + i} has {length} of the {span} elements that a window spans, and "
                "padding behind; with a stride the chip takes that window for a whole one and "
                "reads behind the input"
            )


def windows(padded: Array, geometry: Geometry) -> Array:
    """All windows of a padded input as a read-only view.

    Args:
        padded: (H + pads, W + pads, C).
        geometry: The windows.

    Returns:
        (OH, OW, KH, KW, C).
    """
    h, w, c = padded.strides
    (sh, sw), (dh, dw) = geometry.strides, geometry.dilations
    return np.lib.stride_tricks.as_strided(
        padded,
        (*geometry.output_shape, *geometry.kernel, padded.shape[2]),
        (h * sh, w * sw, h * dh, w * dw, c),
        writeable=False,
    )


@dataclass(frozen=True)
class Padded:
    """An input with room for the windows that leave it.

    Attributes:
        array: (H + pads, W + pads, C); the border keeps its value.
        load: Copies the input into the middle; None when nothing has to be copied.
    """

    array: Array
    load: Kernel | None


def padded_input(
    source: Array, geometry: Geometry, dtype: np.dtype[Any], border: int = 0
) -> Padded:
    """The input of *geometry*, padded and of another type if need be.

    Args:
        source: (1, ..., C), the node's input.
        geometry: The windows.
        dtype: Of the result; holds every input exactly.
        border: Value of the pads.
    """
    plain = source.reshape(geometry.input_shape)
    if not geometry.padded and plain.dtype == dtype:
        return Padded(plain, None)
    top, left, bottom, right = geometry.pads
    height, width, channels = geometry.input_shape
    array = np.full((height + top + bottom, width + left + right, channels), border, dtype)
    middle = array[top : top + height, left : left + width]

    def load() -> None:
        middle[...] = plain

    return Padded(array, load)
