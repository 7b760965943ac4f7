"""Operators that keep frames apart: activations and broadcast arithmetic."""

from __future__ import annotations

import functools
from dataclasses import replace
from enum import Flag, auto
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.streaming import rules
from espdl_hil.streaming.findings import refuse
from espdl_hil.streaming.graph import text
from espdl_hil.streaming.timing import STILL, Flow, Shape, Tail, Timing

if TYPE_CHECKING:
    from espdl_hil.streaming.graph import Node
    from espdl_hil.streaming.walk import Walk


class Trait(Flag):
    """What an operator does to zeros and signs."""

    NONE = 0
    ZERO = auto()  # zeros in, zeros out
    SIGN = auto()  # nothing below zero in, nothing below zero out
    POSITIVE = auto()  # nothing below zero out, whatever goes in


KEEPS_BOTH = Trait.ZERO | Trait.SIGN

UNARY: dict[str, Trait] = {  # some only as the original of a LUT
    **dict.fromkeys(("Abs", "Relu", "Sqrt"), Trait.ZERO | Trait.POSITIVE),
    **dict.fromkeys(("Elu", "Gelu", "HardSwish", "LeakyRelu", "PRelu", "Swish"), KEEPS_BOTH),
    **dict.fromkeys(("Erf", "Floor", "Identity", "Round", "Tanh"), KEEPS_BOTH),
    **dict.fromkeys(("Cast", "DequantizeLinear", "QuantizeLinear", "RequantizeLinear"), KEEPS_BOTH),
    **dict.fromkeys(("Ceil", "Neg", "Sin", "Tan"), Trait.ZERO),
    **dict.fromkeys(("Exp", "HardSigmoid", "Sigmoid", "Softplus"), Trait.POSITIVE),
    **dict.fromkeys(("Clip", "Cos", "LUT", "Log", "Not"), Trait.NONE),
}
BROADCAST: dict[str, Trait] = {
    **dict.fromkeys(("Add", "Mul"), KEEPS_BOTH),
    "Sub": Trait.ZERO,
    **dict.fromkeys(("Div", "Mod", "Pow"), Trait.NONE),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), Trait.NONE),
}


def trait_of(node: Node) -> Trait:
    """What a node does to zeros and signs; operators that only move elements keep both."""
    kind = text(node, "original_op_type", node.op_type)  # of a LUT, which stands for another
    return UNARY.get(kind, BROADCAST.get(kind, KEEPS_BOTH))


def unary(walk: Walk, node: Node) -> None:
    """One tensor in, the same shape out; further inputs are parameters."""
    name = node.inputs[0]
    timing = walk.timing[name]
    if isinstance(timing, Flow):
        trait = trait_of(node)
        keeps_zero = Trait.ZERO in trait
        if timing.delay < 0 and (not keeps_zero or node.outputs[0] in walk.graph.outputs):
            timing = walk.delay(node, 0, 0)
        timing = replace(
            timing,
            clean=timing.delay == 0 or (timing.clean and keeps_zero),
            nonnegative=Trait.POSITIVE in trait
            or (timing.nonnegative and Trait.SIGN in trait)
            or (node.op_type == "Clip" and _clips_at_zero(walk, node)),
        )
    walk.put(node, timing)


def _clips_at_zero(walk: Walk, node: Node) -> bool:
    low = walk.constant(node, 1)
    return low is not None and low.size == 1 and float(low.reshape(-1)[0]) >= 0


def broadcast(walk: Walk, node: Node) -> None:
    """Several tensors in, broadcast as numpy does."""
    walk.put(node, align_inputs(walk, node, walk.shape[node.outputs[0]]))


def align_inputs(walk: Walk, node: Node, shape: Shape) -> Timing:
    """Bring all inputs of a node to one delay, and tell the timing of what it computes.

    They broadcast to the offline *shape*, or are concatenated to it.
    """
    rank = len(shape)
    flows = {i: flow for i in range(len(node.inputs)) if (flow := walk.flow(node, i))}
    tails = [t for i in range(len(node.inputs)) if isinstance(t := walk.timing_of(node, i), Tail)]
    if not flows:
        if not tails:
            return STILL
        return functools.reduce(Tail.joined, tails)
    if tails:
        raise refuse(
            rules.NONCAUSAL, node.name, "frames are combined with a value of the last frames"
        )
    axes = {flow.axis + rank - len(walk.shape[node.inputs[i]]) for i, flow in flows.items()}
    if len(axes) > 1 or len({flow.rate for flow in flows.values()}) > 1:
        raise refuse(rules.ATTENTION, node.name, "its inputs carry time on different axes or rates")
    axis = axes.pop()
    _check_still(walk, node, axis, shape)
    target = max(0, *(flow.delay for flow in flows.values()))
    aligned = [walk.delay(node, index, target) for index in flows]
    limiting = min(aligned, key=lambda flow: flow.valid)
    trait = trait_of(node)
    whole = len(flows) == len(node.inputs)
    zero = Trait.ZERO in trait and (whole or node.op_type == "Mul")
    return replace(
        limiting,
        axis=axis,
        warmup=max(flow.warmup for flow in aligned),
        clean=target == 0 or (zero and all(flow.clean for flow in aligned)),
        nonnegative=Trait.SIGN in trait and whole and all(flow.nonnegative for flow in aligned),
        field=max(flow.field for flow in aligned),
        past=max(flow.past for flow in aligned),
    )


def _check_still(walk: Walk, node: Node, axis: int, shape: Shape) -> None:
    """Refuse a constant that has a value of its own for each offline frame."""
    for index, name in enumerate(node.inputs):
        if not name or walk.flow(node, index):
            continue
        own = walk.shape[name]
        own_axis = axis - (len(shape) - len(own))
        if own_axis >= 0 and own[own_axis] > 1:
            message = f"{name} has {own[own_axis]} values along time, one per offline frame"
            refusal = refuse(rules.ABSOLUTE, node.name, message)
            value = walk.constant(node, index)
            if value is not None and not np.diff(value, axis=own_axis).any():
                refusal.hint = (
                    "they are all the same: leave expand and ones_like out where arithmetic "
                    "follows, since it broadcasts; before a layer, a constant channel is its bias"
                )
            raise refusal


HANDLERS = {
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(BROADCAST, broadcast),
}
