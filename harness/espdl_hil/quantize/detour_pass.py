"""Ways around what a chip computes wrongly, put into the exporter's own graph. Only in a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from esp_ppq.core import DataType
from esp_ppq.parser.espdl.espdl_typedef import ExporterPatternInfo

from espdl_hil.operators.detour import MoreChannels, Repeated, Steps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from espdl_hil.operators.detour import Detour

_WIDTH = {DataType.INT8: "S8", DataType.INT16: "S16"}


def take_detours(graph: Any, detours: Mapping[str, Detour]) -> None:
    """Put other nodes that mean the same around nodes that would be computed wrongly.

    Args:
        graph: ``esp_ppq.IR.BaseGraph``, permuted, before it is analysed: to the analysis these are
            nodes like others, and all files of a model have them.
        detours: By node name.
    """
    for name, detour in detours.items():
        operation = graph.operations[name]
        if isinstance(detour, MoreChannels):
            _pad(graph, operation, detour)
        elif isinstance(detour, Steps):
            _step(graph, operation, detour)
        elif isinstance(detour, Repeated):
            _repeat(graph, operation, detour)


def _pad(graph: Any, operation: Any, detour: MoreChannels) -> None:
    source, result = operation.inputs[0], operation.outputs[0]
    before, after = _shape(source), _shape(result)
    pad = _create(graph, operation, "Pad", "padded", source, mode="constant")
    graph.insert_op_before(A=pad, B=operation, input_idx=0)
    _describe(pad.outputs[0], source, (*before[:-1], detour.channels))
    last = len(before) - 1
    _add_constants(graph, pad, [[0] * (2 * last + 1) + [detour.channels - detour.kept]])
    cut = _create(graph, operation, "Slice", "kept", result)
    graph.insert_op_after(A=cut, B=operation, output_idx=0)
    _describe(operation.outputs[0], result, (*after[:-1], detour.channels))
    _add_constants(graph, cut, [[0], [detour.kept], [last], [1]])


def _step(graph: Any, operation: Any, detour: Steps) -> None:
    result = operation.outputs[0]
    for number, exponent in enumerate(detour.exponents):
        source = operation.inputs[0]
        step = _create(graph, operation, "RequantizeLinear", f"step{number}", result)
        graph.insert_op_before(A=step, B=operation, input_idx=0)
        _describe(step.outputs[0], result, _shape(source))
        ExporterPatternInfo().add_var_exponents(step.outputs[0].name, [exponent])
        for constant in operation.inputs[1:]:  # which ESP-DL does not read
            step.inputs.append(constant)
            constant.dest_ops.append(step)


def _repeat(graph: Any, operation: Any, detour: Repeated) -> None:
    source = operation.inputs[detour.index]
    shape = _shape(source)
    name = f"repeated{detour.index}"
    repeated = _create(graph, operation, "Concat", name, source, axis=detour.axis)
    graph.insert_op_before(A=repeated, B=operation, input_idx=detour.index)
    for _ in range(detour.times - 1):
        repeated.inputs.append(source)
        source.dest_ops.append(repeated)
    longer = tuple(detour.times * n if axis == detour.axis else n for axis, n in enumerate(shape))
    _describe(repeated.outputs[0], source, longer)


def _create(
    graph: Any, operation: Any, op_type: str, what: str, like: Any, **attributes: Any
) -> Any:
    """A node that goes with *operation*, of the type of the tensor *like*."""
    return graph.create_operation(
        op_type=op_type,
        name=f"{operation.name}_{what}",
        attributes={**attributes, "quant_type": _WIDTH.get(like.dtype, "F32")},
        platform=operation.platform,
    )


def _describe(variable: Any, like: Any, shape: Sequence[int]) -> None:
    """Type and exponent of *like*; the shape in the file's layout."""
    known = ExporterPatternInfo()
    variable.dtype, variable.is_parameter, variable.shape = like.dtype, False, list(shape)
    known.add_var_exponents(variable.name, known.get_var_exponents(like.name))
    known.add_var_config(variable.name, known.get_var_config(like.name))
    known.add_var_permute(variable.name, list(range(len(shape))))


def _shape(variable: Any) -> tuple[int, ...]:
    """In the file's layout."""
    order = ExporterPatternInfo().get_var_permute(variable.name) or range(len(variable.shape))
    return tuple(variable.shape[axis] for axis in order)


def _add_constants(graph: Any, operation: Any, vectors: Sequence[Sequence[int]]) -> None:
    for vector in vectors:
        constant = graph.create_variable(
            value=torch.tensor(vector, dtype=torch.int64), is_parameter=True, dest_ops=[operation]
        )
        constant.dtype = DataType.INT64
