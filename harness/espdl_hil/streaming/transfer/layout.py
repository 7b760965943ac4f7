"""Operators that move elements and compute nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from espdl_hil.streaming import rules
from espdl_hil.streaming.findings import refuse
from espdl_hil.streaming.graph import integers
from espdl_hil.streaming.timing import Flow, Shape, Tail, Timing

if TYPE_CHECKING:
    from espdl_hil.streaming.graph import Node
    from espdl_hil.streaming.walk import Walk


def transpose(walk: Walk, node: Node) -> None:
    """Permute axes."""
    timing = walk.timing[node.inputs[0]]
    if isinstance(timing, Flow) or (isinstance(timing, Tail) and timing.axis >= 0):
        order = transposed(node, len(walk.shape[node.inputs[0]]))
        timing = replace(timing, axis=order.index(timing.axis))
    walk.put(node, timing)


def transposed(node: Node, rank: int) -> tuple[int, ...]:
    """The order of axes after a Transpose."""
    return tuple(axis % rank for axis in integers(node, "perm", tuple(reversed(range(rank)))))


def squeeze(walk: Walk, node: Node) -> None:
    """Drop axes of size 1."""
    shape = walk.shape[node.inputs[0]]
    axes = node_axes(walk, node, len(shape))
    gone = range(len(shape)) if axes is None else axes
    kept = [axis for axis, size in enumerate(shape) if size != 1 or axis not in gone]
    _move(walk, node, {axis: place for place, axis in enumerate(kept)})


def unsqueeze(walk: Walk, node: Node) -> None:
    """Add axes of size 1."""
    rank = len(walk.shape[node.outputs[0]])
    added = node_axes(walk, node, rank) or ()
    _move(walk, node, dict(enumerate(axis for axis in range(rank) if axis not in added)))


def node_axes(walk: Walk, node: Node, rank: int) -> tuple[int, ...] | None:
    """The axes that Squeeze, Unsqueeze or a reduction names at its second input, none negative."""
    if walk.constant(node, 1) is None:
        return None
    return tuple(axis % rank for axis in walk.graph.vector(node, 1))


def _move(walk: Walk, node: Node, axis_map: dict[int, int]) -> None:
    timing = walk.timing[node.inputs[0]]
    if isinstance(timing, Flow):
        if timing.axis not in axis_map:
            raise refuse(rules.FOLDED, node.name, "the frame axis is dropped")
        timing = replace(timing, axis=axis_map[timing.axis])
    elif isinstance(timing, Tail):
        timing = replace(timing, axis=axis_map.get(timing.axis, -1))
    walk.put(node, timing)


def reshape(walk: Walk, node: Node) -> None:
    """Reshape by a constant; the offline frame count in it becomes "whatever comes"."""
    regroup(walk, node)
    timing = walk.timing[node.outputs[0]]
    if isinstance(timing, Flow):
        wanted = list(walk.shape[node.outputs[0]])
        wanted[timing.axis] = -1
        walk.edit_constant(node, 1, wanted)
        walk.edit_offline(node, 1, wanted)


def regroup(walk: Walk, node: Node) -> None:
    """Flatten, and the first half of Reshape."""
    timing: Timing = walk.timing[node.inputs[0]]
    if isinstance(timing, Flow):
        timing = _regroup_flow(walk, node, timing)
    elif isinstance(timing, Tail):
        timing = replace(timing, axis=-1)
    walk.put(node, timing)


def _regroup_flow(walk: Walk, node: Node, flow: Flow) -> Flow:
    """Follow the frame axis through a reshape."""
    before, after = walk.shape[node.inputs[0]], walk.shape[node.outputs[0]]
    found = follow_axis(before, after, flow.axis)
    if found is None:
        raise refuse(
            rules.FOLDED,
            node.name,
            f"{before} to {after} merges time (axis {flow.axis}) "
            "into an axis that varies more slowly",
        )
    axis, factor = found
    if factor == 1:
        return replace(flow, axis=axis)
    walk.require_causal(node.inputs[0], flow)
    unit = factor.denominator
    flow = walk.delay(node, 0, max(0, -(-flow.delay // unit) * unit))
    return replace(
        flow,
        axis=axis,
        rate=flow.rate * factor,
        delay=int(flow.delay * factor),
        valid=math.floor(flow.valid * factor),
        warmup=math.ceil(flow.warmup * factor),
        field=flow.field + (unit - 1) / flow.rate,
        past=flow.past + Fraction(factor.numerator - 1, factor.numerator) / flow.rate,
    )


def follow_axis(before: Shape, after: Shape, axis: int) -> tuple[int, Fraction] | None:
    """Find an axis again after a reshape.

    Args:
        before: Shape before; ``before[axis]`` is more than 1.
        after: Shape after, as many elements.
        axis: The frame axis.

    Returns:
        The axis that frames advance along, and how many of its entries one frame makes;
        None if frames are not contiguous any more.

    Example:
        >>> follow_axis((1, 24, 8), (24, 8), 1)
        (0, Fraction(1, 1))
        >>> follow_axis((1, 24, 2, 8), (1, 48, 8), 1)
        (1, Fraction(2, 1))
        >>> follow_axis((1, 8, 24), (1, 192), 2) is None
        True
    """
    for (low, high), (new_low, new_high) in _groups(before, after):
        if not low <= axis < high:
            continue
        if any(size != 1 for size in before[low:axis]):
            return None
        outer = next((i for i in range(new_low, new_high) if after[i] != 1), None)
        if outer is None:
            return None
        inner = math.prod(after[outer + 1 : new_high])
        factor = Fraction(math.prod(before[axis + 1 : high]), inner)
        return outer, factor
    return None


def _groups(before: Shape, after: Shape) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Cut both shapes into the smallest runs of axes that hold the same number of elements."""
    groups = []
    i = j = 0
    while i < len(before) or j < len(after):
        low, new_low = i, j
        size = new_size = 1
        first = True
        while first or size != new_size:
            first = False
            if (size <= new_size and i < len(before)) or j == len(after):
                size, i = size * before[i], i + 1
            else:
                new_size, j = new_size * after[j], j + 1
        groups.append(((low, i), (new_low, j)))
    return groups


HANDLERS = {
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Reshape": reshape,
    "Flatten": regroup,
}
