"""The float network that files from elsewhere were made of: an ONNX file, run on the stimulus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.errors import ConfigError
from espdl_hil.model import describe_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from espdl_hil.espdl import Graph, TensorInfo
    from espdl_hil.quantize.artifacts import Arrays


def run_float(
    data: bytes, where: str, offline: Graph, stimulus: Mapping[str, NDArray[Any]]
) -> Arrays:
    """Run an ONNX file on real inputs.

    Args:
        data: The file, weights inside.
        where: What it is called in messages.
        offline: The exported file, whose inputs and outputs it must have; of each, channels may
            stand on axis 1 where the exported file has them last.
        stimulus: float32 by input name of *offline*, in its layout.

    Returns:
        float32 by output name of *offline*, in its layout.

    Raises:
        ConfigError: it is no ONNX, or is not the network of the exported file.
    """
    from espdl_hil.quantize.onnx_session import open_session  # slow to import, and seldom needed

    try:
        session = open_session(data)
    except Exception as error:
        raise ConfigError(f"{where} cannot be run: {describe_error(error)}") from error
    inputs = {info.name: info.shape for info in session.get_inputs()}
    of_input = _pair(list(inputs), offline.inputs, "inputs", where)
    outputs = [info.name for info in session.get_outputs()]
    of_output = _pair(outputs, offline.outputs, "outputs", where)
    given = {
        name: _moved(stimulus[info.name], 1, inputs[name], f"input {name!r} of {where}")
        for name, info in of_input.items()
    }
    try:
        found = dict(zip(outputs, session.run(outputs, given), strict=True))
    except Exception as error:
        raise ConfigError(f"{where} cannot be run: {describe_error(error)}") from error
    return {
        info.name: _moved(found[name], -1, info.shape, f"output {name!r} of {where}")
        for name, info in of_output.items()
    }


def _pair(
    there: Sequence[str], exported: Sequence[TensorInfo], what: str, where: str
) -> dict[str, TensorInfo]:
    """ONNX name to what the exported file calls it; the only one needs no name.

    Raises:
        ConfigError: they are not the same.
    """
    names = {info.name: info for info in exported}
    if len(there) == len(exported) == 1:
        return {there[0]: exported[0]}
    if set(there) != set(names):
        raise ConfigError(
            f"{where} has the {what} {', '.join(there)}, the exported file {', '.join(names)}",
            hint="onnx= beside offline= is the float network that the files were made of",
        )
    return {name: names[name] for name in there}


def _moved(array: NDArray[Any], axis: int, wanted: Sequence[Any], what: str) -> NDArray[Any]:
    """An array as it is, or with its channels moved to *axis*, whichever has the wanted shape.

    Raises:
        ConfigError: neither has, or both have and differ.
    """
    moved = np.moveaxis(array, -1 if axis == 1 else 1, axis) if array.ndim > 2 else array
    fitting = [form for form in (array, moved) if _fits(form.shape, wanted)]
    if not fitting:
        raise ConfigError(
            f"{what} has the shape {tuple(wanted) if axis == 1 else array.shape}, "
            f"the exported file {array.shape if axis == 1 else tuple(wanted)}"
        )
    if len(fitting) > 1 and not np.array_equal(fitting[0], fitting[1]):
        raise ConfigError(
            f"{what}: channels and another axis have one size, so it is not known which is which",
            hint="give the ONNX file fixed shapes, or leave onnx= out",
        )
    return np.ascontiguousarray(fitting[0], np.float32)


def _fits(shape: Sequence[int], wanted: Sequence[Any]) -> bool:
    """Whether a shape is as wanted; a size that is no number is open."""
    return len(shape) == len(wanted) and all(
        not isinstance(size, int) or size == found
        for found, size in zip(shape, wanted, strict=True)
    )
