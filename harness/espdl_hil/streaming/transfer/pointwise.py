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
    from collections.abc import Callable

    from espdl_hil.streaming.graph import Node
    from espdl_hil.streaming.walk import Walk


class Trait(Flag):
    """What an operator does to zeros and signs."""

    NONE = 0
    ZERO = auto()  # zeros in, zeros out
    SIGN = auto()  # nothing below zero in, nothing below zero out
    POSITIVE = auto()  # nothing below zero out, whatever goes in


_NONE, _ZERO, _SIGN, _POSITIVE = Trait.NONE, Trait.ZERO, Trait.SIGN, Trait.POSITIVE

UNARY: dict[str, Trait] = {  # some only as the original of a LUT
    "Abs": _ZERO | _POSITIVE,
    "Cast": _ZERO | _SIGN,
    "Ceil": _ZERO,
    "Clip": _NONE,
    "Cos": _NONE,
    "DequantizeLinear": _ZERO | _SIGN,
    "Elu": _ZERO | _SIGN,
    "Erf": _ZERO | _SIGN,
    "Exp": _POSITIVE,
    "Floor": _ZERO | _SIGN,
    "Gelu": _ZERO | _SIGN,
    "HardSigmoid": _POSITIVE,
    "HardSwish": _ZERO | _SIGN,
    "Identity": _ZERO | _SIGN,
    "LUT": _NONE,
    "LeakyRelu": _ZERO | _SIGN,
    "Log": _NONE,
    "Neg": _ZERO,
    "Not": _NONE,
    "PRelu": _ZERO | _SIGN,
    "QuantizeLinear": _ZERO | _SIGN,
    "Relu": _ZERO | _POSITIVE,
    "RequantizeLinear": _ZERO | _SIGN,
    "Round": _ZERO | _SIGN,
    "Sigmoid": _POSITIVE,
    "Sin": _ZERO,
    "Softplus": _POSITIVE,
    "Sqrt": _ZERO | _POSITIVE,
    "Swish": _ZERO | _SIGN,
    "Tan": _ZERO,
    "Tanh": _ZERO | _SIGN,
}
BROADCAST: dict[str, Trait] = {
    "Add": _ZERO | _SIGN,
    "Div": _NONE,
    "Equal": _NONE,
    "Greater": _NONE,
    "GreaterOrEqual": _NONE,
    "Less": _NONE,
    "LessOrEqual": _NONE,
    "Mod": _NONE,
    "Mul": _ZERO | _SIGN,
    "Pow": _NONE,
    "Sub": _ZERO,
}


def trait_of(node: Node) -> Trait:
    """What a node does to zeros and signs; operators that only move elements keep both."""
    kind = text(node, "original_op_type", node.op_type)  # of a LUT, which stands for another
    return UNARY.get(kind, BROADCAST.get(kind, Trait.ZERO | Trait.SIGN))


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

    Args:
        walk: The walk.
        node: All its inputs broadcast to *shape*, or are concatenated to it.
        shape: Offline shape of the output.
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


HANDLERS: dict[str, Callable[[Walk, Node], None]] = {
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(BROADCAST, broadcast),
}
