"""A graph as plain values, for ``inspect``. Decides nothing, prints nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from espdl_hil.espdl.graph import Tensor
from espdl_hil.operators.inference import try_shapes
from espdl_hil.operators.node import NodeView
from espdl_hil.operators.sizes import activation_bytes, node_macs
from espdl_hil.targets import TARGETS

if TYPE_CHECKING:
    from espdl_hil.espdl.graph import Attribute, Graph, Node, Shape, TensorInfo

CACHE = "StreamingCache"
TARGET_KEY = "target"  # metadata that newer exporters write


def possible_targets(graph: Graph) -> tuple[str, ...]:
    """Targets that the file could be for.

    The format does not name one. Some exporters write metadata; the order of the filters tells
    the vector targets from ``c``; exponents per channel exist on esp32p4 only.

    Args:
        graph: A graph from `load_graph`.
    """
    named = graph.metadata.get(TARGET_KEY)
    if named in TARGETS:
        return (named,)
    weights = [
        graph.initializers[node.inputs[1]]
        for node in graph.nodes
        if node.op_type in ("Conv", "Gemm")
        and node.inputs[1:2]
        and node.inputs[1] in graph.initializers
    ]
    if any(len(tensor.info.exponents) > 1 for tensor in weights):
        return ("esp32p4",)
    layouts = {tensor.layout for tensor in weights if tensor.layout}
    exported = dict.fromkeys(target.exporter for target in TARGETS.values())
    if not layouts:
        return tuple(exported)
    packed = any(layout.startswith("(N/") for layout in layouts)
    return tuple(name for name in exported if TARGETS[name].packed_filters == packed)


def describe(graph: Graph) -> dict[str, Any]:
    """Everything that ``inspect --json`` prints.

    Args:
        graph: A graph from `load_graph`.

    Returns:
        Values that the `json` module takes: ``file``, ``inputs``, ``outputs``, ``nodes``,
        ``constants``, ``caches``, ``sizes``, ``tests``, ``metadata``, ``targets``, ``problems``.
        Shapes are inferred from the inputs; where a node does not fit, ``problems`` says so and
        the shapes behind it are the file's own.
    """
    shapes, problems = try_shapes(graph)
    shapes = {name: info.shape for name, info in graph.value_info.items()} | shapes
    known = not problems
    nodes = [node for node in graph.nodes if known and node.op_type == CACHE]
    caches = [_cache(node, graph, shapes) for node in nodes]
    header = graph.header
    return {
        "file": {
            "path": graph.path,
            "graph": graph.name,
            "format": header.magic,
            "encrypted": header.encrypted,
            "bytes": header.file_bytes,
            "producer": header.producer,
            "ir_version": header.ir_version,
            "model_version": header.model_version,
            "doc_string": header.doc_string,
        },
        "targets": list(possible_targets(graph)),
        "metadata": graph.metadata,
        "inputs": [_tensor(info, shapes) for info in graph.inputs],
        "outputs": [_tensor(info, shapes) for info in graph.outputs],
        "nodes": [_node(node, graph, shapes, known=known) for node in graph.nodes],
        "constants": [
            _tensor(tensor.info, shapes)
            | {
                "layout": tensor.layout,
                "bytes": tensor.info.nbytes,
                "offset": None if tensor.span is None else tensor.span.offset,
            }
            for tensor in graph.initializers.values()
        ],
        "caches": caches,
        "sizes": _sizes(graph, shapes, caches) if known else None,
        "tests": {"inputs": list(graph.test_inputs), "outputs": list(graph.test_outputs)},
        "problems": [f"{node}: {reason}" for node, reason in problems],
    }


def _sizes(graph: Graph, shapes: dict[str, Shape], caches: list[dict[str, Any]]) -> dict[str, int]:
    return {
        "macs": sum(node_macs(node, shapes) for node in graph.nodes),
        "parameter_bytes": sum(tensor.info.nbytes for tensor in graph.initializers.values()),
        "activation_bytes": activation_bytes(graph, shapes),
        "state_bytes": sum(cache["state_bytes"] for cache in caches),
    }


def _cache(node: Node, graph: Graph, shapes: dict[str, Shape]) -> dict[str, Any]:
    """The state of a StreamingCache: ``window_frames - 1`` frames of the tensor that it extends."""
    tensor, view = node.inputs[0], NodeView(node, (), {})
    shape, window = shapes[tensor], view.integer("window_size", 1)
    axis = view.integer("frame_axis", 1) % len(shape)
    frame_bytes = math.prod(shape) // shape[axis] * graph.value_info[tensor].dtype.itemsize
    return {
        "node": node.name,
        "tensor": tensor,
        "window_frames": window,
        "frame_axis": axis,
        "state_bytes": (window - 1) * frame_bytes,
    }


def _tensor(info: TensorInfo, shapes: dict[str, Shape]) -> dict[str, Any]:
    return {
        "name": info.name,
        "type": info.dtype.name,
        "shape": list(shapes.get(info.name, info.shape)),
        "exponents": list(info.exponents),
    }


def _node(node: Node, graph: Graph, shapes: dict[str, Shape], *, known: bool) -> dict[str, Any]:
    outputs = [graph.value_info[name] for name in node.outputs if name]
    return {
        "name": node.name,
        "operator": node.op_type,
        "inputs": list(node.inputs),
        "outputs": [_tensor(info, shapes) for info in outputs],
        "attributes": {name: _plain(value) for name, value in node.attributes.items()},
        "macs": node_macs(node, shapes) if known else None,
    }


def _plain(value: Attribute) -> object:
    if isinstance(value, Tensor):
        return {"type": value.info.dtype.name, "shape": list(value.info.shape)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
