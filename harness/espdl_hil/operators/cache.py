"""StreamingCache: the last frames of a stream before the new ones.

::

    step n     cache [c d]   input [e f g]   output [c d e f g]   cache := [f g]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from espdl_hil.operators.node_view import NodeProblem

if TYPE_CHECKING:
    from espdl_hil.operators.prepare import Kernel, Op


def build_streaming_cache(op: Op) -> Kernel:
    """StreamingCache; the frames before the first step, and after a reset, are zero.

    The cache lives in the head of the output: what ends one output begins the next.

    Matches: ``StreamingCache::forward``, flat copies, right where all axes before
    ``frame_axis`` are 1.
    """
    source, output = op.input().array.reshape(-1), op.out.array.reshape(-1)
    kept = output.size - source.size
    if kept == 0:
        raise NodeProblem("window_size 1 keeps no frames; the chip asserts on an empty cache")
    head, body, tail = output[:kept], output[kept:], output[source.size :]

    def run() -> None:
        head[...] = tail
        body[...] = source

    def reset() -> None:
        output[...] = 0

    op.resets.append(reset)
    return run
