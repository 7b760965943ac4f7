"""Every tensor of the exporter's quantized execution, and of the float one. Only in a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from esp_ppq.core import TargetPlatform
from esp_ppq.executor import TorchExecutor
from esp_ppq.executor.base import OPERATION_FORWARD_TABLE, QuantOPRuntimeHook
from esp_ppq.IR.quantize import QuantableOperation
from esp_ppq.parser.espdl.espdl_typedef import ACTIVATION_OP_SET
from esp_ppq.quantization.qfunction import PPQuantFunction

from espdl_hil.quantize import alignment
from espdl_hil.quantize.artifacts import ACTIVATIONS
from espdl_hil.quantize.exporter import run_float
from espdl_hil.reference import RECORD, ROUNDS_FLOATS, ReferenceRecord, write_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from espdl_hil.espdl import Graph
    from espdl_hil.quantize.artifacts import Arrays
    from espdl_hil.quantize.exporter import Layout

_FLOAT64 = TargetPlatform.ESPDL_S3_H_PRE_INT16  # rounding is the operator's, not the platform's
_SUMS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_MAX_ELEMENTS = 1 << 16  # of one tensor, 256 kB: its first frames say how well it is kept
_CASTS = ("QuantizeLinear", "RequantizeLinear")  # the exporter's, one for each reader
_CELLS = {"LSTM": 6}  # index of initial_c, which no output shows but at the end


@dataclass(frozen=True)
class ReferenceRun:
    """One run of the calibrated graph, in the module's own layout.

    Attributes:
        values: Every tensor that is no constant, on the quantized grid; or as yet unrounded, where
            its reader quantizes it.
        exact: The same before they were rounded, float64 where the operator ran in it; no sums of
            products.
        cells: By the first output of an LSTM, its cell state before each frame, real values.
    """

    values: dict[str, Any]
    exact: dict[str, Any]
    cells: dict[str, Any]

    def outputs(self, names: Sequence[str]) -> Arrays:
        """Graph outputs as float64."""
        return {name: self.values[name].double().numpy() for name in names}


class _Recorder(QuantOPRuntimeHook):
    """Keeps what an operation gives before it is quantized, and the cell state on its way."""

    def __init__(self, operation: Any, kept: ReferenceRun) -> None:
        super().__init__(operation)
        self._kept = kept
        self._inputs: list[Any] = []

    def pre_forward_hook(self, inputs: Any, quant_inputs: Any, quant_configs: Any) -> Any:  # noqa: ARG002
        self._inputs = quant_inputs
        return quant_inputs

    def post_forward_hook(self, outputs: Any, quant_outputs: Any, quant_configs: Any) -> Any:  # noqa: ARG002
        operation = self._hook_to
        for variable, value in zip(operation.outputs, outputs, strict=False):
            if operation.type not in _SUMS:  # these are exact
                self._kept.exact[variable.name] = value
        if operation.type in _CELLS:
            name = operation.outputs[0].name
            self._kept.cells[name] = torch.stack(list(self._cells(operation)))
        return quant_outputs

    def _cells(self, operation: Any) -> Iterator[Any]:
        """The cell state before each frame: the operation again, a frame at a time."""
        values = list(self._inputs)
        forward = OPERATION_FORWARD_TABLE[operation.platform][operation.type]
        place = _CELLS[operation.type]
        for frame in self._inputs[0].split(1):
            yield values[place]
            values[0] = frame
            _, values[place - 1], values[place] = forward(operation, values, None)


def execute(graph: Any, inputs: Mapping[str, NDArray[Any]]) -> ReferenceRun:
    """Run esp-ppq's quantized execution of a calibrated graph.

    Operators run in float64, as esp-ppq's ``hi_precision`` does: sums of 16-bit products do not
    fit the 24 bits of a float32, and what a float64 rounds to is what the real value rounds to.
    A look-up table stays as the exporter makes it, in float32.

    Args:
        graph: From ``exporter.calibrate``.
        inputs: float32 by name, in the module's own layout.
    """
    tensors = {}
    for name, array in inputs.items():
        config = alignment.written_config(graph, graph.inputs[name])
        tensor = torch.from_numpy(array)
        tensors[name] = tensor if config is None else PPQuantFunction(tensor, config)
    operations = graph.operations.values()
    quantized = [op for op in operations if isinstance(op, QuantableOperation)]
    platforms = {op: op.platform for op in quantized if not _is_table(op)}
    kept = ReferenceRun({}, {}, {})
    names = [variable.name for op in operations for variable in op.outputs]
    hooks = {op.name: _Recorder(op, kept) for op in quantized}
    for op in platforms:
        op.platform = _FLOAT64
    try:
        with torch.no_grad():
            executor = TorchExecutor(graph=graph, device="cpu")
            values = executor.forward(tensors, output_names=names, hooks=hooks)
    finally:
        for op, platform in platforms.items():
            op.platform = platform
    made = {n: v for n, v in zip(names, values, strict=True) if isinstance(v, torch.Tensor)}
    kept.values.update({**tensors, **made})
    return kept


def _is_table(op: Any) -> bool:
    """Whether the exporter writes a table of the operator's results, and not the operator."""
    return op.type == "LUT" or (op.type in ACTIVATION_OP_SET and op.platform.name.endswith("INT8"))


