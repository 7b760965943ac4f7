"""What each kind of operator does to a view, and what can be wrong with it in a stream."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from espdl_hil.streaming import rules
from espdl_hil.streaming.attributes import integers
from espdl_hil.streaming.timing import Flow
from espdl_hil.streaming.transfer.mixing import HANDLERS as MIXING
from espdl_hil.streaming.transfer.pointwise import Trait, trait_of
from espdl_hil.streaming.transfer.select import slice_bounds
from espdl_hil.streaming.transfer.windowed import ignored_frames, windows
from espdl_hil.streaming.view import Blame, View, positions

if TYPE_CHECKING:
    from collections.abc import Callable

    from espdl_hil.streaming.evidence import Evidence, Site
    from espdl_hil.streaming.graph import NeutralGraph, Node
    from espdl_hil.streaming.timing import Window


def mixed(evidence: Evidence, site: Site) -> View | None:
    """Any operator that keeps frames apart: its inputs must be in step."""
    merged = evidence.merge(site)
    timing = evidence.timing(site)
    if merged is None or not isinstance(timing, Flow):
        return None
    view = merged.scaled(timing.rate / evidence.source(site).rate)
    computes = site.node.op_type in MIXING
    keeps_zero = not computes and Trait.ZERO in trait_of(site.node)
    exact = view.surplus == 0 and view.delay <= 0
    return replace(view, axis=timing.axis, clean=exact or (view.clean and keeps_zero))


def window(evidence: Evidence, site: Site) -> View | None:
    """Conv and pools: no padding in time, and just the history that the window needs."""
    view, source, timing = site.view, evidence.source(site), evidence.timing(site)
    before, now = _geometry(evidence, site, view.axis - 1)
    stride = before.stride
    if now.pad_begin or now.pad_end:
        message = f"pads of {now.pad_begin} and {now.pad_end} frames along time"
        frames = view.frames // stride
        first = min(frames, -(-now.pad_begin // stride))
        evidence.report(rules.PADDED_CHUNKS, site.name, message, f"first {first} of every {frames}")
        return None
    result = view.windowed(before)
    cache = evidence.cache_before(site.node.inputs[0])
    if result is None or result.surplus < 0:
        if cache is not None:
            wanted = before.state_for(view.delay, before.delay_for(view.delay))
            message = (
                f"it needs {wanted} frame(s) before the chunk, its cache {cache.name} holds "
                f"{view.surplus}"
            )
            evidence.report(rules.WRONG_WINDOW, site.name, message)
        elif result is None:
            evidence.report(rules.PHASE, site.name, f"stride {stride} slips")
        else:
            message = f"it spans {before.extent} frames and sees {view.count} of a chunk alone"
            lost = f"first {-result.surplus} of every {result.frames}"
            evidence.report(rules.MISSING_CACHE, site.name, message, lost)
        return None
    ignored = ignored_frames(site.offline, source, before)
    assert isinstance(timing, Flow)
    return replace(
        result,
        warmup=max(result.warmup, ignored),
        blame=_blame_window(site, before, result, cached=cache is not None),
        repaired=view.repaired,
    )


def _geometry(evidence: Evidence, site: Site, position: int) -> tuple[Window, Window]:
    filters = evidence.walk.shape[site.offline.inputs[1]] if site.node.op_type == "Conv" else None
    rank = len(evidence.shape(site))
    offline = windows(site.offline, rank, filters)[position]
    return offline, windows(site.node, rank, filters)[position]


def _blame_window(site: Site, geometry: Window, result: View, *, cached: bool) -> Blame | None:
    """Who is to be named for frames that a window leaves over."""
    if not result.surplus:
        return None
    own = cached and geometry.extent > geometry.stride  # its own cache, but a wrong one
    return Blame(rules.WRONG_WINDOW, site.name) if own else site.view.blame


def insert_zeros(evidence: Evidence, site: Site) -> View | None:
    """The first half of a ConvTranspose: the last frame of a chunk needs its zeros too."""
    view = site.view
    count = len(evidence.shape(site)) - 2
    stride = integers(site.node, "stride", (1,) * count)[view.axis - 1]
    extra = integers(site.node, "output_padding", (0,) * count)[view.axis - 1]
    missing = stride - 1 - extra
    if missing:
        message = f"{missing} zero(s) are missing after each chunk"
        evidence.report(rules.UPSAMPLING_GAP, site.name, message)
        return None
    return replace(
        view,
        frames=view.frames * stride,
        surplus=view.surplus * stride,
        delay=view.delay * stride,
        warmup=view.warmup * stride,
        sparse=view.sparse * stride,
    )


def pad(evidence: Evidence, site: Site) -> View | None:
    """A Pad that stayed must not pad time any more."""
    view, timing = site.view, evidence.timing(site)
    rank = len(evidence.shape(site))
    begin = _pads(site.offline, evidence.walk.graph)[view.axis]
    now = _pads(site.node, evidence.streaming)
    if now[view.axis] or now[rank + view.axis]:
        message = f"pads of {now[view.axis]} and {now[rank + view.axis]} frames along time"
        evidence.report(rules.PADDED_CHUNKS, site.name, message)
        return None
    assert isinstance(timing, Flow)
    return replace(view, delay=view.delay - begin, warmup=max(view.warmup, timing.warmup))


def _pads(node: Node, graph: NeutralGraph) -> list[int]:
    return [int(amount) for amount in graph.constants[node.inputs[1]].reshape(-1)]


def slice_(evidence: Evidence, site: Site) -> View | None:
    """Slice: along time its bounds must mean the same in a chunk as in the whole sequence."""
    view, shape = site.view, evidence.shape(site)
    planned = slice_bounds(site.offline, shape, evidence.walk.graph.constants)
    if view.axis not in planned:
        return mixed(evidence, site)
    low, high, step = evidence.bounds(site.node, view, shape)
    start, end, wanted_step = planned[view.axis]
    if not isinstance(evidence.timing(site), Flow):
        length = shape[view.axis]
        _tail(evidence, site, (low, high), (length - start, length - end))
        return None
    count, frames = -(-(high - low) // step), view.frames // step
    surplus = count - frames
    shift = low - view.surplus - view.delay - start
    if surplus < 0 or step != wanted_step:
        _constant(evidence, site, f"frames {low} to {high - 1}")
        return None
    if shift % step or view.frames % step:
        evidence.report(rules.PHASE, site.name, f"step {step} slips")
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
        blame=view.blame if surplus else None,
    )


def _constant(evidence: Evidence, site: Site, what: str) -> None:
    view = site.view
    message = f"it keeps {what} of the {view.count} that are there, {view.frames} of them new"
    evidence.report(rules.OFFLINE_CONSTANT, site.name, message)


def _tail(evidence: Evidence, site: Site, kept: tuple[int, int], wanted: tuple[int, int]) -> None:
    """Check that a Slice of the last frames takes the last of what is there.

    Args:
        evidence: The two files.
        site: The Slice.
        kept: First and end of what it takes.
        wanted: The same offline, counted from the end.
    """
    view, source = site.view, evidence.source(site)
    padded = max(0, evidence.shape(site)[view.axis] - source.valid)
    back = padded + view.delay - source.delay
    first, last = wanted[0] - back, wanted[1] - back
    if view.count < first:
        message = f"it keeps the last {first - last} frames, {view.count} are there"
        evidence.report(rules.MISSING_CACHE, site.name, message)
    elif kept != (view.count - first, view.count - last):
        _constant(evidence, site, f"frames {kept[0]} to {kept[1] - 1}")


def gather(evidence: Evidence, site: Site) -> View | None:
    """Gather: indices along time count from the end of what is there."""
    view = site.view
    if isinstance(evidence.timing(site), Flow) or site.views[0] is None:
        return mixed(evidence, site)
    length = evidence.shape(site)[view.axis]
    picks = evidence.walk.graph.constants[site.offline.inputs[1]].reshape(-1).tolist()
    now = [int(i) for i in evidence.streaming.constants[site.node.inputs[1]].reshape(-1).tolist()]
    wanted = [view.count - length + int(index) % length for index in picks]
    if min(wanted) < 0:
        message = (
            f"it picks a frame {view.count - min(wanted)} from the end, {view.count} are there"
        )
        evidence.report(rules.MISSING_CACHE, site.name, message)
    elif now != wanted:
        _constant(evidence, site, f"frame(s) {now}")
    return None


def reshape(evidence: Evidence, site: Site) -> View | None:
    """Reshape: its target must fit a chunk."""
    view = site.view
    shape = positions(evidence.shape(site), view.axis, view.count)
    target = [int(size) for size in evidence.streaming.constants[site.node.inputs[1]].reshape(-1)]
    sizes = [shape[i] if size == 0 else size for i, size in enumerate(target)]
    rest = math.prod(size for size in sizes if size != -1)
    fits = math.prod(shape) % rest == 0 if -1 in sizes else rest == math.prod(shape)
    result = mixed(evidence, site)
    if result is None or (fits and sizes[result.axis] in (-1, result.count)):
        return result
    chunk_only = sizes[result.axis] == result.frames
    blame = view.blame if chunk_only and view.blame else Blame(rules.OFFLINE_CONSTANT, site.name)
    evidence.report(blame.rule, blame.node, f"its target {target} does not fit {list(shape)}")
    return None


def recurrent(evidence: Evidence, site: Site) -> View | None:
    """GRU and LSTM: each frame must be seen once."""
    view = site.view
    if view.surplus:
        blame = view.blame or Blame(rules.UNEXPECTED_CACHE, site.name)
        message = f"{site.node.op_type} {site.name} sees {view.surplus} old frame(s) again"
        evidence.report(blame.rule, blame.node, message)
        return None
    return mixed(evidence, site)


VERDICTS: dict[str, Callable[[Evidence, Site], View | None]] = {
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
