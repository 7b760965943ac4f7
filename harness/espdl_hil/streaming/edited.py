"""What a refused node would give after the edit, so that the faults behind it show as well."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from espdl_hil.operators import NodeProblem
from espdl_hil.streaming import rules
from espdl_hil.streaming.timing import Flow
from espdl_hil.streaming.transfer.pointwise import UNARY

if TYPE_CHECKING:
    from espdl_hil.streaming.graph import Node
    from espdl_hil.streaming.timing import Timing
    from espdl_hil.streaming.walk import Walk

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


def make_causal(walk: Walk, node: Node) -> bool:
    """Let a node's inputs hold no padding after their last frame; whether one did."""
    found = False
    for index, name in enumerate(node.inputs):
        flow = walk.flow(node, index)
        if flow is not None and flow.valid < walk.shape[name][flow.axis]:
            walk.timing[name] = replace(flow, valid=walk.shape[name][flow.axis], padded_by="")
            found = True
    return found


def edited(walk: Walk, node: Node, rule: str) -> dict[str, Timing]:
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
