"""Running graphs on the host: whole streams, and single nodes."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from espdl_hil import interpreter
from espdl_hil.compare import EXACT, Tolerance, compare
from espdl_hil.targets import TARGETS, Rounding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from espdl_hil.compare import Array, Tensors
    from espdl_hil.espdl import Graph, TensorInfo

Mode: TypeAlias = Literal["halves up", "halves to even", "halves away from zero", "down", "to zero"]

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
    if tolerance.max_lsb == 0 and kept.dtype.kind != "f":
        return np.array_equal(kept, observed)
    return not compare(kept, observed, tolerance).beyond


def agree(expected: Tensors, observed: Tensors) -> bool:
    """Whether an observed step is the expected one; outputs that were not kept are not asked."""
    return all(same(expected[name], values) for name, values in observed.items())


def rounding_mode(target: str) -> Mode:
    """What the target makes of a half."""
    even = TARGETS[target].rounding is Rounding.HALF_EVEN
    return "halves to even" if even else "halves up"


class HostRun:
    """A graph on the host, with its recurrent state.

    Args:
        graph: What to run.
        target: The chip.
        state: Graph input to the graph output that feeds it.
        uniform: Nodes that are computed alike at all sizes; see ``interpreter.load``.
    """

    def __init__(
        self, graph: Graph, target: str, state: Mapping[str, str], uniform: Collection[str] = ()
    ) -> None:
        self.session = interpreter.load(graph, target, uniform=uniform)
        self._feedback = state
        self.reset()

    def reset(self) -> None:
        """Start cold."""
        self.session.reset()
        self._state = {
            info.name: np.zeros(info.shape, info.dtype)
            for info in self.session.inputs
            if info.name in self._feedback
        }

    def run(self, chunks: Iterable[Tensors]) -> list[dict[str, Array]]:
        """Run chunks from where the stream is; the outputs of each."""
        return [self._step(chunk) for chunk in chunks]

    def _step(self, chunk: Tensors) -> dict[str, Array]:
        outputs = self.session.step({**chunk, **self._state})
        self._state = {sink: outputs[source] for sink, source in self._feedback.items()}
        return outputs

    def trace(self, chunks: Iterable[Tensors]) -> list[dict[str, Array]]:
        """Run chunks from where the stream is; every tensor of each, graph inputs included."""
        traces = []
        for chunk in chunks:
            fed = {**chunk, **self._state}
            outputs = self._step(chunk)
            nodes = {name: value.copy() for name, value in self.session.trace.items()}
            traces.append({**fed, **nodes, **outputs})
        return traces

    def run_cold(self, chunks: Iterable[Tensors]) -> list[dict[str, Array]]:
        """Run chunks from a cold start; the outputs of each."""
        self.reset()
        return self.run(chunks)


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
    graph: Graph, target: str, steps: Sequence[Mapping[str, Array]], output: str
) -> Array:
    """Run a graph on several inputs, each from a reset.

    Returns:
        The output of each, stacked on a new first axis.

    Raises:
        ArtifactError: the target cannot run this graph.
    """
    session = interpreter.load(graph, target)
    results = []
    for inputs in steps:
        session.reset()
        results.append(np.array(session.step(dict(inputs))[output]))
    return np.stack(results)
