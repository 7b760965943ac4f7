"""Operators that pick, cut, join or pad."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.streaming import rules
from espdl_hil.streaming.findings import refuse
from espdl_hil.streaming.graph import integer, text
from espdl_hil.streaming.timing import Flow, Opaque, Shape, Tail
from espdl_hil.streaming.transfer.pointwise import align_inputs
from espdl_hil.streaming.walk import END

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from espdl_hil.streaming.graph import Node
    from espdl_hil.streaming.walk import Walk


def slice_(walk: Walk, node: Node) -> None:
    """Slice with constant bounds."""
    name = node.inputs[0]
    timing = walk.timing[name]
    if isinstance(timing, Flow):
        bounds = slice_bounds(node, walk.shape[name], walk.graph.constants)
        steps = [step for *_, step in bounds.values() if step < 0]
        if steps:
            raise refuse(rules.REVERSED, node.name, f"step {steps[0]}")
        if timing.axis in bounds:
            alone = len(bounds) == 1
            walk.put(node, _slice_frames(walk, node, timing, bounds[timing.axis], alone=alone))
            return
    walk.put(node, timing)


def slice_bounds(
    node: Node, shape: Shape, constants: Mapping[str, NDArray[np.generic]]
) -> dict[int, tuple[int, int, int]]:
    """Start, end and step of each axis that a Slice cuts, counted from the first element.

    Raises:
        StreamingError: a bound is computed at run time.
    """
    given = [constants.get(name) for name in node.inputs[1:5]] + [None] * (5 - len(node.inputs))
    starts, ends, axes, steps = given[:4]
    if starts is None or ends is None:
        raise refuse(rules.UNKNOWN, node.name, "its bounds are computed at run time")
    axis_list = np.arange(starts.size) if axes is None else axes
    step_list = np.ones(starts.size, int) if steps is None else steps
    columns = (values.reshape(-1).tolist() for values in (starts, ends, axis_list, step_list))
    return {
        axis % len(shape): slice(start, end, step).indices(shape[axis])
        for start, end, axis, step in zip(*columns, strict=True)
    }


def _slice_frames(
    walk: Walk, node: Node, flow: Flow, bounds: tuple[int, int, int], *, alone: bool
) -> Flow | Tail:
    """Cut along time: the last frames, a few at either end, or every n-th.

    A cut that keeps at most half is taken for "the last frames" (from the end) or for a
    fixed position (from the start), one that keeps more for the trimming of padding; unless
    what follows only makes sense for the last frames (see ``Walk.tails``).
    """
    start, end, step = bounds
    length = walk.shape[node.inputs[0]][flow.axis]
    if end - start == 1:
        _refuse_loop(walk, node, length)
    from_end = 2 * start >= length or node.name in walk.tails
    if start and not from_end and end == length:
        walk.trims.append(node.name)
    for index, values in _with_bounds(
        walk, node, flow.axis, start - length if from_end else start, end - length or END, step
    ):
        walk.edit_offline(node, index, values)
    if from_end:
        return _tail(walk, node, flow, length - start, length - end)
    if 2 * end <= length:
        message = f"it keeps frames {start} to {end - 1} of {length}, half of them or less"
        raise refuse(rules.ABSOLUTE, node.name, message)
    offset = flow.delay + start
    if offset < 0 and node.outputs[0] in walk.graph.outputs:
        flow = walk.delay(node, 0, -start)
        offset = 0
    kept = flow.trimmed(start, end, step)
    walk.frames(kept, node)
    if step > 1 or not alone or not walk.remove(node):
        for index, values in _with_bounds(walk, node, flow.axis, offset % step, END, step):
            walk.edit_constant(node, index, values)
    return kept


def _with_bounds(
    walk: Walk, node: Node, axis: int, start: int, end: int, step: int
) -> Iterator[tuple[int, list[int]]]:
    """The constants of a Slice with other bounds on one axis, as (input index, values)."""
    rank = len(walk.shape[node.inputs[0]])
    named = walk.constant(node, 3) is not None
    listed = [a % rank for a in walk.graph.vector(node, 3)] if named else list(range(rank))
    position = listed.index(axis)
    for index, value in ((1, start), (2, end), (4, step)):
        if walk.constant(node, index) is None:
            continue
        values = walk.graph.vector(node, index)
        if index != 2 or value != END or values[position] < END:
            values[position] = value
        yield index, values


def _tail(walk: Walk, node: Node, flow: Flow, first: int, last: int) -> Tail:
    """Keep frames counted from the end: from *first* before it up to *last* before it."""
    name = node.inputs[0]
    length = walk.shape[name][flow.axis]
    surplus = max(0, length - flow.valid)
    if surplus > last:
        walk.require_causal(name, flow)
    frames = walk.frames(flow, node)
    walk.insert_cache(node, 0, max(0, first - surplus - frames))
    bounds = (surplus - first, surplus - last or END, 1)
    for index, values in _with_bounds(walk, node, flow.axis, *bounds):
        walk.edit_constant(node, index, values)
    return flow.tail(length, first, last, walk.prefix_for(flow, first - surplus))


def _refuse_loop(walk: Walk, node: Node, length: int) -> None:
    """Refuse a node that takes one frame, if nodes like it take most of the others: once for all.

    What they read is opaque from then on.
    """
    name = node.inputs[0]
    alike = [n for n in walk.graph.nodes if n.op_type == node.op_type and n.inputs[0] == name]
    count = max(len(alike), len(node.outputs))
    if 2 * count > length:
        walk.timing[name] = Opaque()
        raise refuse(rules.LOOP, node.name, f"{count} of {length} frames are taken by themselves")


def gather(walk: Walk, node: Node) -> None:
    """Gather with constant indices; the runtime cannot count them from the end."""
    shape, timing = walk.shape[node.inputs[0]], walk.timing[node.inputs[0]]
    picked = walk.shape[node.inputs[1]]
    axis = integer(node, "axis", 0) % len(shape)
    indices = [index % shape[axis] for index in walk.graph.vector(node, 1)]
    if isinstance(timing, Flow) and timing.axis == axis:
        timing, indices = _gather_frames(walk, node, timing, indices)
    walk.edit_constant(node, 1, indices)
    walk.edit_offline(node, 1, indices)
    if isinstance(timing, Flow | Tail) and timing.axis >= axis:
        place = -1 if timing.axis == axis else timing.axis - 1 + len(picked)
        timing = replace(timing, axis=place)
    walk.put(node, timing)


def _gather_frames(
    walk: Walk, node: Node, flow: Flow, indices: list[int]
) -> tuple[Tail, list[int]]:
    """Pick from the last frames; returns the indices within them, too."""
    length = walk.shape[node.inputs[0]][flow.axis]
    if len(indices) == 1:
        _refuse_loop(walk, node, length)
    if indices == list(reversed(range(length))):
        raise refuse(rules.REVERSED, node.name, "it takes them from the last to the first")
    first = length - min(indices)
    if 2 * first > length:
        raise refuse(rules.ABSOLUTE, node.name, f"it picks frame {min(indices)} of {length}")
    walk.require_causal(node.inputs[0], flow)
    walk.insert_cache(node, 0, max(0, first - walk.frames(flow, node)))
    walk.keep_last(node, 0, first)
    tail = flow.tail(length, first, 0, walk.prefix_for(flow, first))
    return tail, [index - (length - first) for index in indices]


def split(walk: Walk, node: Node) -> None:
    """Split into several outputs."""
    timing = walk.timing[node.inputs[0]]
    axis = integer(node, "axis", 0) % len(walk.shape[node.inputs[0]])
    if isinstance(timing, Flow) and timing.axis == axis:
        if len(node.outputs) == walk.shape[node.inputs[0]][axis]:
            _refuse_loop(walk, node, len(node.outputs))
        raise refuse(rules.ALONG_TIME, node.name, "it splits the frame axis")
    walk.put(node, timing)


def concat(walk: Walk, node: Node) -> None:
    """Join tensors along an axis."""
    shape = walk.shape[node.outputs[0]]
    axis = integer(node, "axis", 0) % len(shape)
    flows = (walk.flow(node, index) for index in range(len(node.inputs)))
    if any(flow.axis == axis for flow in flows if flow):
        raise refuse(rules.ALONG_TIME, node.name, "it joins tensors along the frame axis")
    walk.put(node, align_inputs(walk, node, shape))


def pad(walk: Walk, node: Node) -> None:
    """Pad with constants; frames before the first become a matter of caches."""
    timing = walk.timing[node.inputs[0]]
    if isinstance(timing, Flow):
        pads = walk.graph.vector(node, 1)
        if pads[timing.axis] or pads[len(pads) // 2 + timing.axis]:
            timing = _pad_frames(walk, node, timing, pads)
    walk.put(node, timing)


def _pad_frames(walk: Walk, node: Node, flow: Flow, pads: list[int]) -> Flow:
    rank = len(pads) // 2
    begin, end = pads[flow.axis], pads[rank + flow.axis]
    value = walk.constant(node, 2)
    mode = text(node, "mode", "constant")
    if mode != "constant" or (value is not None and value.size and value.reshape(-1)[0] != 0):
        what = mode if mode != "constant" else "a value other than zero"
        raise refuse(rules.PAD_MODE, node.name, f"it pads {begin} frame(s) with {what}")
    walk.require_causal(node.inputs[0], flow)
    if node.outputs[0] in walk.graph.outputs:
        flow = walk.delay(node, 0, max(begin, flow.delay))
    pads = [0 if i % rank == flow.axis else amount for i, amount in enumerate(pads)]
    if any(pads) or not walk.remove(node):
        walk.edit_constant(node, 1, pads)
    padded = flow.padded(begin)
    return replace(padded, padded_by=node.name) if end else padded


HANDLERS = {
    "Slice": slice_,
    "Gather": gather,
    "Split": split,
    "Concat": concat,
    "Pad": pad,
}
