"""A device that is wrong on purpose: the interpreter, node by node, with a fault hooked in.

Everything that a real device could do wrong is a method of ``Flaw`` that does nothing; a fault
overrides one.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil import interpreter
from espdl_hil.diagnosis.mismatch import Look
from espdl_hil.diagnosis.replay import activations, cut_node

if TYPE_CHECKING:
    from collections.abc import Sequence

    from espdl_hil.diagnosis.mismatch import Array, Tensors
    from espdl_hil.espdl import Graph, Node
    from faults.subjects import Subject


class Flaw:
    """What is wrong with a device; this one is sound.

    Attributes:
        passing: The fault is gone when the stream is run again.
    """

    passing = False

    def artifact(self, graph: Graph) -> Graph:
        """The graph that the device really runs."""
        return graph

    def target(self, target: str) -> str:
        """The target whose arithmetic it really uses."""
        return target

    def order(self, count: int) -> list[list[int]]:
        """For each answer, the chunks that are run for it; the last one gives it."""
        return [[number] for number in range(count)]

    def sent(self, chunk: int, name: str, value: Array) -> Array:
        """A graph input as it arrives."""
        return value

    def loses_state(self, chunk: int, node: Node) -> bool:
        """Whether a cache is cleared before a chunk."""
        return False

    def node(self, chunk: int, node: Node, inputs: Tensors, output: Array, before: Array) -> Array:
        """What a node gives instead; *before* is what its memory held."""
        return output

    def fed_back(self, chunk: int, name: str, value: Array) -> Array:
        """A recurrent state on its way to the next step."""
        return value

    def returned(self, chunk: int, name: str, value: Array, before: Array) -> Array:
        """A graph output as the host receives it."""
        return value

    def left_over(self, subject: Subject) -> Sequence[Tensors]:
        """Chunks that ran before, without a reset since."""
        return ()


class Device:
    """Runs a subject's stream with a flaw, and lets itself be looked into."""

    def __init__(self, subject: Subject, flaw: Flaw) -> None:
        self._subject = subject
        self._flaw = flaw
        self._graph = flaw.artifact(subject.graph)
        self._target = flaw.target(subject.target)
        self._sound = Flaw()

    def first_run(self) -> list[dict[str, Array]]:
        """The run that a test judges: graph outputs as received."""
        return [dict(look.outputs) for look in self._run(self._flaw, (), len(self._subject.chunks))]

    def digests(self, names: Sequence[str], chunks: int) -> list[Look]:
        """See ``Probe``."""
        looks = self.values(names, chunks)
        return [
            Look(look.outputs, {n: zlib.crc32(v.tobytes()) for n, v in look.seen.items()})
            for look in looks
        ]

    def values(self, names: Sequence[str], chunks: int) -> list[Look]:
        """See ``Probe``."""
        flaw = self._sound if self._flaw.passing else self._flaw
        return self._run(flaw, names, chunks)

    def _run(self, flaw: Flaw, names: Sequence[str], count: int) -> list[Look]:
        run = _Run(self._subject, flaw, self._graph, self._target)
        for chunk in flaw.left_over(self._subject):
            run.step(-1, chunk)
        looks = []
        received: dict[str, Array] = {}
        for number, course in enumerate(flaw.order(len(self._subject.chunks))[:count]):
            for which in course:
                tensors = run.step(number, self._subject.chunks[which])
            received = {
                info.name: flaw.returned(
                    number,
                    info.name,
                    tensors[info.name],
                    received.get(info.name, np.zeros_like(tensors[info.name])),
                )
                for info in self._graph.outputs
            }
            seen = {n: np.ascontiguousarray(tensors[n]) for n in names if n in tensors}
            looks.append(Look(received, seen))
        return looks


class _Run:
    """One boot of the device."""

    def __init__(self, subject: Subject, flaw: Flaw, graph: Graph, target: str) -> None:
        self._flaw, self._graph, self._target = flaw, graph, target
        self._sessions: dict[str, interpreter.Session] = {}
        self._memory: dict[str, Array] = {}
        self._feedback = dict(subject.state)
        self._state = {
            info.name: np.zeros(info.shape, info.dtype)
            for info in graph.inputs
            if info.name in subject.state
        }
        self._shapes = interpreter.load(graph, target)

    def step(self, chunk: int, inputs: Tensors) -> dict[str, Array]:
        """Run every node once; all tensors by name."""
        flaw = self._flaw
        tensors = {name: flaw.sent(chunk, name, value) for name, value in inputs.items()}
        tensors |= self._state
        for node in self._graph.nodes:
            for name, value in self._execute(chunk, node, tensors).items():
                before = self._memory.get(name, np.zeros_like(value))
                fed = {source: tensors[source] for source in activations(self._graph, node)}
                tensors[name] = flaw.node(chunk, node, fed, value, before)
                self._memory[name] = tensors[name]
        self._state = {
            sink: flaw.fed_back(chunk, sink, tensors[source])
            for sink, source in self._feedback.items()
        }
        return tensors

    def _execute(self, chunk: int, node: Node, tensors: dict[str, Array]) -> dict[str, Array]:
        session = self._sessions.get(node.name)
        if session is None:
            shaped = {**tensors, **{n: self._shapes.trace[n] for n in node.outputs if n}}
            alone = cut_node(self._graph, node, shaped)
            session = self._sessions[node.name] = interpreter.load(alone, self._target)
        if self._flaw.loses_state(chunk, node):
            session.reset()
        return session.step({n: tensors[n] for n in activations(self._graph, node)})
