"""Work and memory of one run. Judges nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from espdl_hil.operators.node import NodeView
from espdl_hil.operators.registry import OPERATORS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from espdl_hil.espdl.graph import Graph, Node, Shape


WIDENED_BYTES = 8  # of a weight: exact in float64
TABLE_BYTES = 2 * 2**16  # an int16 result for every int16


def activation_bytes(graph: Graph, shapes: Mapping[str, Shape]) -> int:
    """Size of all tensors that are not constants, graph inputs included, together."""
    names = [info.name for info in graph.inputs]
    names += [name for node in graph.nodes for name in node.outputs if name]
    return sum(math.prod(shapes[name]) * graph.value_info[name].dtype.itemsize for name in names)


def prepared_bytes(graph: Graph, shapes: Mapping[str, Shape]) -> int:
    """What kernels prepare at load and keep: weights widened, tables of int16, padded inputs."""
    total = 0
    for node in graph.nodes:
        operator = OPERATORS[node.op_type]
        constants = (graph.initializers[n] for n in node.inputs if n in graph.initializers)
        total += WIDENED_BYTES * sum(tensor.info.size for tensor in constants)
        if node.attributes.get("quant_type") == "S16" and not operator.copies:
            total += TABLE_BYTES
        total += operator.scratch(*_view(node, shapes))
    return total


def node_macs(node: Node, shapes: Mapping[str, Shape]) -> int:
    """Multiply-accumulates of one run of a node; 0 for operators that hardly multiply."""
    return OPERATORS[node.op_type].macs(*_view(node, shapes))


def node_work(node: Node, shapes: Mapping[str, Shape]) -> int:
    """Multiply-accumulates and what pooling windows visit, of one run of a node."""
    return node_macs(node, shapes) + OPERATORS[node.op_type].visits(*_view(node, shapes))


def _view(node: Node, shapes: Mapping[str, Shape]) -> tuple[NodeView, Shape]:
    inputs = tuple(shapes.get(name) for name in node.inputs)
    return NodeView(node, inputs, {}), shapes[node.outputs[0]]
