"""What a fault of a model is, and where it can act. Knows graphs and arrays, not the firmware."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from espdl_hil.espdl import Graph, Node

    Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Fault:
    """Base of all faults."""


@dataclass(frozen=True)
class ModelFault(Fault):
    """A fault in a model.

    Attributes:
        model: Name of the model; None every model that has what the fault acts on.
    """

    model: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class LoadFault(ModelFault):
    """A fault that a model has from its loading on."""

    def fits(self, graph: Graph) -> bool:
        """Whether the graph has what the fault acts on."""
        return True

    def edited(self, graph: Graph, target: str) -> Graph:
        """The graph that is executed instead.

        Raises:
            ConfigError: An element, bit or table entry is out of range.
        """
        return graph

    def arithmetic(self, target: str) -> str:
        """The target whose arithmetic is used instead."""
        return target


@dataclass(frozen=True)
class NodeRun:
    """One node in one step.

    Attributes:
        step: Steps since the last reset, from 0.
        node: The node.
        inputs: Its inputs that are no constants.
        output: Its first output.
        before: What that output's memory held; zeros at first.
        graph: Where its constants and exponents are.
        target: The chip.
    """

    step: int
    node: Node
    inputs: Mapping[str, Array]
    output: Array
    before: Array
    graph: Graph
    target: str


@dataclass(frozen=True)
class StepFault(LoadFault):
    """A fault in the steps of a model: it overrides what goes wrong. Steps count from a reset."""

    def repeats(self, step: int) -> int:
        """How often the step is executed."""
        return 1

    def arrived(self, step: int, inputs: Mapping[str, Array], before: Mapping[str, Array]) -> None:
        """Damage graph inputs in place, in the firmware's memory; *before* came a step before."""

    def forgets(self, step: int, node: Node) -> bool:
        """Whether a node's state is lost before the step."""
        return False

    def keeps(self, node: Node) -> bool:
        """Whether a reset does not reach a node's state."""
        return False

    def computed(self, run: NodeRun) -> Array:
        """What a node gives instead of ``run.output``."""
        return run.output

    def returned(self, step: int, name: str, value: Array, before: Array) -> Array:
        """What a graph output's memory holds instead of *value*; *before* is the last step's."""
        return value


@dataclass(frozen=True)
class NodeFault(StepFault):
    """A fault of one node.

    Attributes:
        node: Name of the node.
    """

    node: str

    def fits(self, graph: Graph) -> bool:
        return any(node.name == self.node for node in graph.nodes)


def damaged(value: Array, seed: int, bits: int) -> Array:
    """*value* with *bits* of its bits flipped, chosen by *seed*."""
    rng = np.random.default_rng(seed)
    raw = np.ascontiguousarray(value).view(np.uint8).reshape(-1).copy()
    for place in rng.choice(8 * raw.size, min(bits, 8 * raw.size), replace=False):
        raw[place // 8] ^= 1 << (place % 8)
    return raw.view(value.dtype).reshape(value.shape)
