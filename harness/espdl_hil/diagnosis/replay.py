"""Running graphs on the host: whole streams, and single nodes cut out of a graph."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.compare.difference import compare
from espdl_hil.compare.tolerance import EXACT, Tolerance
from espdl_hil.espdl import TensorInfo
from espdl_hil.targets import TARGETS, Rounding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from espdl_hil.diagnosis.mismatch import Array, Case, Load, Tensors
    from espdl_hil.espdl import Graph, Node

OTHER_ROUNDING = {  # a target with the same packing that rounds halves the other way
    "esp32s3": "esp32p4",
    "esp32p4": "esp32s3",
}


def digest(tensor: Array) -> int:
    """CRC-32 of the elements' bytes, little endian, as a device computes it."""
    return zlib.crc32(np.ascontiguousarray(tensor).tobytes())


def crop(expected: Array, observed: Array) -> Array:
    """*expected* without the trailing frames that *observed* does not have.

    Of a ragged last chunk only the frames are kept that real input frames gave.
    """
    if expected.ndim != observed.ndim:
        return expected
    kept: Array = expected[tuple(map(slice, observed.shape))]
    return kept


def same(expected: Array, observed: Array, tolerance: Tolerance = EXACT) -> bool:
    """Whether a tensor is as expected, as far as it was kept; floats to 1e-6 relative."""
    kept = crop(expected, observed)
    if kept.shape != observed.shape:
        return False
    exact = tolerance.max_lsb == 0 and kept.dtype.kind != "f"
    return (
        np.array_equal(kept, observed) if exact else not compare(kept, observed, tolerance).beyond
    )


def agree(expected: Tensors, observed: Tensors) -> bool:
    """Whether an observed step is the expected one; outputs that were not kept are not asked."""
    return all(same(expected[name], values) for name, values in observed.items())


def rounding_name(target: str) -> str:
    """What the target makes of a half, in words."""
    even = TARGETS[target].rounding is Rounding.HALF_EVEN
    return "halves to even" if even else "halves up"


class Stream:
    """The case's graph on the host, with its recurrent state.

    Args:
        case: Says what to run and what feeds the state inputs.
        target: Another target than the case's.
    """

    def __init__(self, case: Case, target: str | None = None) -> None:
        self._session = case.load(case.graph, target or case.target)
        self._feedback = dict(case.state)
        self._zero = {
            info.name: np.zeros(info.shape, info.dtype)
            for info in case.graph.inputs
            if info.name in case.state
        }
        self._outputs = [info.name for info in case.graph.outputs]
        self.reset()

    def reset(self) -> None:
        """Start cold."""
        self._session.reset()
        self._state: dict[str, Array] = dict(self._zero)

    def step(self, chunk: Tensors) -> dict[str, Array]:
        """Run one chunk.

        Returns:
            Copies of the graph outputs.
        """
        outputs = self._session.step({**chunk, **self._state})
        copies = {name: np.array(outputs[name]) for name in self._outputs}
        self._state = {sink: copies[source] for sink, source in self._feedback.items()}
        return copies

    def run(self, chunks: Iterable[Tensors]) -> list[dict[str, Array]]:
        """Run chunks from where the stream is; the outputs of each."""
        return [self.step(chunk) for chunk in chunks]

    def trace(self, chunks: Iterable[Tensors]) -> list[dict[str, Array]]:
        """Run chunks from where the stream is; every tensor of each, graph inputs included."""
        traces = []
        for chunk in chunks:
            fed = {**chunk, **self._state}
            outputs = self.step(chunk)
            nodes = {name: np.array(value) for name, value in self._session.trace.items()}
            traces.append({**fed, **nodes, **outputs})
        return traces


def cold_outputs(stream: Stream, chunks: Iterable[Tensors]) -> list[dict[str, Array]]:
    """Outputs of a stream that starts cold."""
    stream.reset()
    return stream.run(chunks)


def activations(graph: Graph, node: Node) -> list[str]:
    """The node's inputs that are computed at run time, each once, in order."""
    return [n for n in dict.fromkeys(node.inputs) if n and n not in graph.initializers]


def cut_node(graph: Graph, node: Node, tensors: Tensors) -> Graph:
    """A graph of one node.

    Args:
        graph: Where the node is from; its constants come along.
        node: The node.
        tensors: Its inputs and outputs, for their shapes.
    """
    constants = {*node.inputs, node.attributes.get("lut")} & set(graph.initializers)
    sources = activations(graph, node)
    results = [name for name in node.outputs if name in tensors]
    infos = {name: _sized(graph, name, tensors[name]) for name in (*sources, *results)}
    return replace(
        graph,
        inputs=tuple(infos[name] for name in sources),
        outputs=tuple(infos[name] for name in results),
        nodes=(node,),
        initializers={
            name: graph.initializers[name] for name in graph.initializers if name in constants
        },
        value_info=infos,
        test_inputs={},
        test_outputs={},
    )


def _sized(graph: Graph, name: str, tensor: Array) -> TensorInfo:
    """What the file says about a tensor, with the shape that it has at run time."""
    known = graph.value_info[name]
    return TensorInfo(name, known.dtype, tensor.shape, known.exponents)


def shift_exponents(graph: Graph, name: str, by: int) -> Graph:
    """The graph with other exponents of one tensor that is no constant."""

    def edit(info: TensorInfo) -> TensorInfo:
        if info.name != name:
            return info
        return replace(info, exponents=tuple(e + by for e in info.exponents))

    return replace(
        graph,
        inputs=tuple(map(edit, graph.inputs)),
        outputs=tuple(map(edit, graph.outputs)),
        value_info={key: edit(info) for key, info in graph.value_info.items()},
    )


def run_steps(
    load: Load, graph: Graph, target: str, steps: Sequence[Mapping[str, Array]], output: str
) -> Array:
    """Run a graph on several inputs, each from a reset.

    Returns:
        The output of each, stacked on a new first axis.

    Raises:
        ArtifactError: the target cannot run this graph.
    """
    session = load(graph, target)
    results = []
    for inputs in steps:
        session.reset()
        results.append(np.array(session.step(dict(inputs))[output]))
    return np.stack(results)
