"""Patches of what esp-ppq does wrongly, or slowly. Runs only in a worker process."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import esp_ppq.api.espdl_interface
import esp_ppq.parser.espdl.helper
import esp_ppq.parser.espdl.layout_patterns
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody writes it
from esp_ppq.core import TargetPlatform
from esp_ppq.executor.base import OPERATION_FORWARD_TABLE, register_operation_handler
from esp_ppq.parser.espdl.espdl_typedef import ExporterPatternInfo
from esp_ppq.parser.espdl.layout_patterns import (
    FuseTransposeActivationPattern,
    FuseTransposePattern,
    transpose_shape,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def install() -> None:
    """Let esp-ppq use what is here from now on."""
    # The float graph is simplified by the time it comes here, and esp-ppq gives up the networks
    # (attention for one) on which the ONNX optimizer fails.
    esp_ppq.api.espdl_interface.simplify = lambda model: (model, False)
    esp_ppq.parser.espdl.helper.AlignedBytes.CreateAlignedBytes = _create_aligned_bytes
    esp_ppq.parser.espdl.layout_patterns.FuseTransposeActivationPattern = FuseTransposeActivation
    esp_ppq.parser.espdl.layout_patterns.FuseTransposePattern = FuseTranspose
    for platform in filter(OPERATION_FORWARD_TABLE.__contains__, TargetPlatform):
        register_operation_handler(_layer_norm, "LayerNormalization", platform)
        register_operation_handler(_conv_transpose, "ConvTranspose", platform)
        divide = OPERATION_FORWARD_TABLE[platform]["Div"]
        register_operation_handler(functools.partial(_div, divide), "Div", platform)


class FuseTransposeActivation(FuseTransposeActivationPattern):
    """Takes a Transpose before an activation out, and knows how the result then lies."""

    def export(self, op: Any, graph: Any, **_: Any) -> Any:  # noqa: D102 - esp-ppq calls it
        order = op.attributes.get("perm", [])
        there = op.type == "Transpose" and op.name in graph.operations
        readers = list(op.outputs[0].dest_ops) if there else []
        found = super().export(op, graph)
        if readers and op.name not in graph.operations:
            known, name = ExporterPatternInfo(), readers[0].outputs[0].name
            before = known.get_var_permute(name) or list(range(len(order)))
            known.add_var_permute(name, [before[order.index(axis)] for axis in range(len(order))])
        return found


class FuseTranspose(FuseTransposePattern):
    """Leaves Transposes that undo each other where an output would lose its name with them."""

    def export(self, op: Any, graph: Any, **_: Any) -> Any:  # noqa: D102 - esp-ppq calls it
        there = op.type == "Transpose" and op.name in graph.operations
        if there and len(op.inputs[0].dest_ops) > 1:
            last, order = op, op.attributes["perm"]
            while [reader.type for reader in graph.get_downstream_operations(last)] == [
                "Transpose"
            ]:
                (last,) = graph.get_downstream_operations(last)
                order = transpose_shape(order, last.attributes["perm"])
            if last.outputs[0].name in graph.outputs and list(order) == sorted(order):
                return op
        return super().export(op, graph)


def _create_aligned_bytes(builder: Any, data: bytes) -> Any:
    """The same bytes; the generated function writes the weights byte by byte, for each file."""
    builder.Prep(16, 16)
    builder.head -= 16
    builder.Bytes[builder.head : builder.head + 16] = data
    return builder.Offset()


def _div(divide: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """0 / 0 is 0, as on the chip: a quantized divisor may be 0 where the float one is not."""
    result = divide(*arguments, **named)
    dividend, divisor = arguments[1][:2]
    nothing = (dividend == 0) & (divisor == 0)
    return torch.where(nothing, torch.zeros_like(result), result)


def _layer_norm(op: Any, values: Sequence[Any], *_: Any) -> Any:
    """Over the last axes, where esp-ppq's own takes the last one only."""
    given, (x, weight, bias) = op.attributes, (*values, None)[:3]
    shape = x.shape[given.get("axis", -1) :]
    return F.layer_norm(x, shape, weight, bias, given.get("epsilon", 1e-5))


def _conv_transpose(op: Any, values: Sequence[Any], *_: Any) -> Any:
    """With each axis' own padding, where esp-ppq's own takes that of the other axis."""
    given, count = op.attributes, values[0].ndim - 2
    output = (F.conv_transpose1d, F.conv_transpose2d)[count - 1](
        *values,
        stride=given.get("strides", 1),
        output_padding=given.get("output_padding", 0),
        groups=given.get("group", 1),
        dilation=given.get("dilations", 1),
    )
    pads, sizes = given.get("pads", [0] * 2 * count), output.shape[2:]
    inside = [slice(pads[i], sizes[i] - pads[i + count]) for i in range(count)]
    return output[(slice(None), slice(None), *inside)]
