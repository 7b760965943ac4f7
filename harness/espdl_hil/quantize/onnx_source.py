"""A float ONNX file of the user in the place of a module. Runs only in a worker process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from espdl_hil.errors import ConfigError, QuantizeError
from espdl_hil.model import describe_error
from espdl_hil.quantize.float_check import TOLERANCE
from espdl_hil.quantize.float_graph import finish_onnx
from espdl_hil.quantize.float_module import run_module
from espdl_hil.quantize.onnx_session import open_session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from espdl_hil.model import StreamingModel
    from espdl_hil.quantize.artifacts import Arrays

_SPLIT_LENGTHS = 13  # the opset from which lengths of a Split, axes of a Squeeze are inputs
_OPSET = 18


class OnnxModule(torch.nn.Module):
    """An ONNX file, with the model's input and output names, that runs as a module does."""

    def __init__(self, proto: Any, model: StreamingModel) -> None:
        super().__init__()
        self._session = open_session(proto.SerializeToString())
        self._inputs, self._outputs = list(model.inputs), list(model.outputs)
        self.weights = {
            tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer
        }

    def forward(self, *arguments: Any) -> tuple[Any, ...]:
        """Run the file on one tensor an input."""
        given = {n: a.numpy() for n, a in zip(self._inputs, arguments, strict=True)}
        return tuple(map(torch.from_numpy, self._session.run(self._outputs, given)))

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:
        """The constants of the file, which its hash is made of."""
        return {name: torch.from_numpy(np.array(array)) for name, array in self.weights.items()}


def read_onnx(path: Path, model: StreamingModel) -> Any:
    """Read a file, and give its inputs and outputs the declared names and shapes.

    Raises:
        ConfigError: there is no such file, it is no ONNX, or it is not what the model declares.
    """
    try:
        proto = onnx.load(path)
        onnx.checker.check_model(proto)
    except Exception as error:
        raise ConfigError(
            f"model {model.name!r}: {path} cannot be read: {describe_error(error)}",
            hint="onnx= is relative to the model file",
        ) from error
    if proto.opset_import[0].version < _SPLIT_LENGTHS:
        proto = onnx.version_converter.convert_version(proto, _OPSET)
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = [info for info in proto.graph.input if info.name not in constants]
    _name(proto, inputs, list(model.inputs), "input_shape", model)
    _name(proto, list(proto.graph.output), list(model.outputs), "outputs", model)
    for info in inputs:
        _size(info, model.inputs[info.name], model)
    _spell_defaults(proto)
    return proto


def import_onnx(
    proto: Any, module: OnnxModule, model: StreamingModel, path: Path, given: Arrays
) -> None:
    """Write the file as esp-ppq takes it, and see that it still computes the same.

    Raises:
        QuantizeError: stage ``build``; it does not.
        StreamingError: a recurrent layer starts from zero at every run.
    """
    finish_onnx(proto, model, path)
    wanted = run_module(module, given, model.outputs)
    found = run_module(OnnxModule(onnx.load(path), model), given, model.outputs)
    for name, value in wanted.items():
        largest = float(np.abs(value).max(initial=0.0))
        if not np.allclose(found[name], value, rtol=0, atol=TOLERANCE * max(largest, 1e-7)):
            raise QuantizeError(f"simplifying the ONNX file changed output {name!r}", stage="build")


def _spell_defaults(proto: Any) -> None:
    """Write the attributes that ONNX lets a convolution leave out: ESP-DL wants all of them."""
    sizes = {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose") or node.input[1] not in sizes:
            continue
        kernel = sizes[node.input[1]][2:]
        defaults = {
            "kernel_shape": kernel,
            "strides": [1] * len(kernel),
            "dilations": [1] * len(kernel),
            "pads": [0] * 2 * len(kernel),
            "group": 1,
        }
        there = {attribute.name for attribute in node.attribute}
        if "auto_pad" in there:
            del defaults["pads"]
        for name, value in defaults.items():
            if name not in there:
                node.attribute.append(onnx.helper.make_attribute(name, value))


def _name(
    proto: Any, infos: list[Any], wanted: list[str], field: str, model: StreamingModel
) -> None:
    """Give the graph's ends the declared names: the only one gets it, several must have it."""
    there = [info.name for info in infos]
    if len(there) == len(wanted) == 1:
        _rename(proto, {there[0]: wanted[0]})
    elif set(there) != set(wanted):
        raise ConfigError(
            f"model {model.name!r}: the ONNX file has {', '.join(there)}, {field} names "
            f"{', '.join(wanted)}"
        )


def _rename(proto: Any, names: Mapping[str, str]) -> None:
    for info in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        info.name = names.get(info.name, info.name)
    for node in proto.graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]


def _size(info: Any, shape: tuple[int, ...], model: StreamingModel) -> None:
    """Give an input its declared shape, where the file leaves a size open."""
    dims = info.type.tensor_type.shape.dim
    there = tuple(dim.dim_value or -1 for dim in dims)
    if len(there) != len(shape) or any(a not in (-1, b) for a, b in zip(there, shape, strict=True)):
        raise ConfigError(
            f"model {model.name!r}: input {info.name!r} of the ONNX file has the shape {there}, "
            f"declared is {shape}"
        )
    for dim, size in zip(dims, shape, strict=True):
        dim.dim_value = size
