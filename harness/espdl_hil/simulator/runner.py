"""Runs models for the firmware core with the interpreter: the simulated devkit's ESP-DL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil import espdl, interpreter
from espdl_hil.espdl import TensorInfo
from espdl_hil.operators import infer_shapes
from espdl_hil.simulator.faults import (
    LoadFault,
    OutputUnwritten,
    StateDropped,
    StateKept,
    VectorUnitFault,
)
from espdl_hil.simulator.faulty_model import FaultyModel, load_faulty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from espdl_hil.simulator.chips import Chip
    from espdl_hil.simulator.injection import Injection


class RunnerError(Exception):
    """A callback's failure with its code of the protocol.

    Args:
        code: Name of the error code.
        message: Sent to the client.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class _Model:
    """A loaded model.

    Attributes:
        name: As the client calls it.
        session: Runs it.
        size: Bytes of its file.
        tensors: By kind of ``hil_host.h`` (input, output, node output), in the file's order.
        node_outputs: Index of each among those.
        steps: Steps since the last reset.
    """

    name: str
    session: interpreter.Execution | FaultyModel
    size: int
    tensors: tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...], tuple[TensorInfo, ...]]
    node_outputs: dict[str, int]
    steps: int = 0


class ModelRunner:
    """Loaded models by id, for one boot; the methods are the callbacks of ``hil_runner``.

    Memory figures are bookkeeping over the chip's sizes: a model takes as much
    PSRAM as its file has bytes. Nothing here measures time.

    Args:
        chip: The chip whose arithmetic and memory sizes apply.
        injection: Faults, of which those of the arithmetic act here.

    Attributes:
        notes: What the console should say of faults that act in a model.
    """

    def __init__(self, chip: Chip, injection: Injection) -> None:
        self._chip = chip
        self._injection = injection
        self.notes: list[str] = []
        self._models: dict[int, _Model] = {}
        self._last_id = 0
        self._stepped = False  # since the vector unit was last looked at

    def load(self, name: str, data: bytes) -> int:
        """Prepare a model from a whole ``.espdl`` file; returns its id.

        Raises:
            HarnessError: The file is damaged, or ESP-DL could not run it.
            RunnerError: It does not fit into the chip's memory.
        """
        free = self._free_psram()
        if len(data) > free:
            raise RunnerError(
                "OUT_OF_MEMORY", f"{name} has {len(data)} bytes, {free} bytes of PSRAM are free"
            )
        graph = espdl.load_graph(data)
        faults = self._injection.active(LoadFault, name)
        session, acting = load_faulty(graph, self._chip.name, faults)
        self.notes += [f"{fault} acts in model {name}" for fault in acting]
        nodes = _node_outputs(graph, session)
        self._last_id += 1
        self._models[self._last_id] = _Model(
            name=name,
            session=session,
            size=len(data),
            tensors=(session.inputs, session.outputs, nodes),
            node_outputs={info.name: index for index, info in enumerate(nodes)},
        )
        return self._last_id

    def unload(self, model: int) -> None:
        """Forget a model."""
        self._models.pop(model, None)

    def count(self, model: int, kind: int) -> int:
        """Number of tensors of a kind."""
        return len(self._models[model].tensors[kind])

    def tensor(self, model: int, kind: int, index: int) -> TensorInfo:
        """One tensor of a kind."""
        return self._models[model].tensors[kind][index]

    def find(self, model: int, name: str) -> int:
        """Return the index of a node output."""
        index = self._models[model].node_outputs.get(name)
        if index is None:
            raise RunnerError("NO_SUCH_TENSOR", f"no node output {name!r}")
        return index

    def reset(self, model: int) -> None:
        """Zero the caches."""
        loaded = self._models[model]
        loaded.steps = 0
        if not self._injection.active(StateKept, loaded.name):
            loaded.session.reset()

    def run(
        self,
        model: int,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        captures: Sequence[tuple[int, Any]],
    ) -> None:
        """Run one step.

        Args:
            model: The model.
            inputs: Buffers with every graph input, in order, exactly as large as described.
            outputs: Writable buffers for every graph output.
            captures: Node outputs that are wanted, too: index and writable buffer.
        """
        loaded = self._models[model]
        session = loaded.session
        dropped = self._injection.active(StateDropped, loaded.name)
        if any(fault.step in (None, loaded.steps) for fault in dropped):
            session.reset()
        unwritten = {
            fault.output: fault
            for fault in self._injection.active(OutputUnwritten, loaded.name)
            if fault.step in (None, loaded.steps)
        }
        loaded.steps += 1
        graph_inputs, graph_outputs, nodes = loaded.tensors
        values = session.step(
            {
                info.name: np.frombuffer(buffer, info.dtype).reshape(info.shape)
                for info, buffer in zip(graph_inputs, inputs, strict=True)
            }
        )
        for info, buffer in zip(graph_outputs, outputs, strict=True):
            fault, data = unwritten.get(info.name), values[info.name].tobytes()
            for part in (slice(None),) if fault is None else fault.written(len(data)):
                buffer[part] = data[part]
        for index, buffer in captures:
            buffer[:] = session.trace[nodes[index].name].tobytes()
        self._stepped = True

    def restore_vector_unit(self) -> set[str]:
        """Put its modes right, before and after a step; returns what was wrong, as in the ABI."""
        after_step, self._stepped = self._stepped, False
        if not self._chip.target.vector_modes:
            return set()
        faults = self._injection.active(VectorUnitFault)
        return {fault.FOUND for fault in faults if fault.late == after_step}

    def read(self, model: int, index: int, offset: int, size: int) -> bytes:
        """Copy bytes of a node output of the last step."""
        loaded = self._models[model]
        name = loaded.tensors[2][index].name
        return bytes(loaded.session.trace[name].tobytes()[offset : offset + size])

    def memory(self) -> dict[str, int]:
        """The chip's memory figures, bytes, by their names in ``hil_memory``."""
        internal, psram = self._chip.internal_bytes, self._free_psram()
        return {
            "internal_total": internal,
            "internal_free": internal,
            "internal_largest": internal,
            "psram_total": self._chip.psram_bytes,
            "psram_free": psram,
            "psram_largest": psram,
        }

    def _free_psram(self) -> int:
        return self._chip.psram_bytes - sum(model.size for model in self._models.values())


def _node_outputs(
    graph: espdl.Graph, session: interpreter.Execution | FaultyModel
) -> tuple[TensorInfo, ...]:
    """Every node output in file order, with the shapes that a step really has."""
    shapes = infer_shapes(graph, None)
    return tuple(
        TensorInfo(name, graph.info(name).dtype, shapes[name], session.exponents[name])
        for node in graph.nodes
        for name in node.outputs
        if name
    )
