"""Makes a model compute wrongly: loads it with faults in it.

The interpreter itself stays untouched: with a fault in its steps, a model is executed node by
node, each node a graph of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espdl_hil import interpreter
from espdl_hil.interpreter.node_graph import activations, cut_node
from espdl_hil.simulator.faults import LoadFault, NodeRun, StepFault

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from espdl_hil.espdl import Array, Graph, Node


def load_faulty(
    graph: Graph, target: str, faults: Iterable[LoadFault]
) -> tuple[interpreter.Session | FaultyModel, tuple[LoadFault, ...]]:
    """Load a model with faults in it.

    Args:
        graph: The model.
        target: Target of the devkit.
        faults: In the order in which they act.

    Returns:
        What executes it, and the faults that found something to act on.

    Raises:
        ArtifactError: The target cannot run the graph.
        ConfigError: An element, bit or table entry is out of range.
    """
    acting = tuple(fault for fault in faults if fault.fits(graph))
    for fault in acting:
        graph, target = fault.edited(graph, target), fault.arithmetic(target)
    in_steps = [fault for fault in acting if isinstance(fault, StepFault)]
    if in_steps:
        return FaultyModel(graph, target, in_steps), acting
    return interpreter.load(graph, target), acting


class FaultyModel:
    """A model in execution, like ``interpreter.Session``, with faults in its steps.

    Args:
        graph: The model.
        target: The chip.
        faults: In the order in which they act.

    Attributes:
        inputs: Graph inputs with their shapes as inferred.
        outputs: Graph outputs likewise.
        exponents: By tensor name.
        trace: Every node output of the last step, by name.
    """

    def __init__(self, graph: Graph, target: str, faults: Sequence[StepFault]) -> None:
        whole = interpreter.load(graph, target)
        self.inputs, self.outputs, self.exponents = whole.inputs, whole.outputs, whole.exponents
        self.trace: dict[str, Array] = {n: np.zeros_like(v) for n, v in whole.trace.items()}
        self._graph, self._target, self._faults = graph, target, faults
        sizes = {info.name: np.empty(info.shape, info.dtype) for info in self.inputs} | self.trace
        self._nodes = [
            (node, interpreter.load(cut_node(graph, node, sizes), target)) for node in graph.nodes
        ]
        self._received = {info.name: sizes[info.name] for info in self.inputs}
        self._returned = {info.name: self.trace[info.name] for info in self.outputs}
        self._step = 0

    def reset(self) -> None:
        """Zero the caches that a reset reaches."""
        self._step = 0
        for node, alone in self._nodes:
            if not any(fault.keeps(node) for fault in self._faults):
                alone.reset()

    def step(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once.

        Args:
            inputs: Every graph input; faults damage these arrays themselves.

        Returns:
            Graph outputs by name, as they are in memory afterwards.
        """
        step, received = self._step, {name: value.copy() for name, value in inputs.items()}
        for fault in self._faults:
            fault.arrived(step, inputs, self._received)
        for _ in range(max(fault.repeats(step) for fault in self._faults)):
            self._run(inputs)
        returned = {name: self.trace[name] for name in self._returned}
        for fault in self._faults:
            for name, before in self._returned.items():
                returned[name] = fault.returned(step, name, returned[name], before)
        self._received, self._returned, self._step = received, returned, step + 1
        return returned

    def _run(self, inputs: Mapping[str, Array]) -> None:
        tensors = dict(inputs)
        for node, alone in self._nodes:
            if any(fault.forgets(self._step, node) for fault in self._faults):
                alone.reset()
            given = {name: tensors[name] for name in activations(self._graph, node)}
            results = alone.step(given)
            tensors |= results
            if node.outputs[0] in results:
                tensors[node.outputs[0]] = self._faulty(node, given, results[node.outputs[0]])
        self.trace = {name: np.ascontiguousarray(tensors[name]) for name in self.trace}

    def _faulty(self, node: Node, given: Mapping[str, Array], output: Array) -> Array:
        before = self.trace[node.outputs[0]]
        for fault in self._faults:
            run = NodeRun(self._step, node, given, output, before, self._graph, self._target)
            output = fault.computed(run)
        return output
