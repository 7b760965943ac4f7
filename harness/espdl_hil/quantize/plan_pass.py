"""The exporter's own graph: analysed, and changed as a plan or a detour says. Only in a worker.

The exporter calls its passes after it has permuted the graph to NWC / NHWC, quantized it to
integers and, if it was given one, set the streaming input shape. By then the graph inputs
have the length of a chunk and every other tensor still has its offline length; shapes are
kept in the original order of axes with a permutation beside them, and after some
Transposes they are wrong. So only input shapes are read, and all others are inferred and
then written back, which makes the ``value_info`` of the streaming file right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from esp_ppq.core import DataType
from esp_ppq.parser.espdl.espdl_typedef import ADD_LIKE_OP_SET, ExporterPatternInfo

from espdl_hil.espdl import Node
from espdl_hil.operators.detour import MoreChannels, Repeated, Steps
from espdl_hil.streaming import Clock, NeutralGraph, analyze

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from espdl_hil.operators.detour import Detour
    from espdl_hil.streaming import Analysis, Insertion, StreamingPlan

_WIDTH = {DataType.INT8: "S8", DataType.INT16: "S16"}


def permute_constants(graph: Any) -> None:
    """Bring the constants of Add, Sub, Mul and Div into the order of axes of what they meet.

    The exporter permutes activations to NWC and NHWC and leaves these as they were: a value a
    channel would count along time.
    """
    known = ExporterPatternInfo()
    orders: dict[str, tuple[Any, set[tuple[int, ...]]]] = {}
    for operation in graph.operations.values():
        if operation.type in ADD_LIKE_OP_SET:
            order = tuple(known.get_var_permute(operation.outputs[0].name) or ())
            for variable in operation.inputs:
                if variable.is_parameter:
                    orders.setdefault(variable.name, (variable, set()))[1].add(order)
    for variable, wanted in orders.values():
        order = wanted.pop()
        if not wanted and variable.value.numel() > 1 and variable.value.ndim <= len(order):
            missing = (1,) * (len(order) - variable.value.ndim)
            whole = variable.value.reshape(*missing, *variable.value.shape)
            variable.value = whole.permute(order).contiguous()


def analyze_permuted(
    graph: Any,
    inputs: Mapping[str, tuple[int, ...]],
    frame_axes: Mapping[str, int],
    chunk_frames: Mapping[str, int],
    state: Mapping[str, str],
) -> Analysis:
    """Analyse esp-ppq's permuted graph, before any other pass has changed it.

    Args:
        graph: ``esp_ppq.IR.BaseGraph``.
        inputs: Offline shape of each graph input, in the module's own layout.
        frame_axes: Time axis of each of them that has one, in that layout.
        chunk_frames: Frames of each of these in one chunk.
        state: Recurrent state: graph input to the graph output that feeds it.
    """
    orders = {name: _permutation(graph.inputs[name]) for name in inputs}
    shapes = {name: tuple(inputs[name][axis] for axis in order) for name, order in orders.items()}
    axes = {name: orders[name].index(axis) for name, axis in frame_axes.items()}
    return analyze(to_neutral(graph, shapes), Clock.of(axes, chunk_frames, state))


def apply_offline_edits(graph: Any, analysis: Analysis) -> None:
    """Let the *offline* file run at any length.

    Reshape and Slice constants that name its frame count, and Gather indices that count
    from the end (which the runtime reads outside the tensor), are replaced by what means the
    same; no value changes. The offline model of a prefix is the same file at another length.
    The analysis must be of this graph, and for any legal chunk size.
    """
    for change in analysis.offline_edits:
        _set_constant(graph, change.node, change.input_index, change.values)
    for insertion in analysis.offline_insertions:
        _insert(graph, insertion)


def to_neutral(graph: Any, shapes: Mapping[str, tuple[int, ...]]) -> NeutralGraph:
    """Take over esp-ppq's permuted graph; *shapes* of its inputs offline, in the file's layout."""
    known = ExporterPatternInfo()
    nodes = tuple(
        Node(
            name=op.name,
            op_type=op.type,
            inputs=tuple(variable.name for variable in op.inputs),
            outputs=tuple(variable.name for variable in op.outputs),
            attributes={key: _plain(value) for key, value in op.attributes.items()},
        )
        for op in graph.topological_sort()
    )
    parameters = {
        n: v for n, v in graph.variables.items() if v.is_parameter and v.value is not None
    }
    activations = {name: v for name, v in graph.variables.items() if not v.is_parameter}
    return NeutralGraph(
        nodes=nodes,
        constants={name: _array(variable.value) for name, variable in parameters.items()},
        shapes=shapes,
        inputs=tuple(graph.inputs),
        outputs=tuple(graph.outputs),
        exponents={
            name: tuple(exponents)
            for name in graph.variables
            if (exponents := known.get_var_exponents(name)) is not None
        },
        itemsizes={name: _itemsize(v.dtype) for name, v in activations.items()},
    )


def apply_plan(graph: Any, plan: StreamingPlan) -> None:
    """Change esp-ppq's permuted graph as its plan says."""
    for edit in plan.attribute_edits:
        graph.operations[edit.node].attributes[edit.attribute] = _listed(edit.value)
    for change in plan.constant_edits:
        _set_constant(graph, change.node, change.input_index, change.values)
    for insertion in plan.insertions:
        _insert(graph, insertion)
    for name in plan.removals:
        graph.remove_operation(graph.operations[name], keep_coherence=True)
    for name, shape in plan.shapes.items():
        variable = graph.variables.get(name)
        if variable is not None and len(shape) == len(variable.shape or ()):
            variable.shape = _original_shape(variable, shape)


