"""Operators with a window over frames: Conv, pools, and the zeros that ConvTranspose inserts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from espdl_hil.streaming import rules
from espdl_hil.streaming.findings import find, refuse
from espdl_hil.streaming.graph import integer, integers, text
from espdl_hil.streaming.timing import Flow, Shape, Window

if TYPE_CHECKING:
    from collections.abc import Mapping

    from espdl_hil.streaming.graph import Node
    from espdl_hil.streaming.walk import Walk


def windows(node: Node, shapes: Mapping[str, Shape]) -> tuple[Window, ...]:
    """The geometry of each spatial axis of a Conv or pool: axis ``1 + i`` of the tensor has no. i.

    A stored filter has the shape ``(W, C, N)`` or ``(H, W, C, N)``.
    """
    count = len(shapes[node.inputs[0]]) - 2
    ones = (1,) * count
    sizes = shapes[node.inputs[1]][:count] if node.op_type == "Conv" else ones
    kernel = integers(node, "kernel_shape", sizes)
    strides, dilations = integers(node, "strides", ones), integers(node, "dilations", ones)
    pads = padding(node, count)
    return tuple(
        Window(dilations[i] * (kernel[i] - 1) + 1, strides[i], pads[i], pads[i + count])
        for i in range(count)
    )


def padding(node: Node, count: int) -> tuple[int, ...]:
    """Padding before, then after each of *count* spatial axes."""
    return integers(node, "pads", (0,) * (2 * count))


def window_op(walk: Walk, node: Node) -> None:
    """Conv, plain or depthwise, AveragePool and MaxPool."""
    timing = walk.timing[node.inputs[0]]
    if isinstance(timing, Flow):
        timing = _stream_window(walk, node, timing)
    walk.put(node, timing)


def _stream_window(walk: Walk, node: Node, flow: Flow) -> Flow:
    """Replace padding along time by a cache."""
    geometry = windows(node, walk.shape)
    position = flow.axis - 1
    if not 0 <= position < len(geometry):
        raise refuse(rules.NOT_TIME, node.name, "its channels lie along frame_axis")
    if text(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID", ""):
        raise refuse(rules.NONCAUSAL, node.name, f"auto_pad is {node.attributes['auto_pad']}")
    walk.require_causal(node.inputs[0], flow)
    window = geometry[position]
    delay = window.delay_for(flow.delay)
    held = window.state_for(flow.delay, delay)
    out = flow.windowed(window, delay)
    walk.frames(out, node)  # refuses a phase that slips
    surplus = held + window.stride - window.extent  # behind the last window
    walk.insert_cache(node, 0, held, drop=surplus if surplus >= window.stride else 0)
    pads = list(padding(node, len(geometry)))
    pads[position] = pads[position + len(geometry)] = 0
    if window.pad_begin or window.pad_end:
        walk.edit_attribute(node, "pads", tuple(pads))
    if window.pad_end:
        out = replace(out, padded_by=node.name)
    if node.op_type == "Conv":
        return replace(out, nonnegative=text(node, "activation", "") == "Relu")
    return replace(_pool_start(walk, node, flow, window, out), nonnegative=flow.nonnegative)


def ignored_frames(node: Node, flow: Flow, window: Window) -> int:
    """Output frames at the start in which a MaxPool ignores padding that a cache holds as zero."""
    if node.op_type != "MaxPool" or flow.nonnegative:
        return 0
    return -(-window.pad_begin // window.stride)


def _pool_start(walk: Walk, node: Node, flow: Flow, window: Window, out: Flow) -> Flow:
    """Account for how a pool treats its padding."""
    ignored = ignored_frames(node, flow, window)
    if ignored:
        message = f"the first {ignored} frame(s) become max(0, offline value)"
        walk.notes.append(find(rules.POOL_START, node.name, message, f"first {ignored}"))
    padded = window.pad_begin and node.op_type == "AveragePool"
    if padded and not integer(node, "count_include_pad", 0):
        message = f"the first {-(-window.pad_begin // window.stride)} frame(s) count padding"
        walk.notes.append(find(rules.POOL_COUNT, node.name, message))
    return replace(out, warmup=max(out.warmup, ignored))


def insert_zeros(walk: Walk, node: Node) -> None:
    """The first half of a ConvTranspose: ``stride - 1`` zeros after each frame."""
    timing = walk.timing[node.inputs[0]]
    if isinstance(timing, Flow):
        strides, extra = spacing(node, len(walk.shape[node.inputs[0]]) - 2)
        position = timing.axis - 1
        if not 0 <= position < len(strides):
            raise refuse(rules.NOT_TIME, node.name, "its channels lie along frame_axis")
        if timing.delay < 0:
            timing = walk.delay(node, 0, 0)
        times = strides[position]
        padded = (*extra[:position], times - 1, *extra[position + 1 :])
        walk.edit_attribute(node, "output_padding", padded)
        timing = replace(timing.repeated(times), sparse=timing.sparse * times)
    walk.put(node, timing)


def spacing(node: Node, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Stride and output padding of an InsertZeros, one entry for each of *count* spatial axes."""
    values = (integers(node, "stride", (1,)), integers(node, "output_padding", (0,)))
    strides, extra = (value * count if len(value) == 1 else value for value in values)
    return strides, extra


HANDLERS = {
    **dict.fromkeys(("Conv", "AveragePool", "MaxPool"), window_op),
    "InsertZeros": insert_zeros,
}
