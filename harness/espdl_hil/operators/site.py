"""A node under examination: its surroundings, its target, what ESP-DL takes of its operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from espdl_hil.operators.node_view import NodeView

if TYPE_CHECKING:
    from espdl_hil.espdl.graph import Graph, Shape, Tensor, TensorInfo
    from espdl_hil.targets import Target


@dataclass(frozen=True)
class Site(NodeView):
    """What a rule is given.

    Attributes:
        graph: The graph around the node.
        target: The chip.
        width: The node's quant_type: ``S8``, ``S16`` or ``F32``.
        results: Inferred shapes of the outputs.
    """

    graph: Graph
    target: Target
    width: str
    results: tuple[Shape, ...]

    @property
    def quantized(self) -> bool:
        """Whether the node computes on integers."""
        return self.width != "F32"

    def info(self, index: int) -> TensorInfo:
        """What the file says about an input that is present."""
        return self.graph.info(self.node.inputs[index])

    def output(self, index: int = 0) -> TensorInfo:
        """What the file says about an output."""
        return self.graph.value_info[self.node.outputs[index]]

    def stored(self, index: int) -> Tensor | None:
        """The constant behind an input; None when it is missing or computed."""
        if not self.has(index):
            return None
        return self.graph.initializers.get(self.node.inputs[index])


Rule: TypeAlias = Callable[[Site], Iterator[str]]
"""Yields why ESP-DL cannot run the node, or runs it wrongly; may raise `NodeProblem`."""
