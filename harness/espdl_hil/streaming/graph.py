"""A graph that analysis and lint read alike, whether it came from a file or from the exporter."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from espdl_hil.espdl import Node

if TYPE_CHECKING:
    from collections.abc import Mapping

    from espdl_hil.espdl import Array, Graph, Shape

__all__ = ["NeutralGraph", "Node", "from_espdl", "integer", "integers", "text"]


@dataclass(frozen=True)
class NeutralGraph:
    """Nodes and constants in the file's own layout (NWC / NHWC), nothing of where they came from.

    Attributes:
        nodes: In topological order. Whoever makes the graph gives attributes as a file has them:
            numbers, words and tuples.
        constants: By name, in the shape that is stored; filters may be packed, so that only
            their shape means something here.
        shapes: Shapes of the graph inputs. What a file says of other tensors is not to be
            trusted (a streaming export keeps offline lengths), so it is not kept.
        inputs: Names of the graph inputs that are not constants.
        outputs: Names of the graph outputs.
        exponents: ``real = q * 2**exponent`` by tensor name, where it is known.
        itemsizes: Bytes of one element by tensor name, where it is known.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    shapes: Mapping[str, Shape]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    exponents: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    itemsizes: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def producers(self) -> dict[str, Node]:
        """The node that writes each tensor."""
        return {output: node for node in self.nodes for output in node.outputs if output}

    @cached_property
    def consumers(self) -> dict[str, list[tuple[Node, int]]]:
        """The nodes that read each tensor, with the index of the input."""
        found: dict[str, list[tuple[Node, int]]] = {}
        for node in self.nodes:
            for index, name in enumerate(node.inputs):
                if name:
                    found.setdefault(name, []).append((node, index))
        return found

    def vector(self, node: Node, index: int) -> list[int]:
        """The elements of an input of which ESP-DL asks that it is a constant."""
        return [int(value) for value in self.constants[node.inputs[index]].reshape(-1)]


def from_espdl(graph: Graph) -> NeutralGraph:
    """Take over a graph that was read from a file, offline or streaming; arrays are shared."""
    constants = {name: tensor.array for name, tensor in graph.initializers.items()}
    infos = {**graph.value_info, **{name: t.info for name, t in graph.initializers.items()}}
    return NeutralGraph(
        nodes=graph.nodes,
        constants=constants,
        shapes={info.name: info.shape for info in graph.inputs},
        inputs=tuple(info.name for info in graph.inputs),
        outputs=tuple(info.name for info in graph.outputs),
        exponents={name: info.exponents for name, info in infos.items()},
        itemsizes={name: info.dtype.itemsize for name, info in infos.items()},
    )


def integer(node: Node, name: str, default: int) -> int:
    """An attribute that is one integer."""
    value: Any = node.attributes.get(name)
    return default if value is None else int(value)


def text(node: Node, name: str, default: str) -> str:
    """An attribute that is a word."""
    value = node.attributes.get(name)
    return default if value is None else str(value)


def integers(node: Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """An attribute that is a list of integers; an empty one counts as missing."""
    value: Any = node.attributes.get(name) or default
    return tuple(int(entry) for entry in value)
