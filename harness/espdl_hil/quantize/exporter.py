"""The exporter's calls, in one place. Runs only in a worker process.

esp-ppq is driven through the documented pieces of its own entry point: the calibrated
graph is made once, with ``skip_export``, and exported as often as there are files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import esp_ppq.api.espdl_interface
import esp_ppq.lib
import esp_ppq.parser.espdl.helper
import numpy as np
import torch
from esp_ppq.api import espdl_quantize_onnx
from esp_ppq.api.espdl_interface import get_target_platform
from esp_ppq.api.setting import QuantizationSettingFactory
from esp_ppq.parser.espdl.espdl_typedef import ExporterPatternInfo
from esp_ppq.quantization.qfunction.linear import PPQLinearQuant_toInt

from espdl_hil.quantize import alignment
from espdl_hil.quantize.plan_pass import permute_constants

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

# The float graph is simplified by the time it comes here, and esp-ppq gives up the networks
# (attention for one) on which the ONNX optimizer fails.
esp_ppq.api.espdl_interface.simplify = lambda model: (model, False)


def _create_aligned_bytes(builder: Any, data: bytes) -> Any:
    builder.Prep(16, 16)
    builder.head -= 16
    builder.Bytes[builder.head : builder.head + 16] = data
    return builder.Offset()


# The same bytes; the generated function writes the weights byte by byte, for each file again.
esp_ppq.parser.espdl.helper.AlignedBytes.CreateAlignedBytes = _create_aligned_bytes


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
) -> Any:
    """Quantize a float ONNX file.

    Args:
        path: The file, simplified.
        target: ESP-DL target name.
        bits: 8 or 16.
        batches: Calibration inputs by name.
        state: Recurrent state: graph input to the graph output that feeds it.

    Returns:
        esp-ppq's calibrated graph.
    """
    alignment.install(state)
    setting = QuantizationSettingFactory.espdl_setting(num_of_bits=bits)
    setting.espdl_attention_fusion = False  # ESP-DL has no such node
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
        setting=setting,
        error_report=False,
        skip_export=True,
    )


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

    exporter = esp_ppq.lib.Exporter(platform=get_target_platform(target, bits))
    exporter.export(
        file_path=str(path),
        graph=graph,
        export_config=False,
        streaming_custom_passes=[permute_constants, *passes, record],
        **streaming,
    )
    return layouts