def record(run: ReferenceRun, graph: Graph, layouts: Mapping[str, Layout], directory: Path) -> None:
    """Keep the run of the offline file's tensors as ``Artifacts.recorded`` reads it.

    *layouts* is what ``exporter.export_file`` gave for that file.
    """
    values, rests, cells = {}, {}, {}
    for node in graph.nodes:
        if node.op_type in _CASTS and node.inputs[0] in run.values:
            result = node.outputs[0]  # its reader quantizes it, or requantizes
            run.values[result] = run.exact[result] = run.values[node.inputs[0]]
        for name in node.outputs:
            if name not in run.values or name not in layouts:
                continue
            info, layout = graph.value_info[name], layouts[name]
            if len(layout.permutation) != run.values[name].ndim:
                continue
            values[name] = layout.quantize(run.values[name].double().numpy()).astype(info.dtype)
            if node.op_type in ROUNDS_FLOATS and info.dtype.kind == "i" and name in run.exact:
                exact = layout.to_file(run.exact[name].double().numpy())
                rest = np.ldexp(exact, -info.exponent) - values[name]
                rests[name] = rest.astype(np.float32)
        first = node.outputs[0] if node.outputs else ""
        if first in run.cells:
            real = run.cells[first].double().numpy()
            cells[first] = np.ldexp(real, -graph.value_info[node.outputs[2]].exponent).astype("<i2")
    write_record(ReferenceRecord(values, rests, cells), directory / RECORD)


def write_activations(
    graph: Any,
    inputs: Mapping[str, NDArray[Any]],
    layouts: Mapping[str, Layout],
    frame_axes: Mapping[str, int],
    shapes: Mapping[str, Sequence[int]],
    directory: Path,
) -> None:
    """Run the float network, and keep what ``Artifacts.activations`` reads to set beside a file's.

    The calibrated graph will not do: what its passes have put in place of an operator (a lookup
    table) stays in place when quantization is switched off.

    Args:
        graph: The float network, from ``exporter.load_float``.
        inputs: float32 by name, in the module's own layout.
        layouts: What ``exporter.export_file`` gave for the offline file; a tensor without one
            is not in the file.
        frame_axes: The time axis of each tensor that has one, in the file's layout.
        shapes: Of each tensor, in the file's layout: behind some Transposes esp-ppq's knowledge of
            the layout is wrong, and such a tensor is left out.
        directory: Of the store's entry.
    """
    names = [variable.name for op in graph.operations.values() for variable in op.outputs]
    kept: dict[str, Any] = {}
    for name, value in {**inputs, **run_float(graph, inputs, names)}.items():
        layout = layouts.get(name)
        if value.dtype != np.float32 or not layout or len(layout.permutation) != value.ndim:
            continue
        array = layout.to_file(value)
        if array.shape == tuple(shapes.get(name, ())):
            kept[f"float/{name}"] = _shorten(array, frame_axes.get(name))
    np.savez(directory / ACTIVATIONS, **kept)


def _shorten(array: NDArray[Any], axis: int | None) -> NDArray[Any]:
    """As many leading frames as the store keeps, and at least two."""
    if axis is None or array.size <= _MAX_ELEMENTS:
        return array
    frames = max(2, _MAX_ELEMENTS * array.shape[axis] // array.size)
    return array[(slice(None),) * axis + (slice(frames),)]
