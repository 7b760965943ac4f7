"""Passes over the float network's ONNX graph: from what torch writes to what esp-ppq can take.

Runs only in a worker process.
"""

from __future__ import annotations

import collections
from typing import Any

import numpy as np
import onnx

_SAME = (b"SAME_LOWER", b"SAME_UPPER")


def run_passes(proto: Any) -> None:
    """Run all passes, in place.

    Args:
        proto: An ``onnx.ModelProto``, simplified. A pass that costs the user something leaves
            what there is to know in the node's ``doc_string``, which is empty otherwise.
    """
    for node in proto.graph.node:
        node.doc_string = ""
    _replace_batch_norms(proto)
    _fold_biases(proto)
    _size_splits(proto)
    _write_pads(proto)
    _join_groups(proto)


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
        if node.op_type != "BatchNormalization":
            continue
        count = ranks.get(node.input[0], 0) - 2
        if count < 1:
            continue
        gamma, beta, mean, variance = (
            onnx.numpy_helper.to_array(constants[name]) for name in node.input[1:]
        )
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        scale = gamma / np.sqrt(variance + epsilon)
        names = [f"{node.name}.weight", f"{node.name}.bias"]
        arrays = [scale.reshape(-1, 1, *[1] * count), beta - mean * scale]
        for name, array in zip(names, arrays, strict=True):
            _add_constant(proto, name, array)
        ones = [1] * count
        settings = {"kernel_shape": ones, "strides": ones, "dilations": ones}
        settings |= {"pads": [0] * 2 * count, "group": scale.size}
        inputs = [node.input[0], *names]
        node.CopyFrom(onnx.helper.make_node("Conv", inputs, node.output, node.name, **settings))


def _add_constant(proto: Any, name: str, array: Any) -> None:
    proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))


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
        _add_constant(proto, conv.input[2], bias)
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
        _add_constant(proto, name, parts)
        inputs = [node.input[0], name]
        node.CopyFrom(onnx.helper.make_node("Split", inputs, node.output, node.name, axis=axis))


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
        _add_constant(proto, node.input[1], joined)
        group.i = 1
        node.doc_string = (
            f"its {count} groups are written as one with zeros in its filter, since ESP-DL has "
            f"none: {count} times the multiplications"
        )
