"""One node cut out of a graph, to be executed alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from espdl_hil.espdl import Array, Graph, Node


def activations(graph: Graph, node: Node) -> list[str]:
    """The node's inputs that are computed at run time, each once, in order."""
    return [n for n in dict.fromkeys(node.inputs) if n and n not in graph.initializers]


def cut_node(graph: Graph, node: Node, tensors: Mapping[str, Array]) -> Graph:
    """A graph of one node.

    Args:
        graph: Where the node is from; its constants come along.
        node: The node.
        tensors: Its inputs and outputs, for the shapes that they have at run time.
    """
    constants = {*node.inputs, node.attributes.get("lut")}
    sources = activations(graph, node)
    results = [name for name in node.outputs if name in tensors]
    infos = {
        name: replace(graph.value_info[name], shape=tensors[name].shape)
        for name in (*sources, *results)
    }
    return replace(
        graph,
        inputs=tuple(infos[name] for name in sources),
        outputs=tuple(infos[name] for name in results),
        nodes=(node,),
        initializers={n: t for n, t in graph.initializers.items() if n in constants},
        value_info=infos,
        test_inputs={},
        test_outputs={},
    )
