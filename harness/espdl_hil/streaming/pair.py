"""A streaming file beside the analysis of its offline graph, and what is found about the two."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from espdl_hil.streaming import rules
from espdl_hil.streaming.findings import find
from espdl_hil.streaming.timing import Flow
from espdl_hil.streaming.transfer.select import slice_bounds
from espdl_hil.streaming.view import Origin, View

if TYPE_CHECKING:
    from espdl_hil.streaming.analysis import Analysis
    from espdl_hil.streaming.findings import Finding, Rule
    from espdl_hil.streaming.graph import NeutralGraph, Node
    from espdl_hil.streaming.timing import Shape, Timing


@dataclass(frozen=True)
class NodePair:
    """One node that both files have.

    Attributes:
        node: In the streaming file.
        offline: In the offline file.
        views: Of its inputs, as seen from the offline node; None for what does not gain frames.
        view: Of the first input that gains frames.
        timing: Timing of the first output, offline.
        shape: Offline shape of the first input.
    """

    node: Node
    offline: Node
    views: tuple[View | None, ...]
    view: View
    timing: Timing
    shape: Shape

    @property
    def name(self) -> str:
        """Name of the node, in both files."""
        return self.node.name


class FilePair:
    """The two files side by side, and what is found about them.

    Attributes:
        analysis: Of the offline graph.
        streaming: The streaming file.
    """

    def __init__(self, analysis: Analysis, streaming: NeutralGraph) -> None:
        self.analysis = analysis
        self.streaming = streaming
        self._refused = frozenset(refusal.node for refusal in analysis.refusals)
        self._findings: dict[tuple[str, str], Finding] = {}

    @property
    def findings(self) -> list[Finding]:
        """What was reported, in the order of the nodes."""
        return list(self._findings.values())

    def report(self, rule: Rule, node: str, message: str, frames: str = "all") -> None:
        """Keep one finding a rule and node, and none about nodes that are refused anyway."""
        if node not in self._refused:
            self._findings.setdefault((rule.id, node), find(rule, node, message, frames))

    def nodes(self, node: Node, offline: Node, views: tuple[View | None, ...]) -> NodePair:
        """Put a node beside its offline one; at least one of its inputs gains frames."""
        analysis = self.analysis
        view = next(view for view in views if view is not None)
        timing, shape = analysis.timing[offline.outputs[0]], analysis.shapes[offline.inputs[0]]
        return NodePair(node, offline, views, view, timing, shape)

    def source(self, nodes: NodePair) -> Flow:
        """Timing of the first input that gains frames, offline."""
        timing = self.analysis.timing[nodes.offline.inputs[nodes.views.index(nodes.view)]]
        assert isinstance(timing, Flow)
        return timing

    def expected(self, name: str) -> View | None:
        """What a right conversion holds in a tensor of the offline model."""
        timing = self.analysis.timing.get(name)
        if not isinstance(timing, Flow):
            return None
        return View.of(timing, self.analysis.clock.chunk)

    def bounds(self, node: Node, view: View, shape: Shape) -> tuple[int, int, int]:
        """Start, end and step of a Slice of the streaming file along time."""
        bounds = slice_bounds(node, view.there(shape), self.streaming.constants)
        return bounds.get(view.axis, (0, view.count, 1))

    def cache_before(self, name: str) -> Node | None:
        """The cache that writes a tensor of the streaming file, if one does."""
        producer = self.streaming.producers.get(name)
        return producer if producer and producer.op_type == "StreamingCache" else None

    def merge(self, nodes: NodePair) -> View | None:
        """One view of all inputs; None, with a finding, if they do not fit together."""
        flows = [view for view in nodes.views if view is not None]
        widest = max(flows, key=lambda view: abs(view.surplus))
        repaired = any(view.repaired for view in flows)
        if len({view.surplus for view in flows}) > 1:
            if widest.origin or not repaired:
                origin = widest.origin or Origin(rules.SKEWED, nodes.name)
                counts = ", ".join(str(view.count) for view in flows)
                message = f"{nodes.node.op_type} {nodes.name} meets tensors of {counts} frames"
                self.report(origin.rule, origin.node, message)
            return None
        if len({view.delay for view in flows}) > 1:
            if not repaired:
                lags = ", ".join(str(view.delay) for view in flows)
                self.report(rules.SKEWED, nodes.name, f"its inputs lag by {lags} frames")
            return None
        return replace(
            widest,
            warmup=max(view.warmup for view in flows),
            clean=all(view.clean for view in flows),
            repaired=repaired,
        )
