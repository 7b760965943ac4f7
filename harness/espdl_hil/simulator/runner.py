"""Runs models for the firmware core with the interpreter: the simulated devkit's ESP-DL."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil import espdl, interpreter
from espdl_hil.espdl import TensorInfo
from espdl_hil.operators import infer_shapes
from espdl_hil.simulator import abi
from espdl_hil.simulator.faults import LoadFault, OutputUnwritten, StateDropped, StateKept
from espdl_hil.simulator.faulty_model import FaultyModel, load_faulty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from espdl_hil.simulator.chips import Chip
    from espdl_hil.simulator.injection import Injection

_DTYPE_CODES = {  # protocol.md section 3
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "uint32": 12,
    "uint64": 13,
}
PER_CHANNEL = 1  # hil_tensor.flags


class RunnerError(Exception):
    """A callback's failure with its code of the protocol.

    Args:
        code: Error code.
        message: Sent to the client.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class _Model:
    """A loaded model.

    Attributes:
        name: As the client calls it.
        session: Runs it.
        size: Bytes of its file.
        tensors: By kind (input, output, node output), in the file's order.
        steps: Steps since the last reset.
    """

    name: str
    session: interpreter.Session | FaultyModel
    size: int
    tensors: tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...], tuple[TensorInfo, ...]]
    steps: int = 0
    node_outputs: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        nodes = self.tensors[abi.NODE_OUTPUT]
        self.node_outputs = {info.name: index for index, info in enumerate(nodes)}


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

    def load(self, name: str, data: bytes) -> int:
        """Prepare a model.

        Args:
            name: Its name, for messages.
            data: A whole ``.espdl`` file.

        Returns:
            Its id.

        Raises:
            HarnessError: The file is damaged, or ESP-DL could not run it.
            RunnerError: It does not fit into the chip's memory.
        """
        free = self._free_psram()
        if len(data) > free:
            raise RunnerError(
                abi.OUT_OF_MEMORY, f"{name} has {len(data)} bytes, {free} bytes of PSRAM are free"
            )
        graph = espdl.load_graph(data)
        faults = self._injection.active(LoadFault, name)
        session, acting = load_faulty(graph, self._chip.name, faults)
        self.notes += [f"{fault} acts in model {name}" for fault in acting]
        nodes = _node_outputs(graph, session)
        self._last_id += 1
        self._models[self._last_id] = _Model(
            name, session, len(data), (session.inputs, session.outputs, nodes)
        )
        return self._last_id

    def unload(self, model: int) -> None:
        """Forget a model."""
        self._models.pop(model, None)

    def count(self, model: int, kind: int) -> int:
        """Number of tensors of a kind."""
        return len(self._models[model].tensors[kind])

    def describe(self, model: int, kind: int, index: int, out: abi.Tensor) -> None:
        """Fill in what the protocol says about one tensor."""
        info = self._models[model].tensors[kind][index]
        name = info.name.encode()
        if len(name) > abi.MAX_NAME or len(info.shape) > abi.MAX_RANK:
            raise RunnerError(abi.RUN_FAILED, f"{info.name}: name or rank exceeds the protocol's")
        ctypes.memmove(ctypes.addressof(out), name, len(name))
        out.name_size = len(name)
        out.dtype = _DTYPE_CODES[info.dtype.name]
        out.rank = len(info.shape)
        out.bytes = info.nbytes
        out.dims[: len(info.shape)] = info.shape
        if len(info.exponents) == 1:
            out.exponent = info.exponents[0]
        else:
            out.flags = PER_CHANNEL

    def find(self, model: int, name: str) -> int:
        """Return the index of a node output."""
        index = self._models[model].node_outputs.get(name)
        if index is None:
            raise RunnerError(abi.NO_SUCH_TENSOR, f"no node output {name!r}")
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
        inputs: Sequence[abi.Buffer],
        outputs: Sequence[abi.Buffer],
        captures: Sequence[abi.Capture],
    ) -> None:
        """Run one step.

        Args:
            model: The model.
            inputs: Every graph input, in order, exactly as large as described.
            outputs: Where every graph output goes.
            captures: Node outputs that are wanted, too.
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
        values = session.step(
            {
                info.name: _view(buffer, info)
                for info, buffer in zip(loaded.tensors[abi.INPUT], inputs, strict=True)
            }
        )
        for info, buffer in zip(loaded.tensors[abi.OUTPUT], outputs, strict=True):
            fault = unwritten.get(info.name)
            if fault is None:
                _store(values[info.name], buffer)
            else:
                _store_partly(values[info.name], buffer, fault)
        for capture in captures:
            name = loaded.tensors[abi.NODE_OUTPUT][capture.index].name
            _store(session.trace[name], capture.buffer)

    def read(self, model: int, index: int, offset: int, size: int) -> bytes:
        """Copy bytes of a node output of the last step."""
        loaded = self._models[model]
        name = loaded.tensors[abi.NODE_OUTPUT][index].name
        return bytes(loaded.session.trace[name].tobytes()[offset : offset + size])

    def memory(self, out: abi.Memory) -> None:
        """Fill in the chip's memory figures."""
        out.internal_total = out.internal_free = out.internal_largest = self._chip.internal_bytes
        out.psram_total = self._chip.psram_bytes
        out.psram_free = out.psram_largest = self._free_psram()

    def _free_psram(self) -> int:
        return self._chip.psram_bytes - sum(model.size for model in self._models.values())


def _node_outputs(
    graph: espdl.Graph, session: interpreter.Session | FaultyModel
) -> tuple[TensorInfo, ...]:
    """Every node output in file order, with the shapes that a step really has."""
    shapes = infer_shapes(graph, None)
    return tuple(
        TensorInfo(name, graph.info(name).dtype, shapes[name], session.exponents[name])
        for node in graph.nodes
        for name in node.outputs
        if name
    )


def _view(buffer: abi.Buffer, info: TensorInfo) -> NDArray[Any]:
    """The core's bytes as an array, without a copy; valid during the callback."""
    raw = (ctypes.c_uint8 * buffer.size).from_address(buffer.data)
    return np.frombuffer(raw, info.dtype).reshape(info.shape)


def _store(value: NDArray[Any], buffer: abi.Buffer) -> None:
    """Copy a tensor of exactly the buffer's size to the core."""
    ctypes.memmove(buffer.data, value.tobytes(), buffer.size)


def _store_partly(value: NDArray[Any], buffer: abi.Buffer, fault: OutputUnwritten) -> None:
    """Copy all but the bytes that a fault leaves unwritten."""
    data = value.tobytes()
    end = buffer.size if fault.count is None else min(fault.start + fault.count, buffer.size)
    for start, stop in ((0, min(fault.start, end)), (end, buffer.size)):
        ctypes.memmove(buffer.data + start, data[start:stop], stop - start)
