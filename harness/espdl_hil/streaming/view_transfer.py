"""What each kind of operator does to a view, and what a streaming file can get wrong about it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from espdl_hil.operators import NodeProblem, output_shapes
from espdl_hil.streaming import rules
from espdl_hil.streaming.timing import Flow
from espdl_hil.streaming.transfer.mixing import HANDLERS as MIXING
from espdl_hil.streaming.transfer.pointwise import Trait, trait_of
from espdl_hil.streaming.transfer.select import slice_bounds
from espdl_hil.streaming.transfer.windowed import ignored_frames, padding, spacing, windows
from espdl_hil.streaming.view import Origin, View

if TYPE_CHECKING:
    from espdl_hil.streaming.pair import FilePair, NodePair


def mixed(pair: FilePair, nodes: NodePair) -> View | None:
    """Any operator that keeps frames apart: its inputs must be in step."""
    merged, timing = pair.merge(nodes), nodes.timing
    if merged is None or not isinstance(timing, Flow):
        return None
    view = merged.scaled(timing.rate / pair.source(nodes).rate)
    computes = nodes.node.op_type in MIXING
    keeps_zero = not computes and Trait.ZERO in trait_of(nodes.node)
    exact = view.surplus == 0 and view.delay <= 0
    return replace(view, axis=timing.axis, clean=exact or (view.clean and keeps_zero))


def window(pair: FilePair, nodes: NodePair) -> View | None:
    """Conv and pools: no padding in time, and just the history that the window needs."""
    view, position = nodes.view, nodes.view.axis - 1
    geometry = windows(nodes.offline, pair.analysis.shapes)
    before, stride = geometry[position], geometry[position].stride
    begin, end = padding(nodes.node, len(geometry))[position :: len(geometry)]
    if begin or end:
        message = f"pads of {begin} and {end} frames along time"
        frames = view.frames // stride
        first = min(frames, -(-begin // stride))
        pair.report(rules.PADDED_CHUNKS, nodes.name, message, f"first {first} of every {frames}")
        return None
    result = view.windowed(before)
    cache = pair.cache_before(nodes.node.inputs[0])
    if result is None or result.surplus < 0:
        if cache is not None:
            wanted = before.state_for(view.delay, before.delay_for(view.delay))
            message = (
                f"it needs {wanted} frame(s) before the chunk, its cache {cache.name} holds "
                f"{view.surplus}"
            )
            pair.report(rules.WRONG_WINDOW, nodes.name, message)
        elif result is None:
            pair.report(rules.PHASE, nodes.name, f"stride {stride} slips")
        else:
            message = f"it spans {before.extent} frames and sees {view.count} of a chunk alone"
            lost = f"first {-result.surplus} of every {result.frames}"
            pair.report(rules.MISSING_CACHE, nodes.name, message, lost)
        return None
    own = cache is not None and before.extent > stride  # its own cache, but a wrong one
    origin = Origin(rules.WRONG_WINDOW, nodes.name) if own else view.origin
    return replace(
        result,
        warmup=max(result.warmup, ignored_frames(nodes.offline, pair.source(nodes), before)),
        origin=origin if result.surplus else None,
        repaired=view.repaired,
    )


def insert_zeros(pair: FilePair, nodes: NodePair) -> View | None:
    """The first half of a ConvTranspose: the last frame of a chunk needs its zeros too."""
    view = nodes.view
    strides, paddings = spacing(nodes.node, len(nodes.shape) - 2)
    stride, extra = strides[view.axis - 1], paddings[view.axis - 1]
    missing = stride - 1 - extra
    if missing:
        message = f"{missing} zero(s) are missing after each chunk"
        pair.report(rules.UPSAMPLING_GAP, nodes.name, message)
        return None
    return replace(view.scaled(stride), sparse=view.sparse * stride)


def pad(pair: FilePair, nodes: NodePair) -> View | None:
    """A Pad that stayed must not pad time any more."""
    view, timing = nodes.view, nodes.timing
    rank = len(nodes.shape)
    begin = pair.analysis.graph.vector(nodes.offline, 1)[view.axis]
    now = pair.streaming.vector(nodes.node, 1)
    if now[view.axis] or now[rank + view.axis]:
        message = f"pads of {now[view.axis]} and {now[rank + view.axis]} frames along time"
        pair.report(rules.PADDED_CHUNKS, nodes.name, message)
        return None
    assert isinstance(timing, Flow)
    return replace(view, delay=view.delay - begin, warmup=max(view.warmup, timing.warmup))


def slice_(pair: FilePair, nodes: NodePair) -> View | None:
    """Slice: along time its bounds must mean the same in a chunk as in the whole sequence."""
    view, shape = nodes.view, nodes.shape
    planned = slice_bounds(nodes.offline, shape, pair.analysis.graph.constants)
    if view.axis not in planned:
        return mixed(pair, nodes)
    low, high, step = pair.bounds(nodes.node, view, shape)
    start, end, wanted_step = planned[view.axis]
    if not isinstance(nodes.timing, Flow):
        length = shape[view.axis]
        _tail(pair, nodes, (low, high), (length - start, length - end))
        return None
    count, frames = -(-(high - low) // step), view.frames // step
    surplus = count - frames
    shift = low - view.surplus - view.delay - start
    if surplus < 0 or step != wanted_step:
        _constant(pair, nodes, f"frames {low} to {high - 1}" if low < high else "none")
        return None
    if shift % step or view.frames % step:
        pair.report(rules.PHASE, nodes.name, f"step {step} slips")
        return None
    delay = -surplus - shift // step
    exact = surplus == 0 and delay == 0
    return replace(
        view,
        frames=frames,
        surplus=surplus,
        delay=delay,
        warmup=max(0, -(-(view.warmup - start) // step)),
        clean=exact or (view.clean and (start == 0 or delay < 0)),
        origin=view.origin if surplus else None,
    )


def _constant(pair: FilePair, nodes: NodePair, what: str) -> None:
    view = nodes.view
    message = f"it keeps {what} of the {view.count} that are there, {view.frames} of them new"
    pair.report(rules.OFFLINE_CONSTANT, nodes.name, message)


def _tail(pair: FilePair, nodes: NodePair, kept: tuple[int, int], wanted: tuple[int, int]) -> None:
    """Check that a Slice of the last frames takes the last of what is there.

    *kept* is first and end of what it takes, *wanted* the same offline, counted from the end.
    """
    view, source = nodes.view, pair.source(nodes)
    padded = max(0, nodes.shape[view.axis] - source.valid)
    back = padded + view.delay - source.delay
    first, last = wanted[0] - back, wanted[1] - back
    if view.count < first:
        message = f"it keeps the last {first - last} frames, {view.count} are there"
        pair.report(rules.MISSING_CACHE, nodes.name, message)
    elif kept != (view.count - first, view.count - last):
        _constant(pair, nodes, f"frames {kept[0]} to {kept[1] - 1}")


def gather(pair: FilePair, nodes: NodePair) -> View | None:
    """Gather: indices along time count from the end of what is there."""
    view = nodes.view
    if isinstance(nodes.timing, Flow) or nodes.views[0] is None:
        return mixed(pair, nodes)
    length = nodes.shape[view.axis]
    now = pair.streaming.vector(nodes.node, 1)
    picks = pair.analysis.graph.vector(nodes.offline, 1)
    wanted = [view.count - length + index % length for index in picks]
    if min(wanted) < 0:
        message = (
            f"it picks a frame {view.count - min(wanted)} from the end, {view.count} are there"
        )
        pair.report(rules.MISSING_CACHE, nodes.name, message)
    elif now != wanted:
        _constant(pair, nodes, f"frame(s) {now}")
    return None


def reshape(pair: FilePair, nodes: NodePair) -> View | None:
    """Reshape: its target must fit a chunk."""
    view, node = nodes.view, nodes.node
    shape = view.there(nodes.shape)
    target = pair.streaming.vector(node, 1)
    result = mixed(pair, nodes)
    try:
        (made,) = output_shapes(node, (shape, (len(target),)), pair.streaming.constants)
    except NodeProblem:
        made = ()
    if result is None or (made and made[result.axis] == result.count):
        return result
    chunk_only = target[result.axis] == result.frames
    stale = Origin(rules.OFFLINE_CONSTANT, nodes.name)
    origin = view.origin if chunk_only and view.origin else stale
    pair.report(origin.rule, origin.node, f"its target {target} does not fit {list(shape)}")
    return None


def recurrent(pair: FilePair, nodes: NodePair) -> View | None:
    """GRU and LSTM: each frame must be seen once."""
    view = nodes.view
    if view.surplus:
        origin = view.origin or Origin(rules.UNEXPECTED_CACHE, nodes.name)
        message = f"{nodes.node.op_type} {nodes.name} sees {view.surplus} old frame(s) again"
        pair.report(origin.rule, origin.node, message)
        return None
    return mixed(pair, nodes)


VIEW_TRANSFERS = {
    "Conv": window,
    "AveragePool": window,
    "MaxPool": window,
    "InsertZeros": insert_zeros,
    "Pad": pad,
    "Slice": slice_,
    "Gather": gather,
    "Reshape": reshape,
    "GRU": recurrent,
    "LSTM": recurrent,
}
