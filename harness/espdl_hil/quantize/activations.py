"""The float network's every activation, to be set beside the file's. Runs only in a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from esp_ppq.executor import TorchExecutor

from espdl_hil.quantize.artifacts import ACTIVATIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from espdl_hil.quantize.exporter import Layout

    Arrays = dict[str, NDArray[Any]]

MAX_ELEMENTS = 1 << 16  # of one tensor, 256 kB: its first frames say how well it is kept


def write_activations(
    graph: Any,
    inputs: Mapping[str, NDArray[Any]],
    layouts: Mapping[str, Layout],
    frame_axes: Mapping[str, int],
    shapes: Mapping[str, Sequence[int]],
    directory: Path,
) -> None:
    """Run the float network, and keep what ``Artifacts.activations`` reads.

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
    names = [
        variable.name for operation in graph.operations.values() for variable in operation.outputs
    ]
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.no_grad():
        values = TorchExecutor(graph=graph, device="cpu").forward(tensors, output_names=names)
    kept: dict[str, Any] = {}
    for name, value in {**tensors, **dict(zip(names, values, strict=True))}.items():
        layout = layouts.get(name)
        if value.dtype != torch.float32 or not layout or len(layout.permutation) != value.ndim:
            continue
        array = layout.to_file(value.numpy())
        if array.shape == tuple(shapes.get(name, ())):
            kept[f"float/{name}"] = _shorten(array, frame_axes.get(name))
    np.savez(directory / ACTIVATIONS, **kept)


def _shorten(array: NDArray[Any], axis: int | None) -> NDArray[Any]:
    """As many leading frames as the store keeps, and at least two."""
    if axis is None or array.size <= MAX_ELEMENTS:
        return array
    frames = max(2, MAX_ELEMENTS * array.shape[axis] // array.size)
    return array[(slice(None),) * axis + (slice(frames),)]
