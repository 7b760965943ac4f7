"""The float network: the torch module, and its ONNX graph as esp-ppq can take it.

Runs only in a worker process.
"""

from __future__ import annotations

import collections
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxsim
import torch

from espdl_hil.errors import QuantizeError
from espdl_hil.model import describe_error
from espdl_hil.streaming import refuse, rules
from espdl_hil.streaming.names import module_path
from espdl_hil.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from espdl_hil.model import StreamingModel

    Arrays = dict[str, NDArray[Any]]

OPSET = 18  # what esp-ppq's own torch entry point uses
_RECURRENT = ("GRU", "LSTM", "RNN")
_INITIAL_STATE = 5  # index of initial_h among their inputs
_SAME = (b"SAME_LOWER", b"SAME_UPPER")
_DATA_SHAPED = ("Compress", "NonMaxSuppression", "NonZero", "Unique")


def warm_up(path: Path) -> None:
    """Export a network of one layer, so that the libraries load what they need.

    Args:
        path: Scratch ONNX file.
    """
    _write(torch.nn.Conv1d(1, 1, 1), [torch.zeros(1, 1, 2)], path, ["input"], ["output"])
    _simplify(onnx.load(path))


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


def export_onnx(module: Any, model: StreamingModel, path: Path) -> list[str]:
    """Write the float network as simplified ONNX, with the model's input and output names.

    Returns:
        ``file:line`` of what the tracer warned of.

    Raises:
        QuantizeError: stage ``build``; ``forward`` does not use one of its inputs.
        StreamingError: a recurrent layer starts from zero at every run.
    """
    arguments = [torch.zeros(shape) for shape in model.inputs.values()]
    warned = _write(module, arguments, path, list(model.inputs), list(model.outputs))
    finish_onnx(onnx.load(path), model, path)
    return warned


def finish_onnx(proto: Any, model: StreamingModel, path: Path) -> None:
    """Simplify a float network, write it as esp-ppq takes it, and store it.

    Raises:
        QuantizeError: stage ``build``; an input is not used.
        StreamingError: a recurrent layer starts from zero at every run.
    """
    proto = _simplify(proto)
    used = {name for node in proto.graph.node for name in node.input}
    unused = [name for name in model.inputs if name not in used]
    if unused:
        raise QuantizeError(
            f"forward does not use input {', '.join(unused)}",
            stage="build",
            hint="remove it from input_shape",
        )
    _replace_batch_norms(proto)
    _fold_biases(proto)
    _size_splits(proto)
    _write_pads(proto)
    onnx.save(proto, path)
    _check_nodes(proto)


def check_size(path: Path, target: str, bits: int) -> None:
    """Refuse a network whose weights fit no module with the target's chip, before it is quantized.

    Args:
        path: The float ONNX file.
        target: Name in `TARGETS`.
        bits: 8 or 16.

    Raises:
        QuantizeError: stage ``build``; says both sizes.
    """
    graph = onnx.load(path).graph
    readers = {name: _owner(node) for node in graph.node for name in node.input}
    sizes = {
        readers.get(t.name, t.name): int(np.prod(t.dims)) * bits // 8
        for t in graph.initializer
        if t.data_type == onnx.TensorProto.FLOAT
    }
    room, needed = TARGETS[target].model_bytes, sum(sizes.values())
    if needed > room:
        largest = max(sizes, key=lambda name: sizes[name])
        raise QuantizeError(
            f"its weights take {needed / 2**20:.1f} MiB at int{bits}, the largest {target} module "
            f"has {room / 2**20:.0f} MiB for them",
            stage="build",
            hint=f"make the network smaller ({largest} alone takes {sizes[largest] / 2**20:.1f} "
            "MiB), or take fewer bits or another chip",
        )


def _owner(node: Any) -> str:
    """The module of a node, by the name of a parameter that has kept it."""
    own = (name.rpartition(".")[0] for name in node.input if "::" not in name)
    return next(filter(None, own), module_path(node.name))


def _check_nodes(proto: Any) -> None:
    """Refuse what esp-ppq fails on without a word that helps.

    Raises:
        QuantizeError: stage ``build``; nothing is computed.
        StreamingError: a recurrent layer starts from zero at every run, or a shape depends on data.
    """
    if all(node.op_type == "Identity" for node in proto.graph.node):
        raise QuantizeError(
            "forward returns its input as it is: there is nothing to quantize",
            stage="build",
            hint="nn.Identity and reshapes that change nothing leave no operator; add a layer",
        )
    for node in proto.graph.node:
        if node.op_type in _DATA_SHAPED:
            raise refuse(rules.DATA_SHAPE, module_path(node.name), f"{node.op_type} gives it")
    for node in proto.graph.node:
        # esp-ppq: IndexError. Simplifying leaves out an initial state of zeros.
        if node.op_type in _RECURRENT and not any(node.input[_INITIAL_STATE:]):
            message = "its initial state is no input of forward"
            raise refuse(rules.STATE_DROPPED, module_path(node.name), message)


