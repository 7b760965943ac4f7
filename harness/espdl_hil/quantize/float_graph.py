"""The float network's ONNX graph, as esp-ppq can take it.

Runs only in a worker process.
"""

from __future__ import annotations

import collections
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxsim
import torch

from espdl_hil.errors import QuantizeError
from espdl_hil.model import describe_error
from espdl_hil.quantize import spelling
from espdl_hil.quantize.float_faults import EDITS
from espdl_hil.quantize.float_module import lines_of
from espdl_hil.streaming import refuse, rules
from espdl_hil.streaming.names import module_path
from espdl_hil.targets import TARGETS

if TYPE_CHECKING:
    from espdl_hil.model import StreamingModel

OPSET = 18  # what esp-ppq's own torch entry point uses
_RECURRENT = ("GRU", "LSTM", "RNN")
_INITIAL_STATE = 5  # index of initial_h among their inputs
_SAME = (b"SAME_LOWER", b"SAME_UPPER")
_ATEN = re.compile(r"aten::(\w+)")
_FRAME = re.compile(r"(\S+\.py)\((\d+)\): ")
_NOT_THEIRS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
_DATA_SHAPED = ("Compress", "NonMaxSuppression", "NonZero", "Unique")


def warm_up(path: Path) -> None:
    """Export a network of one layer, so that the libraries load what they need.

    Args:
        path: Scratch ONNX file.
    """
    _write(torch.nn.Conv1d(1, 1, 1), [torch.zeros(1, 1, 2)], path, ["input"], ["output"])
    _simplify(onnx.load(path))


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
            f"no output depends on input {', '.join(map(repr, unused))}",
            stage="build",
            hint="remove it from input_shape; or, if forward takes it through NumPy or a Python "
            "number, which a trace keeps as they were, compute with torch throughout",
        )
    for node in proto.graph.node:
        node.doc_string = ""
    _replace_batch_norms(proto)
    _fold_biases(proto)
    _size_splits(proto)
    _write_pads(proto)
    _join_groups(proto)
    onnx.save(proto, path)
    _check_nodes(proto)


def notes_of(path: Path) -> list[str]:
    """What the user is to know of how a stored network is written."""
    nodes = onnx.load(path).graph.node
    return [f"{module_path(n.name)}: {n.doc_string}" for n in nodes if n.doc_string]


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
    ends = {info.name for info in (*proto.graph.input, *proto.graph.output)}
    for node in proto.graph.node:
        if node.op_type == "Identity" and {node.input[0], node.output[0]} <= ends:
            raise QuantizeError(
                f"output {node.output[0]!r} is nothing but {node.input[0]!r} again",
                stage="build",
                hint="return each tensor once, and name each once in outputs",
            )
    for node in proto.graph.node:
        if node.op_type in _DATA_SHAPED:
            raise refuse(rules.DATA_SHAPE, module_path(node.name), f"{node.op_type} gives it")
    infos = onnx.shape_inference.infer_shapes(proto).graph
    alone = {
        info.name
        for info in (*infos.value_info, *infos.input)
        if [d.dim_value for d in info.type.tensor_type.shape.dim][1:2] == [1]
    }
    for node in proto.graph.node:
        # esp-ppq: IndexError. Simplifying leaves out an initial state of zeros.
        stateless = node.op_type in _RECURRENT and not any(node.input[_INITIAL_STATE:])
        if stateless and node.input[0] in alone:
            message = "its initial state is no input of forward"
            raise refuse(rules.STATE_DROPPED, module_path(node.name), message)


def _write(
    module: Any, arguments: list[Any], path: Path, inputs: list[str], outputs: list[str]
) -> list[str]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")  # others: the legacy exporter is the one esp-ppq uses
        try:
            with spelling.Spelled():
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
        except Exception as error:
            raise _not_exported(error, module) from error
    traced = [
        entry
        for entry in said
        if entry.category is torch.jit.TracerWarning and entry.filename != spelling.__file__
    ]
    return [f"{Path(entry.filename).name}:{entry.lineno}" for entry in traced]


