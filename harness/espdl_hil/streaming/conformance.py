"""Is a streaming file right? One walk over it, beside the analysis of its offline graph.

Whoever made the file, each tensor is followed as a ``View``: which offline frames it holds
in each chunk. Where views do not fit together, a rule is named and the walk goes on with
what a right conversion would hold there, so that one defect gives one finding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from espdl_hil.streaming import rules
from espdl_hil.streaming.graph import integer
from espdl_hil.streaming.pair import FilePair
from espdl_hil.streaming.timing import Flow, Opaque, outer_size
from espdl_hil.streaming.transfer.layout import transposed
from espdl_hil.streaming.view import Origin, View
from espdl_hil.streaming.view_transfer import VIEW_TRANSFERS, mixed

if TYPE_CHECKING:
    from espdl_hil.streaming.analysis import Analysis
    from espdl_hil.streaming.findings import Finding
    from espdl_hil.streaming.graph import NeutralGraph, Node
    from espdl_hil.streaming.timing import Shape


_REMOVABLE = ("Identity", "Pad", "Slice")  # what caches replace, and what does nothing


def check_conformance(analysis: Analysis, streaming: NeutralGraph) -> list[Finding]:
    """Walk a streaming file and return what is wrong with it, in the order of the nodes.

    Args:
        analysis: Of the offline graph; nothing is said of the nodes that it has refused.
        streaming: The streaming file.
    """
    pair = FilePair(analysis, streaming)
    _Conformance(pair).run()
    return pair.findings


class _Conformance:
    """State of one walk over a streaming file."""

    def __init__(self, pair: FilePair) -> None:
        analysis = pair.analysis
        self._pair = pair
        self._offline = {node.name: node for node in analysis.graph.nodes}
        self._present = {node.name for node in pair.streaming.nodes}
        self._views: dict[str, View | None] = {}  # None: no time, or not known
        self._shapes = dict(analysis.shapes)
        self._offline_names = {name: name for name in analysis.timing}
        for name, axis in analysis.clock.frame_axes.items():
            self._views[name] = View(axis, analysis.clock.chunk_frames[name])

    def run(self) -> None:
        """Walk the file; findings are left with the pair."""
        for node in self._pair.streaming.nodes:
            offline = self._offline.get(node.name)
            if node.op_type == "StreamingCache":
                self._cache(node)
            elif offline is None or offline.op_type != node.op_type:
                self._inserted(node)
            else:
                self._known(node, offline)
        expected, written = self._pair.analysis.graph.outputs, self._pair.streaming.outputs
        renamed = iter(name for name in written if name not in expected)
        for name in expected:
            self._output(name, name if name in written else next(renamed, ""))

    # -- nodes that conversions insert

    def _pass_on(self, node: Node, view: View | None, shape: Shape) -> None:
        self._views[node.outputs[0]] = view
        self._shapes[node.outputs[0]] = shape
        self._offline_names[node.outputs[0]] = self._offline_names.get(node.inputs[0], "")

    def _cache(self, node: Node) -> None:
        name = node.inputs[0]
        view, shape = self._views.get(name), self._shapes.get(name, ())
        if view is None:
            timing = self._pair.analysis.timing.get(self._offline_names.get(name, ""), Opaque())
            if not isinstance(timing, Opaque):
                message = f"{name} does not gain frames with time"
                self._pair.report(rules.UNEXPECTED_CACHE, node.name, message)
            self._pass_on(node, None, shape)
            return
        axis = integer(node, "frame_axis", 1) % len(shape)
        there = list(view.there(shape))
        if axis != view.axis:
            message = f"frame_axis is {axis}, time is axis {view.axis} of {there}"
            self._pair.report(rules.WRONG_AXIS, node.name, message)
        elif outer_size(shape, axis) > 1:
            message = f"axes before axis {axis} of {there} hold {outer_size(shape, axis)} rows"
            self._pair.report(rules.NOT_OUTERMOST, node.name, message)
        if view.surplus:
            origin = view.origin or Origin(rules.UNEXPECTED_CACHE, node.name)
            message = f"{name} repeats {view.surplus} frame(s), which {node.name} keeps twice"
            self._pair.report(origin.rule, origin.node, message)
            view = replace(view, clean=True, repaired=True, origin=None)
        held = integer(node, "window_size", 1) - 1
        self._pass_on(node, replace(view, surplus=held), shape)

    def _inserted(self, node: Node) -> None:
        """A node that the offline file does not have."""
        view, shape = self._views.get(node.inputs[0]), self._shapes.get(node.inputs[0], ())
        if view is None:
            self._pass_on(node, None, shape)
        elif node.op_type == "Transpose":
            order = transposed(node, len(shape))
            moved = replace(view, axis=order.index(view.axis))
            self._pass_on(node, moved, tuple(shape[axis] for axis in order))
        elif node.op_type == "Slice":
            low, high, step = self._pair.bounds(node, view, shape)
            if step != 1:
                self._pair.report(rules.REWIRED, node.name, "a Slice with steps was inserted")
            self._pass_on(node, view.cut(low, view.count - high), shape)
        elif node.op_type in ("Identity", "RequantizeLinear"):
            self._pass_on(node, view, shape)
        else:
            message = f"{node.op_type} is not in the offline file"
            self._pair.report(rules.REWIRED, node.name, message)
            self._pass_on(node, None, shape)

    # -- nodes that both files have

    def _known(self, node: Node, offline: Node) -> None:
        pair = self._pair
        views = tuple(self._view_of(node, offline, index) for index in range(len(node.inputs)))
        timings = [pair.analysis.timing.get(name) for name in offline.outputs]
        result: View | None = None
        if any(views) and not isinstance(timings[0], Opaque):
            nodes = pair.nodes(node, offline, views)
            result = VIEW_TRANSFERS.get(node.op_type, mixed)(pair, nodes)
        for output, source, timing in zip(node.outputs, offline.outputs, timings, strict=True):
            gains = any(views) and isinstance(timing, Flow)
            self._views[output] = result or pair.expected(source) if gains else None
            self._offline_names[output] = source
            self._shapes[output] = pair.analysis.shapes.get(source, ())

    def _view_of(self, node: Node, offline: Node, index: int) -> View | None:
        """The view of an input, as the offline node's own input would be."""
        name = node.inputs[index]
        view = self._views.get(name)
        if not name or view is None:
            return None
        view = self._bridge(view, node, offline.inputs[index], self._offline_names[name])
        cache = self._pair.cache_before(name)
        if cache is None or view.surplus <= 0:
            return view
        origin = Origin(rules.UNEXPECTED_CACHE, cache.name)
        if len(self._pair.streaming.consumers[name]) > 1:
            origin = Origin(rules.SHARED_CACHE, node.name)
        return replace(view, origin=view.origin or origin)

    def _bridge(self, view: View, node: Node, wanted: str, got: str) -> View:
        """Account for offline nodes (Pad, Slice) between two tensors that the file has removed."""
        analysis = self._pair.analysis
        name = wanted
        while name != got:
            producer = analysis.graph.producers.get(name)
            there = producer is None or producer.name in self._present
            if producer is None or there or producer.op_type not in _REMOVABLE:
                message = f"it reads {got}, offline it reads {wanted}"
                self._pair.report(rules.REWIRED, node.name, message)
                return self._pair.expected(wanted) or view
            name = producer.inputs[0]
        before, after = analysis.timing[got], analysis.timing[wanted]
        if got == wanted or not isinstance(before, Flow) or not isinstance(after, Flow):
            return view
        if before.rate != after.rate:
            chunk = analysis.clock.chunk
            message = (
                f"it reads {before.rate * chunk} frames of {got} per chunk, offline as many as "
                f"{after.rate * chunk} of {wanted}"
            )
            self._pair.report(rules.WRONG_COUNT, node.name, message)
            return self._pair.expected(wanted) or view
        return replace(
            view,
            axis=after.axis,
            delay=view.delay + after.delay - before.delay,
            warmup=max(after.warmup, view.warmup + after.warmup - before.warmup),
            clean=view.clean and (after.clean or not before.clean),
        )

    # -- ends

    def _output(self, name: str, written: str) -> None:
        pair = self._pair
        timing = pair.analysis.timing[name]
        view = self._views.get(written)
        if view is None or not isinstance(timing, Flow):
            return
        producer = pair.analysis.graph.producers.get(name)
        at = producer.name if producer else ""
        if view.surplus:
            origin = view.origin or Origin(rules.WRONG_COUNT, at)
            message = f"output {name} has {view.count} frames per chunk, expected {view.frames}"
            pair.report(origin.rule, origin.node, message)
        elif view.delay != timing.delay and not view.repaired:
            message = f"output {name} lags by {view.delay} frames, expected {timing.delay}"
            pair.report(rules.SKEWED, at, message)
        elif view.warmup > timing.warmup and not view.repaired:
            message = f"output {name} warms up for {view.warmup} frames, expected {timing.warmup}"
            pair.report(rules.COLD_HISTORY, at, message, f"first {view.warmup}")
