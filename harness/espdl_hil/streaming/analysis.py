"""One analysis an offline graph: how each tensor lies in time, and what cannot stream."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from espdl_hil.errors import StreamingError
from espdl_hil.operators import NodeProblem
from espdl_hil.streaming import rules
from espdl_hil.streaming.findings import refuse
from espdl_hil.streaming.planner import make_plan
from espdl_hil.streaming.timing import Flow, Opaque, Tail
from espdl_hil.streaming.transfer import HANDLERS, WHOLE
from espdl_hil.streaming.transfer.pointwise import UNARY
from espdl_hil.streaming.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from espdl_hil.streaming.clock import Clock
    from espdl_hil.streaming.findings import Finding
    from espdl_hil.streaming.graph import NeutralGraph, Node
    from espdl_hil.streaming.plan import ConstantEdit, Insertion, StreamingPlan
    from espdl_hil.streaming.timing import Shape, Timing


_KEEP_FRAMES = frozenset(  # whose edit leaves the frames in their places
    rule.id
    for rule in (
        rules.NORMALIZATION,
        rules.PAD_MODE,
        rules.ABSOLUTE,
        rules.REVERSED,
        rules.UNBOUNDED,
        rules.UNRUNNABLE,
        rules.STATE_DROPPED,
        rules.STATE_EXPONENT,
    )
)
_SAME_SHAPE = frozenset((*UNARY, "GroupNormalization", "InstanceNormalization"))


@dataclass(frozen=True)
class Analysis:
    """What one walk over an offline graph found; serves exporter and lint alike.

    Attributes:
        graph: The offline graph.
        clock: What a chunk is.
        shapes: Offline shape by tensor name, in the file's layout, where it is known.
        timing: Timing by tensor name.
        refusals: Why the graph cannot stream, in the order of its nodes; empty if it can. What
            lies behind a refused node is opaque and gives no refusals of its own.
        notes: What is worth knowing, though nothing is refused.
        offline_edits: Constants with which the *offline* graph runs at any length; they change
            no value at its own.
        offline_insertions: Nodes that it needs for that.
        planned: The plan; None if there are refusals.
    """

    graph: NeutralGraph
    clock: Clock
    shapes: Mapping[str, Shape]
    timing: Mapping[str, Timing]
    refusals: tuple[StreamingError, ...]
    notes: tuple[Finding, ...]
    offline_edits: tuple[ConstantEdit, ...]
    offline_insertions: tuple[Insertion, ...]
    planned: StreamingPlan | None

    @property
    def plan(self) -> StreamingPlan:
        """How the graph runs chunk by chunk.

        Raises:
            StreamingError: it cannot; the first refusal.
        """
        if self.planned is None:
            raise self.refusals[0]
        return self.planned


def analyze(graph: NeutralGraph, clock: Clock, *, past_faults: bool = False) -> Analysis:
    """Walk the whole graph, past what cannot stream.

    Args:
        graph: The offline graph.
        clock: What a chunk is.
        past_faults: Go on behind a refused node as if it had been edited, where it is clear what
            it would give then, so that one walk finds the faults behind one another.

    Raises:
        ConfigError: an input or output that the clock names is not there.
    """
    walk, refusals = _walk(graph, clock, frozenset(), past_faults)
    if refusals and walk.trims:
        other, fewer = _walk(graph, clock, frozenset(walk.trims), past_faults)
        if len(fewer) < len(refusals):
            walk, refusals = other, fewer
    return Analysis(
        graph=graph,
        clock=clock,
        shapes=walk.shape,
        timing=walk.timing,
        refusals=tuple(refusals),
        notes=tuple(walk.notes),
        offline_edits=tuple(walk.offline_edits),
        offline_insertions=tuple(walk.offline_insertions),
        planned=None if refusals else make_plan(walk),
    )


def _walk(
    graph: NeutralGraph, clock: Clock, tails: frozenset[str], past_faults: bool
) -> tuple[Walk, list[StreamingError]]:
    walk = Walk(graph, clock, tails)
    refusals = []
    for node in graph.nodes:
        refusal = step(walk, node)
        if refusal:
            refusals.append(refusal)
            if past_faults:
                refusals += _go_past(walk, node, refusal)
    for name in graph.outputs:
        try:
            _check_output(walk, name)
        except StreamingError as refusal:
            refusals.append(refusal)
            walk.timing[name] = Opaque()
    return walk, refusals


def _check_output(walk: Walk, name: str) -> None:
    """Refuse an output with frames from after the last or from before the first one."""
    flow = walk.timing[name]
    if not isinstance(flow, Flow):
        return
    walk.require_causal(name, flow)
    if flow.delay < 0:
        message = f"output {name} begins with {-flow.delay} frame(s) of padding"
        raise refuse(rules.ABSOLUTE, walk.graph.producers[name].name, message)


def step(walk: Walk, node: Node) -> StreamingError | None:
    """Take the next node into a walk; returns why it cannot stream, unless one before it cannot."""
    if any(isinstance(walk.timing_of(node, i), Opaque) for i in range(len(node.inputs))):
        _hide(walk, node)
        return None
    try:
        _transfer(walk, node)
    except StreamingError as refusal:
        _hide(walk, node)
        return refusal
    return None


def _go_past(walk: Walk, node: Node, refusal: StreamingError) -> list[StreamingError]:
    """Let a refused node give what it would after the edit; returns what is wrong besides."""
    if refusal.rule == rules.NONCAUSAL.id and _make_causal(walk, node):
        other = step(walk, node)
        return [] if other is None else [other, *_go_past(walk, node, other)]
    walk.timing.update(_edited(walk, node, refusal.rule))
    return []


def _make_causal(walk: Walk, node: Node) -> bool:
    """Let a node's inputs hold no padding after their last frame; whether one did."""
    found = False
    for index, name in enumerate(node.inputs):
        flow = walk.flow(node, index)
        if flow is not None and flow.valid < walk.shape[name][flow.axis]:
            walk.timing[name] = replace(flow, valid=walk.shape[name][flow.axis], padded_by="")
            found = True
    return found


