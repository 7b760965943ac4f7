"""Where the device first leaves the expected trace. Digests first, values of one node last."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.diagnosis.node_replay import NodeReplay
from espdl_hil.diagnosis.replay import digest, same
from espdl_hil.interpreter.node_graph import activations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from espdl_hil.compare import Array, Tensors
    from espdl_hil.diagnosis.mismatch import Look, Mismatch, Probe
    from espdl_hil.espdl import Graph, Node


@dataclass
class Rerun:
    """The stream, run again on the device, with a digest of every tensor it can show.

    Attributes:
        mismatch: The stream that went wrong.
        probe: The device.
        names: Graph inputs, then node outputs in order of execution.
        looks: One look a chunk.
        traces: What the host expects, one trace a chunk.
    """

    mismatch: Mismatch
    probe: Probe
    names: tuple[str, ...]
    looks: Sequence[Look]
    traces: Sequence[Tensors]
    _values: dict[str, Sequence[Look]] = field(default_factory=dict)

    def values(self, name: str) -> list[Array]:
        """A tensor at each chunk, as the device holds it; fetched once."""
        if name not in self._values:
            self._values[name] = self.probe.values([name], len(self.looks))
        return [look.seen[name] for look in self._values[name]]

    def agrees(self, chunk: int, name: str) -> bool:
        """Whether the device holds the expected tensor; also if it cannot show it.

        Values are fetched only where equal is not the question: of float tensors, and if the
        mismatch has a tolerance.
        """
        seen, expected = self.looks[chunk].seen.get(name), self.traces[chunk][name]
        if seen is None or seen == digest(expected):
            return True
        tolerance = self.mismatch.tolerance
        if expected.dtype.kind != "f" and not tolerance.max_lsb:
            return False
        return same(expected, self.values(name)[chunk], tolerance)

    def first(self) -> tuple[int, str] | None:
        """Chunk and name of the first tensor that differs: earliest chunk, then first to run.

        Everything that this tensor is made from is as expected: the node's inputs run before it,
        its state is of the chunks before.
        """
        for chunk in range(len(self.looks)):
            for name in self.names:
                if not self.agrees(chunk, name):
                    return chunk, name
        return None

    def count_before(self, chunk: int, name: str) -> int:
        """Tensors of the chunk that were seen to agree before that one ran."""
        before = self.names[: self.names.index(name)]
        return sum(1 for n in before if n in self.looks[chunk].seen)

    def node_replay(self, chunk: int, name: str) -> NodeReplay:
        """What the node of *name*, wrong first in *chunk*, gave wherever it was fed rightly."""
        node = maker(self.mismatch.graph, name)
        sources = activations(self.mismatch.graph, node)
        numbers = tuple(
            number
            for number in range(len(self.looks))
            if number <= chunk or all(self.agrees(number, source) for source in sources)
        )
        traces = [self.traces[number] for number in numbers]
        values = self.values(name)
        return NodeReplay(
            mismatch=self.mismatch,
            node=node,
            output=name,
            numbers=numbers,
            inputs=tuple({source: trace[source] for source in sources} for trace in traces),
            expected=np.stack([trace[name] for trace in traces]),
            observed=np.stack([values[number] for number in numbers]),
        )


def rerun(mismatch: Mismatch, probe: Probe, traces: Sequence[Tensors]) -> Rerun:
    """Run the stream again on the device; *traces* are what the host expects of each chunk."""
    inputs = [info.name for info in mismatch.graph.inputs]
    nodes = [name for node in mismatch.graph.nodes for name in node.outputs if name]
    names = tuple(name for name in dict.fromkeys((*inputs, *nodes)) if name in traces[0])
    return Rerun(mismatch, probe, names, probe.digests(names, len(traces)), traces)


def maker(graph: Graph, name: str) -> Node:
    """The node that computes a tensor."""
    return next(node for node in graph.nodes if name in node.outputs)
