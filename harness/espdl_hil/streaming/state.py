"""The way of a recurrent state: which elements of one tensor are which of another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from espdl_hil.streaming.graph import integer, integers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from espdl_hil.streaming.graph import NeutralGraph, Node

    Labels: TypeAlias = NDArray[np.int64]

RECURRENT = {"GRU": ((5, 1),), "LSTM": ((5, 1), (6, 2))}  # (input, output) of each state
PASSING = ("Identity", "RequantizeLinear")


def trace(graph: NeutralGraph, name: str, known: Mapping[str, Labels]) -> Labels | None:
    """Label a tensor by following it back through nodes that only move elements.

    *known* has a label for each element of the tensors where the way ends. None if the tensor
    comes from anything else.
    """
    if name in known:
        return known[name]
    node = graph.producers.get(name)
    if node is None:
        return None
    if node.op_type == "Concat":
        parts = [trace(graph, source, known) for source in node.inputs]
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts):
            return None
        return np.concatenate(whole, axis=integer(node, "axis", 0))
    labels = trace(graph, node.inputs[0], known) if node.inputs else None
    return None if labels is None else _moved(graph, node, labels, node.outputs.index(name))


def _moved(graph: NeutralGraph, node: Node, labels: Labels, output: int) -> Labels | None:
    """What one node makes of the labels of its input; None if it computes something."""
    given = [graph.constants.get(name) for name in node.inputs[1:]]
    if node.op_type in PASSING:
        return labels
    if node.op_type == "Transpose":
        return labels.transpose(integers(node, "perm", tuple(reversed(range(labels.ndim)))))
    if node.op_type in ("Reshape", "Squeeze", "Unsqueeze", "Flatten"):
        return _reshaped(node, labels, given[0] if given else None)
    if node.op_type == "Split":
        axis = integer(node, "axis", 0)
        if given and given[0] is not None:
            edges = np.cumsum(given[0].reshape(-1))[:-1].tolist()
            return np.split(labels, edges, axis)[output]
        return np.array_split(labels, len(node.outputs), axis)[output]
    if node.op_type == "Gather" and given[0] is not None:
        return np.take(labels, given[0].astype(np.int64), axis=integer(node, "axis", 0))
    if node.op_type == "Slice" and given[0] is not None and given[1] is not None:
        return _sliced(labels, given)
    return None


def _reshaped(node: Node, labels: Labels, given: NDArray[np.generic] | None) -> Labels:
    """Another shape, the same order; flat where the node does not say which shape."""
    axes = integers(node, "axes", ()) if given is None else tuple(given.reshape(-1).tolist())
    if node.op_type == "Reshape" and axes:
        return labels.reshape(
            [labels.shape[i] if size == 0 else size for i, size in enumerate(axes)]
        )
    if node.op_type == "Unsqueeze":
        return np.expand_dims(labels, axes)
    if node.op_type == "Squeeze":
        return np.squeeze(labels, axes or None)
    return labels.reshape(-1)


def _sliced(labels: Labels, given: list[NDArray[np.generic] | None]) -> Labels:
    starts, ends, axes, steps = [
        None if value is None else value.reshape(-1).tolist()
        for value in [*given, None, None, None][:4]
    ]
    index = [slice(None)] * labels.ndim
    for i, start in enumerate(starts or ()):
        axis = axes[i] if axes else i
        index[axis] = slice(start, ends[i] if ends else None, steps[i] if steps else 1)
    return labels[tuple(index)]


def elements(shape: tuple[int, ...]) -> Labels:
    """A label for each element of a tensor, in order."""
    return np.arange(math.prod(shape), dtype=np.int64).reshape(shape)


def last_state(node: Node, end: int) -> str:
    """Name of a last state among a node's outputs; empty if it has none."""
    return node.outputs[end] if end < len(node.outputs) else ""


def _trace_states(graph: NeutralGraph, output: str, written: str) -> Labels | None:
    """Label a graph output that is put together from last states: -1 for all but *written*."""
    known = {}
    for node in graph.nodes:
        for _, end in RECURRENT.get(node.op_type, ()):
            name = last_state(node, end)
            if name:
                labels = elements((1, 1, integer(node, "hidden_size", 1)))
                known[name] = labels if name == written else np.full_like(labels, -1)
    return trace(graph, output, known)


def find_state(graph: NeutralGraph) -> dict[str, str]:
    """Graph inputs and outputs that GRU and LSTM nodes use as initial and last state."""
    found = {}
    for node in graph.nodes:
        for entry, end in RECURRENT.get(node.op_type, ()):
            source = state_source(graph, node, entry)
            written = last_state(node, end)
            if not source or not written:
                continue
            for output in graph.outputs:
                labels = _trace_states(graph, output, written)
                if labels is not None and (labels >= 0).any():
                    found[source] = output
    return found


def state_source(graph: NeutralGraph, node: Node, entry: int) -> str:
    """The graph input from which an initial state comes; empty if it comes from elsewhere."""
    name = node.inputs[entry] if entry < len(node.inputs) else ""
    for source in graph.inputs if name else ():
        if trace(graph, name, {source: elements(graph.shapes[source])}) is not None:
            return source
    return ""


def feeds_back(graph: NeutralGraph, node: Node, entry: int, end: int, output: str) -> bool:
    """Whether a GRU or LSTM starts from its own last state, by way of a graph output.

    *entry* is the index of the initial state among its inputs, *end* that of the last state among
    its outputs.
    """
    source = state_source(graph, node, entry)
    start = trace(graph, node.inputs[entry], {source: elements(graph.shapes[source])})
    written = last_state(node, end)
    if start is None or not written:
        return False
    labels = _trace_states(graph, output, written)
    if labels is None or labels.size < int(start.max()) + 1:
        return False
    return bool((labels.reshape(-1)[start.reshape(-1)] == np.arange(start.size)).all())
