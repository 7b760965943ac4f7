"""Where caches go: one walk over the offline graph, operator by operator."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from espdl_hil.errors import StreamingError
from espdl_hil.streaming import rules
from espdl_hil.streaming.analysis import Clock, Walk
from espdl_hil.streaming.plan import Alignment, StreamingPlan
from espdl_hil.streaming.rules import refuse
from espdl_hil.streaming.timing import Flow, Opaque, Still, Tail
from espdl_hil.streaming.transfer import HANDLERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from espdl_hil.streaming.graph import NeutralGraph, Node


def plan_streaming(
    graph: NeutralGraph,
    frame_axes: Mapping[str, int],
    chunk_frames: Mapping[str, int] | int,
    state: Mapping[str, str] | None = None,
) -> StreamingPlan:
    """Plan how an offline graph runs chunk by chunk with the same results.

    Args:
        graph: The offline graph.
        frame_axes: Time axis of each graph input that has one, in the file's layout.
        chunk_frames: Frames of each of these inputs in one chunk, or one number for all.
        state: Recurrent state: graph input to the graph output that feeds it.

    Returns:
        The plan: what to change, and what then holds.

    Raises:
        StreamingError: the model cannot stream as written; names the rule and the node.
        ConfigError: an input or output that the arguments name is not there.
    """
    walk, refusals = analyze(graph, make_clock(frame_axes, chunk_frames, state))
    if refusals:
        raise refusals[0]
    return make_plan(walk)


def make_clock(
    frame_axes: Mapping[str, int],
    chunk_frames: Mapping[str, int] | int,
    state: Mapping[str, str] | None = None,
) -> Clock:
    """Bring the arguments of ``plan_streaming`` into one form."""
    if isinstance(chunk_frames, int):
        chunk_frames = dict.fromkeys(frame_axes, chunk_frames)
    return Clock(dict(frame_axes), dict(chunk_frames), dict(state or {}))


def analyze(graph: NeutralGraph, clock: Clock) -> tuple[Walk, list[StreamingError]]:
    """Walk the whole graph, past what cannot stream.

    Args:
        graph: The offline graph.
        clock: What a chunk is.

    Returns:
        The walk, and every refusal in the order of the nodes. What lies behind a refused
        node is opaque and gives no refusals of its own.
    """
    walk, refusals = _walk(graph, clock, frozenset())
    if refusals and walk.trims:
        other, fewer = _walk(graph, clock, frozenset(walk.trims))
        if len(fewer) < len(refusals):
            return other, fewer
    return walk, refusals


def _walk(
    graph: NeutralGraph, clock: Clock, tails: frozenset[str]
) -> tuple[Walk, list[StreamingError]]:
    walk = Walk(graph, clock, tails)
    refusals: list[StreamingError] = []
    for node in graph.nodes:
        if any(isinstance(walk.timing_of(node, i), Opaque) for i in range(len(node.inputs))):
            _hide(walk, node)
            continue
        try:
            _step(walk, node)
        except StreamingError as refusal:
            refusals.append(refusal)
            _hide(walk, node)
    for name in graph.outputs:
        timing = walk.timing[name]
        if isinstance(timing, Flow):
            try:
                _check_output(walk, name, timing)
            except StreamingError as refusal:
                refusals.append(refusal)
                walk.timing[name] = Opaque()
    return walk, refusals


def _check_output(walk: Walk, name: str, flow: Flow) -> None:
    """Refuse an output with frames from after the last or from before the first one."""
    walk.require_causal(name, flow)
    if flow.delay < 0:
        message = f"output {name} begins with {-flow.delay} frame(s) of padding"
        raise refuse(rules.ABSOLUTE, walk.graph.producers[name].name, message)


def _step(walk: Walk, node: Node) -> None:
    handler = HANDLERS.get(node.op_type)
    if handler is not None:
        handler(walk, node)
        return
    walk.refuse_flow(rules.UNKNOWN, node, f"{node.op_type} is not known")
    _hide(walk, node)


def _hide(walk: Walk, node: Node) -> None:
    """Let the outputs of a node be opaque: no shape, no timing, but the prefix they need."""
    timings = [walk.timing_of(node, index) for index in range(len(node.inputs))]
    known = [timing for timing in timings if isinstance(timing, Tail | Opaque)]
    opaque = Opaque(
        max((timing.min_prefix for timing in known), default=0),
        max((timing.field for timing in known), default=Fraction(1)),
    )
    for output in filter(None, node.outputs):
        walk.timing[output] = opaque


def make_plan(walk: Walk) -> StreamingPlan:
    """Sum up a walk in which nothing was refused."""
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
        state_input=state_input,
    )


def _kind(flow: Flow) -> str:
    if flow.delay > 0:
        return "delayed"
    if flow.rate == 1:
        return "same"
    return "strided" if flow.rate < 1 else "upsampled"
