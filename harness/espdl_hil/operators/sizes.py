"""Sizes of a graph: multiply-accumulates, weights, activations, state. Judges nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from espdl_hil.operators.node import NodeView
from espdl_hil.operators.registry import OPERATORS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from espdl_hil.espdl.graph import Graph, Node, Shape


@dataclass(frozen=True)
class Cache:
    """The state of one StreamingCache node.

    Attributes:
        node: Its name.
        tensor: The tensor that it extends.
        window_frames: Frames that the consumer sees of the past and the first new one.
        frame_axis: The time axis, in the file's layout; not negative.
        state_bytes: Size of the frames that it keeps, ``window_frames - 1`` of them.
    """

    node: str
    tensor: str
    window_frames: int
    frame_axis: int
    state_bytes: int


@dataclass(frozen=True)
class GraphStats:
    """Sizes of a graph at given input shapes.

    Attributes:
        macs: Multiply-accumulates of one run by node name, where there are any.
        parameter_bytes: All constants, without padding.
        activation_bytes: All tensors that are not constants, together.
        state_bytes: What a streaming model keeps between runs.
        caches: StreamingCache nodes in order.
    """

    macs: dict[str, int]
    parameter_bytes: int
    activation_bytes: int
    state_bytes: int
    caches: tuple[Cache, ...]


def graph_stats(graph: Graph, shapes: Mapping[str, Shape]) -> GraphStats:
    """Measure a graph.

    Args:
        graph: A graph from `load_graph`.
        shapes: What `infer_shapes` gave.
    """
    macs = {node.name: node_macs(node, shapes) for node in graph.nodes}
    caches = tuple(
        _cache(graph, node, shapes) for node in graph.nodes if node.op_type == "StreamingCache"
    )
    return GraphStats(
        macs={name: count for name, count in macs.items() if count},
        parameter_bytes=sum(tensor.info.nbytes for tensor in graph.initializers.values()),
        activation_bytes=activation_bytes(graph, shapes),
        state_bytes=sum(cache.state_bytes for cache in caches),
        caches=caches,
    )


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


def _cache(graph: Graph, node: Node, shapes: Mapping[str, Shape]) -> Cache:
    tensor = node.inputs[0]
    shape = shapes[tensor]
    window, axis = node.attributes.get("window_size", 1), node.attributes.get("frame_axis", 1)
    assert isinstance(window, int) and isinstance(axis, int)  # infer_shapes has looked  # noqa: PT018
    per_frame = math.prod(shape) // shape[axis] * graph.value_info[tensor].dtype.itemsize
    return Cache(node.name, tensor, window, axis % len(shape), (window - 1) * per_frame)
