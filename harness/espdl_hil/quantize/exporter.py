"""The exporter's calls, in one place. Runs only in a worker process.

esp-ppq is driven through the documented pieces of its own entry point: the calibrated
graph is made once, with ``skip_export``, and exported as often as there are files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import esp_ppq.lib
import numpy as np
import torch
from esp_ppq.api import espdl_quantize_onnx, load_onnx_graph
from esp_ppq.api.espdl_interface import get_target_platform
from esp_ppq.api.setting import QuantizationSettingFactory
from esp_ppq.executor import TorchExecutor
from esp_ppq.parser.espdl.espdl_typedef import ExporterPatternInfo
from esp_ppq.quantization.optim import EspdlLUTFusionPass, LayerwiseEqualizationPass
from esp_ppq.quantization.qfunction.linear import PPQLinearQuant_toInt
from esp_ppq.quantization.quantizer.EspdlQuantizer import BaseEspdlQuantizer

from espdl_hil.quantize import alignment, exporter_patches
from espdl_hil.quantize.layers import choose_bits, share_bits
from espdl_hil.quantize.plan_pass import permute_constants
from espdl_hil.quantize.states import state_groups

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from esp_ppq.core import TargetPlatform
    from numpy.typing import NDArray

    from espdl_hil.model import Quantization
    from espdl_hil.quantize.artifacts import Arrays

exporter_patches.install()
_BIASED = ("Conv", "ConvTranspose", "Gemm")
_NARROW = 8  # bits
_DEFAULT_NARROW = "kl"
_EQUALIZATION_LEVEL = 1  # not across sums
_EQUALIZATION: dict[str, Any] = {
    "iterations": 10,
    "value_threshold": 0.05,  # esp-ppq's 0.5 leaves networks whose weights are all smaller alone
    "interested_layers": None,  # all
}


@dataclass(frozen=True)
class Layout:
    """How the exporter lays out one tensor.

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
            return self.to_file(array.astype(np.float32))
        return self.to_file(PPQLinearQuant_toInt(torch.from_numpy(array), self.config).numpy())


def calibrate(
    path: Path,
    target: str,
    bits: int,
    batches: Sequence[Mapping[str, NDArray[Any]]],
    state: Mapping[str, str],
    quantization: Quantization,
) -> Any:
    """Quantize a float ONNX file.

    Args:
        path: The file, simplified.
        target: ESP-DL target name.
        bits: 8 or 16.
        batches: Calibration inputs by name.
        state: Recurrent state: graph input to the graph output that feeds it.
        quantization: What the model declares.

    Returns:
        esp-ppq's calibrated graph.

    Raises:
        QuantizeError: stage ``calibrate``; a layer is named that the network does not have.
    """
    alignment.install(state)
    network = load_onnx_graph(str(path))
    platforms = _dispatch(network, target, bits, state, quantization)
    _install(platforms)
    tensors = [
        {name: torch.from_numpy(array) for name, array in batch.items()} for batch in batches
    ]
    graph = espdl_quantize_onnx(
        onnx_import_file=str(path),
        espdl_export_file=str(path.with_suffix(".espdl")),  # only its folder is used
        calib_dataloader=tensors,
        calib_steps=len(tensors),
        input_shape=[],  # only read when no inputs are given
        inputs=tensors[0],
        target=target,
        num_of_bits=bits,
        collate_fn=lambda batch: batch,
        setting=_setting(network, bits, quantization, platforms),
        error_report=False,
        skip_export=True,
    )
    if bits == _NARROW and platforms:  # what esp-ppq does for networks of 16 bits as a whole
        tables = QuantizationSettingFactory.espdl_setting().lut_optimization_setting
        EspdlLUTFusionPass(tables.target_ops, tables.step).optimize(graph)
    return graph


def load_float(path: Path, quantization: Quantization) -> Any:
    """Read a float ONNX file as esp-ppq's graph, its layers equalized if that is asked for."""
    graph = load_onnx_graph(str(path))
    if quantization.equalization:
        LayerwiseEqualizationPass(optimize_level=_EQUALIZATION_LEVEL, **_EQUALIZATION).optimize(
            graph, dataloader=[], executor=None, collate_fn=None
        )
    return graph


def run_float(graph: Any, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> Arrays:
    """Run a network from ``load_float``.

    Returns:
        These of its tensors by name, in the module's own layout.
    """
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.no_grad():
        executor = TorchExecutor(graph=graph, device="cpu")
        values = executor.forward(tensors, output_names=list(outputs))
    return {name: value.numpy() for name, value in zip(outputs, values, strict=True)}


def _dispatch(
    graph: Any, target: str, bits: int, state: Mapping[str, str], quantization: Quantization
) -> dict[str, TargetPlatform]:
    """The platform of each node that is quantized at another width than the network."""
    if not quantization.layer_bits:
        return {}
    quantizer = esp_ppq.lib.Quantizer(get_target_platform(target, bits), graph)
    chosen = choose_bits(graph, bits, quantization.layer_bits, quantizer.quant_operation_types)
    share_bits(chosen, state_groups(graph, state))
    return {name: get_target_platform(target, width) for name, width in chosen.items()}


def _install(platforms: Mapping[str, TargetPlatform]) -> None:
    """Let esp-ppq quantize these nodes for their platform from now on.

    Its own table counts from the start: before they are quantized, GRU and LSTM run there as if
    they were, and fail.
    """
    quantize = BaseEspdlQuantizer.quantize_operation

    def quantize_operation(self: Any, op_name: str, platform: Any = None) -> Any:
        return quantize(self, op_name, platforms.get(op_name, platform))

    BaseEspdlQuantizer.quantize_operation = quantize_operation


def _setting(
    network: Any, bits: int, quantization: Quantization, platforms: Collection[str]
) -> Any:
    """The settings of esp-ppq that a declaration means."""
    setting = QuantizationSettingFactory.espdl_setting(num_of_bits=bits)
    setting.espdl_attention_fusion = False  # ESP-DL has no such node
    # The histograms behind kl and mse have too few bins for 65,536 levels.
    wide = "percentile" if quantization.algorithm == "percentile" else "minmax"
    activations = setting.quantize_activation_setting
    if quantization.algorithm is not None:
        activations.calib_algorithm = quantization.algorithm if bits == _NARROW else wide
    narrow = quantization.algorithm or _DEFAULT_NARROW
    for name in platforms:
        activations.calib_algorithm_per_layer[name] = wide if bits == _NARROW else narrow
    setting.equalization = quantization.equalization
    vars(setting.equalization_setting).update(opt_level=_EQUALIZATION_LEVEL, **_EQUALIZATION)
    correction = setting.bias_correct_setting
    setting.bias_correct = quantization.bias_correction
    correction.steps = quantization.batches
    correction.block_size = 1  # esp-ppq's advice for the best result
    # Those alone have a bias that it can correct; at a recurrent layer it stops.
    correction.interested_layers = [
        op.name for op in network.operations.values() if op.type in _BIASED
    ]
    return setting


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
        The layout of each tensor, by name.
    """
    layouts: dict[str, Layout] = {}

    def record(permuted: Any) -> None:
        known = ExporterPatternInfo()
        for name, variable in permuted.variables.items():
            rank = range(len(variable.shape or ()))
            permutation = tuple(known.get_var_permute(name) or rank)
            layouts[name] = Layout(permutation, known.get_var_config(name))

    esp_ppq.lib.Exporter(platform=get_target_platform(target, bits)).export(
        file_path=str(path),
        graph=graph,
        export_config=False,
        streaming_custom_passes=[permute_constants, *passes, record],
        **streaming,
    )
    return layouts
