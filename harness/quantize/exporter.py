"""The exporter's calls, in one place. Runs only in a worker process.

esp-ppq is driven through the documented pieces of its own entry point: the calibrated
graph is made once, with ``skip_export``, and exported as often as there are files.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import esp_ppq.lib
import numpy as np
import onnx
import onnxsim
import torch
from esp_ppq.api import espdl_quantize_onnx
from esp_ppq.api.espdl_interface import get_target_platform
from esp_ppq.core import TargetPlatform
from esp_ppq.executor import TorchExecutor
from esp_ppq.parser.espdl.espdl_typedef import ExporterPatternInfo
from esp_ppq.quantization.qfunction.linear import PPQLinearQuant_toInt

from harness.errors import QuantizeError
from harness.model import describe_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from harness.model import StreamingModel

    Arrays = dict[str, NDArray[Any]]

OPSET = 18  # what esp-ppq's own torch entry point uses
_RECURRENT = ("GRU", "LSTM", "RNN")
_INITIAL_STATE = 5  # index of initial_h among their inputs
_SUMS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FLOAT64 = TargetPlatform.ESPDL_S3_H_PRE_INT16  # rounding is the operator's, not the platform's


@dataclass(frozen=True)
class Layout:
    """How the exporter lays out one graph input or output.

    Attributes:
        permutation: From the module's axes to the file's.
        config: esp-ppq's quantization of the tensor; None when it stays float32.
    """

    permutation: tuple[int, ...]
    config: Any

    def to_file(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array in the file's layout, values unchanged."""
        return np.ascontiguousarray(array.transpose(self.permutation))

    def quantize(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array in the file's layout, type and exponent, as the exporter quantizes."""
        if self.config is None:
            return self.to_file(array)
        return self.to_file(PPQLinearQuant_toInt(torch.from_numpy(array), self.config).numpy())


def warm_up(path: Path) -> None:
    """Export and simplify a network of one layer, so that the libraries load what they need.

    Args:
        path: Scratch ONNX file.
    """
    _write_onnx(torch.nn.Conv1d(1, 1, 1), (torch.zeros(1, 1, 2),), path, ["input"], ["output"])
    onnxsim.simplify(onnx.load(path))


def _simplify(model: Any) -> tuple[Any, bool]:
    """Simplify a float graph; where the optimizer fails on it, fold its constants only."""
    try:
        return onnxsim.simplify(model)  # type: ignore[no-any-return]
    except RuntimeError as error:
        print(f"the ONNX optimizer failed ({describe_error(error)}); constants are folded only")
        return onnxsim.simplify(model, perform_optimization=False)  # type: ignore[no-any-return]


# esp-ppq gives up a network, attention for one, on which the optimizer trips.
esp_ppq.api.espdl_interface.simplify = _simplify


def run_module(module: Any, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> Arrays:
    """Run the float module.

    Args:
        module: A ``torch.nn.Module`` in evaluation mode.
        inputs: float32 by name, in the order of ``forward``'s arguments.
        outputs: Names of what it returns.

    Raises:
        QuantizeError: stage ``build``; it raised, or returned something else than *outputs* says.
    """
    shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
    try:
        with torch.no_grad():
            result = module(*(torch.from_numpy(array) for array in inputs.values()))
    except Exception as error:
        raise QuantizeError(
            f"forward({shapes}) raised {describe_error(error)}",
            stage="build",
            hint="input_shape must be what the module takes",
        ) from error
    values = _flatten(result)
    if len(values) != len(outputs) or not all(isinstance(value, torch.Tensor) for value in values):
        raise QuantizeError(
            f"forward({shapes}) returned {len(values)} values of type "
            f"{', '.join(sorted({type(value).__name__ for value in values}))}; the model declares "
            f"outputs = {tuple(outputs)}",
            stage="build",
            hint="return one tensor for each name in outputs",
        )
    return {
        name: value.numpy().astype(np.float32) for name, value in zip(outputs, values, strict=True)
    }


def export_onnx(module: Any, model: StreamingModel, path: Path) -> None:
    """Write the float network as ONNX, with the model's own input and output names."""
    arguments = tuple(torch.zeros(shape) for shape in model.inputs.values())
    _write_onnx(module, arguments, path, list(model.inputs), list(model.outputs))
    graph = onnx.load(path).graph
    used = {name for node in graph.node for name in node.input}
    unused = [name for name in model.inputs if name not in used]
    if unused:
        raise QuantizeError(
            f"forward does not use input {', '.join(unused)}",
            stage="build",
            hint="remove it from input_shape",
        )


def cold_recurrences(path: Path) -> list[str]:
    """Return the recurrent layers of a float ONNX file that start from zero."""
    model = onnx.load(path)
    if not any(node.op_type in _RECURRENT for node in model.graph.node):
        return []
    # Only then is an initial state of zeros left out, however it was written.
    nodes = _simplify(model)[0].graph.node
    return [
        node.name
        for node in nodes
        if node.op_type in _RECURRENT and not any(node.input[_INITIAL_STATE:])
    ]


def calibrate(
    path: Path, target: str, bits: int, batches: Sequence[Mapping[str, NDArray[Any]]]
) -> Any:
    """Quantize a float ONNX file.

    Args:
        path: The file; simplified in place.
        target: ESP-DL target name.
        bits: 8 or 16.
        batches: Calibration inputs by name.

    Returns:
        esp-ppq's calibrated graph.
    """
    tensors = [
        {name: torch.from_numpy(array) for name, array in batch.items()} for batch in batches
    ]
    return espdl_quantize_onnx(
        onnx_import_file=str(path),
        espdl_export_file=str(path.with_suffix(".espdl")),  # only its folder is used
        calib_dataloader=tensors,
        calib_steps=len(tensors),
        input_shape=[],  # only read when no inputs are given
        inputs=tensors[0],
        target=target,
        num_of_bits=bits,
        collate_fn=lambda batch: batch,
        error_report=False,
        skip_export=True,
    )


def execute(graph: Any, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> Arrays:
    """Run esp-ppq's quantized execution of a calibrated graph.

    Sums of 16-bit products do not fit the 24 bits of a float32, so those operators run in
    float64, as esp-ppq's ``hi_precision`` does.

    Returns:
        Outputs by name, values on the quantized grid, in the module's own layout.
    """
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    platforms = {
        operation: operation.platform
        for operation in graph.operations.values()
        if operation.type in _SUMS and operation.platform.name.endswith("INT16")
    }
    for operation in platforms:
        operation.platform = _FLOAT64
    try:
        with torch.no_grad():
            executor = TorchExecutor(graph=graph, device="cpu")
            values = executor.forward(tensors, output_names=list(outputs))
    finally:
        for operation, platform in platforms.items():
            operation.platform = platform
    return {
        name: value.numpy().astype(np.float32) for name, value in zip(outputs, values, strict=True)
    }


def export_file(
    graph: Any,
    path: Path,
    target: str,
    bits: int,
    passes: Sequence[Callable[[Any], None]],
    **streaming: Any,
) -> dict[str, Layout]:
    """Export a calibrated graph; the graph itself stays as it is.

    Args:
        graph: From ``calibrate``.
        path: The ``.espdl`` file to write.
        target: ESP-DL target name.
        bits: 8 or 16.
        passes: Run on the permuted graph, before the exporter's own streaming conversion.
        streaming: The exporter's streaming arguments.

    Returns:
        The layout of each graph input and output, by name.
    """
    layouts: dict[str, Layout] = {}

    def record(permuted: Any) -> None:
        known = ExporterPatternInfo()
        for name, variable in {**permuted.inputs, **permuted.outputs}.items():
            rank = range(len(variable.shape))
            permutation = tuple(known.get_var_permute(name) or rank)
            layouts[name] = Layout(permutation, known.get_var_config(name))

    exporter = esp_ppq.lib.Exporter(platform=get_target_platform(target, bits))
    exporter.export(
        file_path=str(path),
        graph=graph,
        export_config=False,
        streaming_custom_passes=[*passes, record],
        **streaming,
    )
    return layouts


def _write_onnx(
    module: Any, arguments: tuple[Any, ...], path: Path, inputs: list[str], outputs: list[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the legacy exporter is the one that esp-ppq uses
        torch.onnx.export(
            model=module,
            args=arguments,
            f=path,
            opset_version=OPSET,
            do_constant_folding=True,
            dynamo=False,
            input_names=inputs,
            output_names=outputs,
        )


def _flatten(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return [leaf for entry in value for leaf in _flatten(entry)]
    return [value]
