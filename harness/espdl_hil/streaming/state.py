"""The way of a recurrent state: which elements of one tensor are which of another."""

from __future__ import annotations

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

    Args:
        graph: The graph.
        name: The tensor.
        known: Labels of the tensors where the way ends, one label an element.

    Returns:
        A label for each of its elements; None if it comes from anything else.
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


def elements(shape: tuple[int, ...], first: int = 0) -> Labels:
    """A label for each element of a tensor, in order."""
    return np.arange(first, first + int(np.prod(shape)), dtype=np.int64).reshape(shape)


def find_state(graph: NeutralGraph) -> dict[str, str]:
    """Graph inputs and outputs that GRU and LSTM nodes use as initial and last state."""
    found = {}
    for node in graph.nodes:
        for entry, end in RECURRENT.get(node.op_type, ()):
            source = state_source(graph, node, entry)
            written = node.outputs[end] if end < len(node.outputs) else ""
            if not source or not written:
                continue
            for output in graph.outputs:
                if _reaches(graph, output, written):
                    found[source] = output
    return found


def state_source(graph: NeutralGraph, node: Node, entry: int) -> str:
    """The graph input from which an initial state comes; empty if it comes from elsewhere."""
    name = node.inputs[entry] if entry < len(node.inputs) else ""
    for source in graph.inputs if name else ():
        if trace(graph, name, {source: elements(graph.shapes[source])}) is not None:
            return source
    return ""


def _reaches(graph: NeutralGraph, output: str, written: str) -> bool:
    """Whether a graph output is put together from last states, this one among them."""
    known = {}
    for node in graph.nodes:
        for _, end in RECURRENT.get(node.op_type, ()):
            if end < len(node.outputs) and node.outputs[end]:
                shape = (1, 1, integer(node, "hidden_size", 1))
                known[node.outputs[end]] = elements(shape) * 0 + (node.outputs[end] == written)
    labels = trace(graph, output, known)
    return labels is not None and bool(labels.any())


def feeds_back(graph: NeutralGraph, node: Node, entry: int, end: int, output: str) -> bool:
    """Whether the last state of a node, by way of a graph output, becomes its initial state.

    Args:
        graph: The graph.
        node: A GRU or LSTM.
        entry: Index of the initial state among its inputs.
        end: Index of the last state among its outputs.
        output: The graph output that is fed back into the graph input it starts from.
    """
    source = state_source(graph, node, entry)
    start = trace(graph, node.inputs[entry], {source: elements(graph.shapes[source])})
    written = node.outputs[end] if end < len(node.outputs) else ""
    if start is None or not written:
        return False
    size = start.size
    known = {written: elements((1, 1, size))}
    for other in graph.nodes:
        for _, last in RECURRENT.get(other.op_type, ()):
            name = other.outputs[last] if last < len(other.outputs) else ""
            if name and name != written:
                known[name] = elements((1, 1, integer(other, "hidden_size", 1))) * 0 - 1
    labels = trace(graph, output, known)
    if labels is None or labels.size < int(start.max()) + 1:
        return False
    return bool((labels.reshape(-1)[start.reshape(-1)] == np.arange(size)).all())