def _not_exported(error: Exception, module: Any) -> Exception:
    """What ONNX has no word for, ESP-DL has no operator for either."""
    text = describe_error(error)
    reason = text.partition(": ")[2].partition(" [Caused by")[0].partition(" Please feel free")[0]
    if "Tried to trace <__torch__" in reason:
        reason = "a part of it is a product of torch.jit.script, which cannot be traced"
    named = _ATEN.search(reason)
    frames = [frame for frame in _FRAME.findall(text) if not frame[0].startswith(_NOT_THEIRS)]
    places = [f"{Path(file).name}:{line}" for file, line in frames]
    if not places:
        word = named[1].rpartition("_")[2] if named else ""
        places = lines_of(module, rf"\b{word}\b" if word else "") or lines_of(module, "def forward")
    what = f"torch cannot export {named[1]} to ONNX" if named else reason
    refusal = refuse(rules.UNRUNNABLE, places[0] if places else "forward", what)
    words = {"stft": EDITS["fft"], **EDITS}
    edits = (edit for word, edit in words.items() if word.islower() and word in reason.lower())
    refusal.hint = next(edits, refusal.hint)
    return refusal


def _simplify(proto: Any) -> Any:
    """Simplify a graph; where the optimizer fails on it, fold its constants only."""
    try:
        return onnxsim.simplify(proto)[0]
    except RuntimeError as error:
        print(f"the ONNX optimizer failed ({describe_error(error)}): constants are folded only")
        return onnxsim.simplify(proto, perform_optimization=False)[0]


def _replace_batch_norms(proto: Any) -> None:
    """Write the batch norms that could not be put into a convolution as convolutions.

    esp-ppq does so itself, but always with two-dimensional ones, and then fails; and not where the
    convolution before them has another reader.
    """
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    infos = onnx.shape_inference.infer_shapes(proto).graph
    ranks = {
        info.name: len(info.type.tensor_type.shape.dim)
        for info in (*infos.value_info, *infos.input)
    }
    for node in proto.graph.node:
        count = ranks.get(node.input[0], 0) - 2
        if node.op_type != "BatchNormalization" or count < 1:
            continue
        gamma, beta, mean, variance = (
            onnx.numpy_helper.to_array(constants[name]) for name in node.input[1:]
        )
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        scale = gamma / np.sqrt(variance + epsilon)
        names = [f"{node.name}.weight", f"{node.name}.bias"]
        arrays = [scale.reshape(-1, 1, *[1] * count), beta - mean * scale]
        for name, array in zip(names, arrays, strict=True):
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        convolution = onnx.helper.make_node(
            "Conv",
            [node.input[0], *names],
            node.output,
            node.name,
            kernel_shape=[1] * count,
            strides=[1] * count,
            dilations=[1] * count,
            pads=[0] * 2 * count,
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


def _join_groups(proto: Any) -> None:
    """Write a convolution of several groups that is not depthwise as one whose rest is zeros.

    ESP-DL has one group, or as many as channels.
    """
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        group = next((a for a in node.attribute if a.name == "group"), None)
        if node.op_type not in ("Conv", "ConvTranspose") or not group or group.i == 1:
            continue
        filters = onnx.numpy_helper.to_array(constants[node.input[1]])
        count = group.i
        parts = filters.reshape(count, filters.shape[0] // count, *filters.shape[1:])
        if parts.shape[1] == parts.shape[2] == 1:
            continue  # depthwise
        rows, columns = parts.shape[1:3]
        joined = np.zeros((filters.shape[0], columns * count, *filters.shape[2:]), np.float32)
        for index, part in enumerate(parts):
            inside = slice(index * columns, (index + 1) * columns)
            joined[index * rows : (index + 1) * rows, inside] = part
        node.input[1] = f"{node.name}.joined"
        proto.graph.initializer.append(onnx.numpy_helper.from_array(joined, node.input[1]))
        group.i = 1
        node.doc_string = (
            f"its {count} groups are written as one with zeros in its filter, since ESP-DL has "
            f"none: {count} times the multiplications"
        )
