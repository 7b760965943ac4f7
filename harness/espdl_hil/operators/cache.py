"""StreamingCache: the last frames of a stream before the new ones.

::

    step n     cache [c d]   input [e f g]   output [c d e f g]   cache := [f g]
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from espdl_hil.operators.problem import NodeProblem
from espdl_hil.operators.signature import moves

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.espdl import Shape
    from espdl_hil.operators.kernel import Kernel
    from espdl_hil.operators.node import BoundNode, NodeView, PlacedNode


def _cache_shapes(view: NodeView) -> list[Shape]:
    axis = view.axis(view.integer("frame_axis", 1), len(view.shape))
    window = view.integer("window_size", 1)
    if window < 1:
        raise NodeProblem(f"window_size {window}, expected 1 or more frames")
    frames = view.shape[axis] + window - 1
    return [(*view.shape[:axis], frames, *view.shape[axis + 1 :])]


def _cache_rules(placed: PlacedNode) -> Iterator[str]:
    """Two flat copies, which make a concatenation only along the outermost axis."""
    axis = placed.axis(placed.integer("frame_axis", 1), len(placed.shape))
    outer = math.prod(placed.shape[:axis])
    if outer != 1 and placed.integer("window_size", 1) > 1:
        yield (
            f"frame_axis {axis} of {placed.shape} has {outer} rows before it; the chip puts the "
            "whole cache before the whole input, which interleaves other elements"
        )


def build_streaming_cache(bound: BoundNode) -> Kernel:
    """StreamingCache; the frames before the first step, and after a reset, are zero.

    The cache lives in the head of the output: what ends one output begins the next.

    Matches: ``StreamingCache::forward``, flat copies, right where all axes before
    ``frame_axis`` are 1.
    """
    source, output = bound.input().array.reshape(-1), bound.out.array.reshape(-1)
    kept = output.size - source.size
    if kept == 0:
        raise NodeProblem("window_size 1 keeps no frames; the chip asserts on an empty cache")
    head, body, tail = output[:kept], output[kept:], output[source.size :]

    def run() -> None:
        head[...] = tail
        body[...] = source

    def reset() -> None:
        output[...] = 0

    bound.resets.append(reset)
    return run


OPERATORS = {"StreamingCache": moves(build_streaming_cache, _cache_shapes, _cache_rules)}
