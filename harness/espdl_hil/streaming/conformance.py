"""Is a streaming file right? One walk over it, beside the analysis of its offline file.

Whoever made the file, each tensor is followed as a ``View``: which offline frames it holds
in each chunk. Where views do not fit together, a rule is named and the walk goes on with
what a right conversion would hold there, so that one defect gives one finding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from espdl_hil.streaming import rules
from espdl_hil.streaming.attributes import integer
from espdl_hil.streaming.evidence import Evidence, Site
from espdl_hil.streaming.timing import Flow, Opaque, outer_size
from espdl_hil.streaming.transfer.layout import transposed
from espdl_hil.streaming.verdicts import VERDICTS, mixed
from espdl_hil.streaming.view import Blame, View, positions

if TYPE_CHECKING:
    from espdl_hil.streaming.analysis import Walk
    from espdl_hil.streaming.graph import NeutralGraph, Node
    from espdl_hil.streaming.rules import Finding
    from espdl_hil.streaming.timing import Shape


def judge(walk: Walk, streaming: NeutralGraph, accused: frozenset[str]) -> list[Finding]:
    """Walk a streaming file and return what is wrong with it, in the order of the nodes.

    Args:
        walk: Analysis of the offline file.
        streaming: The streaming file.
        accused: Nodes that the analysis of the offline file has refused already.
    """
    evidence = Evidence(walk, streaming, accused)
    Judge(evidence).run()
    return evidence.findings


class Judge:
    """State of one walk over a streaming file.

    Args:
        evidence: The two files.
    """

    def __init__(self, evidence: Evidence) -> None:
        walk = evidence.walk
        self._evidence = evidence
        self._offline = {node.name: node for node in walk.graph.nodes}
        self._present = {node.name for node in evidence.streaming.nodes}
        self._views: dict[str, View | None] = {}  # None: no time, or not known
        self._shapes: dict[str, Shape] = dict(walk.shape)
        self._origins: dict[str, str] = {name: name for name in walk.timing}
        for name, axis in walk.clock.frame_axes.items():
            self._views[name] = View(axis, walk.clock.chunk_frames[name])

    def run(self) -> None:
        """Walk the file; findings are left with the evidence."""
        for node in self._evidence.streaming.nodes:
            offline = self._offline.get(node.name)
            if node.op_type == "StreamingCache":
                self._cache(node)
            elif offline is None or offline.op_type != node.op_type:
                self._inserted(node)
            else:
                self._known(node, offline)
        for position, name in enumerate(self._evidence.walk.graph.outputs):
            self._output(name, position)

    # -- nodes that conversions insert

    def _pass_on(self, node: Node, view: View | None, shape: Shape) -> None:
        self._views[node.outputs[0]] = view
        self._shapes[node.outputs[0]] = shape
        self._origins[node.outputs[0]] = self._origins.get(node.inputs[0], "")

    def _cache(self, node: Node) -> None:
        name = node.inputs[0]
        view, shape = self._views.get(name), self._shapes.get(name, ())
        if view is None:
            timing = self._evidence.walk.timing.get(self._origins.get(name, ""), Opaque())
            if not isinstance(timing, Opaque):
                message = f"{name} does not gain frames with time"
                self._evidence.report(rules.UNEXPECTED_CACHE, node.name, message)
            self._pass_on(node, None, shape)
            return
        axis = integer(node, "frame_axis", 1) % len(shape)
        there = list(positions(shape, view.axis, view.count))
        if axis != view.axis:
            message = f"frame_axis is {axis}, time is axis {view.axis} of {there}"
            self._evidence.report(rules.WRONG_AXIS, node.name, message)
        elif outer_size(shape, axis) > 1:
            message = f"axes before axis {axis} of {there} hold {outer_size(shape, axis)} rows"
            self._evidence.report(rules.NOT_OUTERMOST, node.name, message)
        if view.surplus:
            blame = view.blame or Blame(rules.UNEXPECTED_CACHE, node.name)
            message = f"{name} repeats {view.surplus} frame(s), which {node.name} keeps twice"
            self._evidence.report(blame.rule, blame.node, message)
            view = replace(view, clean=True, repaired=True, blame=None)
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
            low, high, step = self._evidence.bounds(node, view, shape)
            if step != 1:
                self._evidence.report(rules.REWIRED, node.name, "a Slice with steps was inserted")
            self._pass_on(node, view.cut(low, view.count - high), shape)
        elif node.op_type in ("Identity", "RequantizeLinear"):
            self._pass_on(node, view, shape)
        else:
            message = f"{node.op_type} is not in the offline file"
            self._evidence.report(rules.REWIRED, node.name, message)
            self._pass_on(node, None, shape)

    # -- nodes that both files have

    def _known(self, node: Node, offline: Node) -> None:
        evidence = self._evidence
        views = tuple(self._view_of(node, offline, index) for index in range(len(node.inputs)))
        timings = [evidence.walk.timing.get(name) for name in offline.outputs]
        result: View | None = None
        if any(views) and not isinstance(timings[0], Opaque):
            result = VERDICTS.get(node.op_type, mixed)(evidence, Site(node, offline, views))
        for output, source, timing in zip(node.outputs, offline.outputs, timings, strict=True):
            gains = any(views) and isinstance(timing, Flow)
            self._views[output] = result or evidence.expected(source) if gains else None
            self._origins[output] = source
            self._shapes[output] = evidence.walk.shape.get(source, ())

    def _view_of(self, node: Node, offline: Node, index: int) -> View | None:
        """The view of an input, as the offline node's own input would be."""
        name = node.inputs[index]
        view = self._views.get(name)
        if not name or view is None:
            return None
        view = self._bridge(view, node, offline.inputs[index], self._origins[name])
        cache = self._evidence.cache_before(name)
        if cache is None or view.surplus <= 0:
            return view
        shared = len(self._evidence.streaming.consumers[name]) > 1
        blame = (
            Blame(rules.SHARED_CACHE, node.name)
            if shared
            else Blame(rules.UNEXPECTED_CACHE, cache.name)
        )
        return replace(view, blame=view.blame or blame)

    def _bridge(self, view: View, node: Node, wanted: str, got: str) -> View:
        """Account for offline nodes (Pad, Slice) between two tensors that the file has removed."""
        walk = self._evidence.walk
        name = wanted
        while name != got:
            producer = walk.graph.producers.get(name)
            if producer is None or producer.name in self._present:
                message = f"it reads {got}, offline it reads {wanted}"
                self._evidence.report(rules.REWIRED, node.name, message)
                return self._evidence.expected(wanted) or view
            name = producer.inputs[0]
        before, after = walk.timing[got], walk.timing[wanted]
        if got == wanted or not isinstance(before, Flow) or not isinstance(after, Flow):
            return view
        return replace(
            view,
            axis=after.axis,
            delay=view.delay + after.delay - before.delay,
            warmup=max(after.warmup, view.warmup + after.warmup - before.warmup),
            clean=view.clean and (after.clean or not before.clean),
        )

    # -- ends

    def _output(self, name: str, position: int) -> None:
        evidence = self._evidence
        timing = evidence.walk.timing[name]
        outputs = evidence.streaming.outputs
        view = self._views.get(name if name in outputs else outputs[position])
        if view is None or not isinstance(timing, Flow):
            return
        producer = evidence.walk.graph.producers.get(name)
        at = producer.name if producer else ""
        if view.surplus:
            blame = view.blame or Blame(rules.WRONG_COUNT, at)
            message = f"output {name} has {view.count} frames per chunk, expected {view.frames}"
            evidence.report(blame.rule, blame.node, message)
        elif view.delay != timing.delay and not view.repaired:
            message = f"output {name} lags by {view.delay} frames, expected {timing.delay}"
            evidence.report(rules.SKEWED, at, message)
        elif view.warmup > timing.warmup and not view.repaired:
            message = f"output {name} warms up for {view.warmup} frames, expected {timing.warmup}"
            evidence.report(rules.COLD_HISTORY, at, message, f"first {view.warmup}")
