"""Work and memory of one run. Judges nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from espdl_hil.operators.node import NodeView
from espdl_hil.operators.registry import OPERATORS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from espdl_hil.espdl.graph import Graph, Node, Shape


def activation_bytes(graph: Graph, shapes: Mapping[str, Shape]) -> int:
    """Size of all tensors that are not constants, graph inputs included, together."""
    names = [info.name for info in graph.inputs]
    names += [name for node in graph.nodes for name in node.outputs if name]
    return sum(math.prod(shapes[name]) * graph.value_info[name].dtype.itemsize for name in names)


def node_macs(node: Node, shapes: Mapping[str, Shape]) -> int:
    """Multiply-accumulates of one run of a node; 0 for operators that hardly multiply."""
    return OPERATORS[node.op_type].macs(*_view(node, shapes))


def node_work(node: Node, shapes: Mapping[str, Shape]) -> int:
    """Multiply-accumulates and what pooling windows visit, of one run of a node."""
    return node_macs(node, shapes) + OPERATORS[node.op_type].visits(*_view(node, shapes))


def _view(node: Node, shapes: Mapping[str, Shape]) -> tuple[NodeView, Shape]:
    inputs = tuple(shapes.get(name) for name in node.inputs)
    return NodeView(node, inputs, {}), shapes[node.outputs[0]]