def _edited(walk: Walk, node: Node, rule: str) -> dict[str, Timing]:
    """Timing of the outputs of a node that a rule refused, as far as it is clear."""
    flows = [flow for index in range(len(node.inputs)) if (flow := walk.flow(node, index))]
    if rule not in _KEEP_FRAMES or len({(flow.axis, flow.rate) for flow in flows}) != 1:
        return {}
    flow, name, output = flows[0], node.inputs[0], node.outputs[0]
    if node.op_type in _SAME_SHAPE:
        walk.shape[output] = walk.shape[name]
    else:
        try:
            walk.infer(node)
        except NodeProblem:
            return {}
    shape, frames = walk.shape[output], walk.shape[name][flow.axis]
    if rule == rules.PAD_MODE.id:
        begin = walk.graph.vector(node, 1)[flow.axis]
        return {output: replace(flow.padded(begin), clean=True, warmup=0)}
    if flow.axis >= len(shape) or shape[flow.axis] != frames:
        return {}
    return {output: Flow(flow.axis, flow.rate, 0, flow.valid, padded_by=flow.padded_by)}


def _transfer(walk: Walk, node: Node) -> None:
    """Record shapes and timing of a node's outputs, or refuse it."""
    if node.op_type in WHOLE:
        walk.refuse_flow(WHOLE[node.op_type], node, f"{node.op_type} sees all frames")
    handler = HANDLERS.get(node.op_type)
    if handler is None:
        walk.refuse_flow(rules.UNKNOWN, node, f"{node.op_type} is not known")
    try:
        walk.infer(node)
    except NodeProblem as problem:
        walk.refuse_flow(rules.UNRUNNABLE, node, str(problem))
        handler = None
    if handler is None:
        _hide(walk, node)
    else:
        handler(walk, node)


def _hide(walk: Walk, node: Node) -> None:
    """Let the outputs of a node be opaque: no shape, no timing, but the prefix they need."""
    timings = [walk.timing_of(node, index) for index in range(len(node.inputs))]
    known = [timing for timing in timings if isinstance(timing, Tail | Opaque)]
    opaque = Opaque(
        max((timing.min_prefix for timing in known), default=0),
        max((timing.field for timing in known), default=Fraction(1)),
        min((timing.since for timing in known), default=math.inf),
    )
    for output in filter(None, node.outputs):
        walk.timing[output] = opaque