def take_detours(graph: Any, detours: Mapping[str, Detour]) -> None:
    """Put other nodes that mean the same around those that the chip would compute wrongly.

    *detours* by node name. To the analysis, which comes later, these are nodes like others, and
    all files of a model have them.
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


def _insert(graph: Any, insertion: Insertion) -> None:
    """Put the chain of new nodes in front of one input of one node."""
    consumer = graph.operations[insertion.consumer]
    for new in insertion.nodes:
        source = consumer.inputs[insertion.input_index]
        created = graph.create_operation(
            op_type=new.op_type,
            name=new.name,
            attributes={key: _listed(value) for key, value in new.attributes.items()},
            platform=consumer.platform,
        )
        created.attributes["quant_type"] = consumer.attributes["quant_type"]
        graph.insert_op_before(A=created, B=consumer, input_idx=insertion.input_index)
        _describe(created.outputs[0], source, new.shape)
        _add_constants(graph, created, new.constants)


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
    return tuple(variable.shape[axis] for axis in _permutation(variable))


def _add_constants(graph: Any, operation: Any, vectors: Sequence[Sequence[int]]) -> None:
    for vector in vectors:
        constant = graph.create_variable(
            value=torch.tensor(vector, dtype=torch.int64), is_parameter=True, dest_ops=[operation]
        )
        constant.dtype = DataType.INT64


def _set_constant(graph: Any, node: str, index: int, values: tuple[int, ...]) -> None:
    """Give one input of one node a vector of its own; others may share the old one."""
    operation = graph.operations[node]
    old = operation.inputs[index]
    value = torch.tensor(values, dtype=torch.int64).reshape(old.value.shape)
    if len(old.dest_ops) == 1:
        old.value = value.to(old.value.dtype)
        return
    new = graph.create_variable(value=value.to(old.value.dtype), is_parameter=True)
    new.dtype = old.dtype
    old.dest_ops.remove(operation)
    new.dest_ops.append(operation)
    operation.inputs[index] = new


def _original_shape(variable: Any, shape: tuple[int, ...]) -> list[int]:
    permutation = _permutation(variable)
    return [shape[permutation.index(axis)] for axis in range(len(shape))]


def _permutation(variable: Any) -> list[int]:
    """From the original order of axes to the file's."""
    permutation = ExporterPatternInfo().get_var_permute(variable.name)
    return list(permutation or range(len(variable.shape)))


def _array(value: Any) -> np.ndarray[Any, Any]:
    return value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _itemsize(dtype: DataType) -> int:
    return {DataType.INT8: 1, DataType.INT16: 2}.get(dtype, 4)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