def _write(
    module: Any, arguments: list[Any], path: Path, inputs: list[str], outputs: list[str]
) -> list[str]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")  # others: the legacy exporter is the one esp-ppq uses
        torch.onnx.export(
            model=module,
            args=tuple(arguments),
            f=path,
            opset_version=OPSET,
            do_constant_folding=True,
            dynamo=False,
            input_names=inputs,
            output_names=outputs,
        )
    traced = [entry for entry in said if entry.category is torch.jit.TracerWarning]
    return [f"{Path(entry.filename).name}:{entry.lineno}" for entry in traced]


def _simplify(proto: Any) -> Any:
    """Simplify a graph; where the optimizer fails on it, fold its constants only."""
    try:
        return onnxsim.simplify(proto)[0]
    except RuntimeError as error:
        print(f"the ONNX optimizer failed ({describe_error(error)}): constants are folded only")
        return onnxsim.simplify(proto, perform_optimization=False)[0]


def _replace_batch_norms(proto: Any) -> None:
    """Write the batch norms over ``(1, C, T)`` that follow no convolution as convolutions.

    esp-ppq does so itself, but always with two-dimensional ones, and then fails.
    """
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    infos = onnx.shape_inference.infer_shapes(proto).graph
    ranks = {
        info.name: len(info.type.tensor_type.shape.dim)
        for info in (*infos.value_info, *infos.input)
    }
    for node in proto.graph.node:
        if node.op_type != "BatchNormalization" or ranks.get(node.input[0]) != 3:
            continue
        gamma, beta, mean, variance = (
            onnx.numpy_helper.to_array(constants[name]) for name in node.input[1:]
        )
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        scale = gamma / np.sqrt(variance + epsilon)
        names = [f"{node.name}.weight", f"{node.name}.bias"]
        arrays = [scale.reshape(-1, 1, 1), beta - mean * scale]
        for name, array in zip(names, arrays, strict=True):
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        convolution = onnx.helper.make_node(
            "Conv",
            [node.input[0], *names],
            node.output,
            node.name,
            kernel_shape=[1],
            strides=[1],
            dilations=[1],
            pads=[0, 0],
            group=scale.size,
        )
        node.CopyFrom(convolution)


def _fold_biases(proto: Any) -> None:
    """Fold a constant a channel, added to what a convolution with a bias gives, into that bias.

    esp-ppq squeezes such a constant and then keeps the Add, which adds it along time.
    """
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    readers = collections.Counter(name for node in proto.graph.node for name in node.input)
    ends = {info.name for info in proto.graph.output}
    writers = {node.output[0]: node for node in proto.graph.node}
    for add in [node for node in proto.graph.node if node.op_type == "Add"]:
        given = [name for name in add.input if name in constants]
        source = next((name for name in add.input if name not in given), "")
        conv = writers.get(source)
        if len(given) != 1 or conv is None or conv.op_type not in ("Conv", "ConvTranspose"):
            continue
        value = onnx.numpy_helper.to_array(constants[given[0]])
        channels = value.ndim > 2 and value.shape[1] == value.size > 1  # (1, C, 1 ..)
        if len(conv.input) < 3 or not channels or readers[source] > 1 or source in ends:
            continue
        bias = onnx.numpy_helper.to_array(constants[conv.input[2]]) + value.reshape(-1)
        conv.input[2] = f"{add.name}.bias"
        proto.graph.initializer.append(onnx.numpy_helper.from_array(bias, conv.input[2]))
        conv.output[0] = add.output[0]
        proto.graph.node.remove(add)


def _size_splits(proto: Any) -> None:
    """Give every Split that names a number of parts (``F.glu``) their lengths instead.

    ESP-DL reads the lengths only.
    """
    infos = onnx.shape_inference.infer_shapes(proto).graph
    lengths = {
        info.name: info.type.tensor_type.shape.dim for info in (*infos.value_info, *infos.output)
    }
    for node in proto.graph.node:
        if node.op_type != "Split" or len(node.input) > 1:
            continue
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        parts = np.array([lengths[name][axis].dim_value for name in node.output], np.int64)
        name = f"{node.name}.lengths"
        proto.graph.initializer.append(onnx.numpy_helper.from_array(parts, name))
        split = onnx.helper.make_node(
            "Split", [node.input[0], name], node.output, node.name, axis=axis
        )
        node.CopyFrom(split)


def _write_pads(proto: Any) -> None:
    """Give every convolution with ``padding="same"`` the numbers, which esp-ppq wants."""
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type != "Conv" or given.get("auto_pad", b"NOTSET") not in _SAME:
            continue
        kernel = constants[node.input[1]].dims[2:]
        dilations = given.get("dilations", [1] * len(kernel))
        totals = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]  # of stride 1
        halves, rest = [total // 2 for total in totals], [-(-total // 2) for total in totals]
        pads = rest + halves if given["auto_pad"] == b"SAME_LOWER" else halves + rest
        kept = [a for a in node.attribute if a.name not in ("auto_pad", "pads")]
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute("pads", pads)])


def _flatten(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return [leaf for entry in value for leaf in _flatten(entry)]
    return [value]
