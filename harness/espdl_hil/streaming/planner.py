"""From a walk in which nothing was refused to the plan: what is to be changed, what then holds."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from espdl_hil.streaming.plan import Alignment, StreamingPlan
from espdl_hil.streaming.timing import Flow, Opaque, Still, Tail

if TYPE_CHECKING:
    from espdl_hil.streaming.walk import Walk


def make_plan(walk: Walk) -> StreamingPlan:
    """Sum up the walk."""
    graph, clock = walk.graph, walk.clock
    timings = [walk.timing[name] for name in graph.outputs]
    widest = max((t.field for t in timings if not isinstance(t, Still)), default=Fraction(1))
    recurrent = sum(
        math.prod(walk.shape[name]) * graph.itemsizes.get(name, 1) for name in clock.state
    )
    return StreamingPlan(
        frame_axes=clock.frame_axes,
        chunk_frames=clock.chunk_frames,
        insertions=tuple(walk.insertions),
        attribute_edits=tuple(walk.attribute_edits),
        constant_edits=tuple(walk.constant_edits),
        removals=tuple(walk.removals),
        alignments=tuple(align_output(walk, name) for name in graph.outputs),
        shapes={
            name: walk.stream_shape(name) for name in walk.shape if name not in graph.constants
        },
        state=clock.state,
        receptive_field=None if widest == math.inf else math.floor(widest),
        total_stride=walk.stride,
        state_bytes=walk.cache_bytes + recurrent,
    )


def align_output(walk: Walk, name: str) -> Alignment:
    """Which offline elements the chunks of one output are compared with."""
    timing = walk.timing[name]
    state_input = next((i for i, output in walk.clock.state.items() if output == name), "")
    if isinstance(timing, Flow):
        return Alignment(
            output=name,
            kind=_kind(timing),
            frame_axis=timing.axis,
            out_frames_per_chunk=int(timing.rate * walk.clock.chunk),
            latency_frames=timing.delay,
            warmup_frames=timing.warmup,
            offline_frames=walk.shape[name][timing.axis],
            state_input=state_input,
        )
    axis = timing.axis if isinstance(timing, Tail) else -1
    frames = walk.shape[name][axis] if axis >= 0 else 1
    return Alignment(
        output=name,
        kind="tail",
        frame_axis=axis,
        out_frames_per_chunk=frames,
        offline_frames=frames,
        min_prefix_frames=0 if isinstance(timing, Still) else timing.min_prefix,
        window_frames=_window(walk, timing),
        state_input=state_input,
    )


def _window(walk: Walk, timing: Tail | Still | Opaque) -> int | None:
    """The last frames of a prefix that give a tail its value; see ``Alignment.window_frames``.

    ::

        offline, as long as a whole number of strides    0 . . . . . . . . . .
        the tail depends on                                        s . . . . .     s = since

    The window must also be long enough for every node of the graph to run.
    """
    since = math.inf if isinstance(timing, Still) else timing.since
    if since == -math.inf:
        return None
    name, axis = next(iter(walk.clock.frame_axes.items()))
    whole = math.ceil(Fraction(walk.shape[name][axis], walk.stride)) * walk.stride
    needed: list[Fraction | float] = [1, whole - since]
    for other, relation in walk.timing.items():
        if isinstance(relation, Flow):  # one frame of it
            needed.append(whole - (walk.shape[other][relation.axis] - 1) / relation.rate)
        elif isinstance(relation, Tail | Opaque):
            needed.append(relation.min_prefix)
    return math.ceil(max(needed) / walk.stride) * walk.stride


def _kind(flow: Flow) -> str:
    if flow.delay > 0:
        return "delayed"
    if flow.rate == 1:
        return "same"
    return "strided" if flow.rate < 1 else "upsampled"
