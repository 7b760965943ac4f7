"""The analysis of the exporter's own graph, and its plan applied to it. Runs only in a worker.

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
from espdl_hil.streaming import (
    Analysis,
    Clock,
    Insertion,
    NeutralGraph,
    StreamingPlan,
    analyze,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


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

    Args:
        graph: ``esp_ppq.IR.BaseGraph``; it must be the one that was analysed.
        analysis: For any legal chunk size.
    """
    for change in analysis.offline_edits:
        _set_constant(graph, change.node, change.input_index, change.values)
    for insertion in analysis.offline_insertions:
        _insert(graph, insertion)


def to_neutral(graph: Any, shapes: Mapping[str, tuple[int, ...]]) -> NeutralGraph:
    """Take over esp-ppq's permuted graph.

    Args:
        graph: ``esp_ppq.IR.BaseGraph``.
        shapes: Offline shape of each graph input, in the file's layout.
    """
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
    """Change esp-ppq's permuted graph as the plan says.

    Args:
        graph: ``esp_ppq.IR.BaseGraph``; it must be the one that was planned.
        plan: The plan.
    """
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


def _insert(graph: Any, insertion: Insertion) -> None:
    """Put the chain of new nodes in front of one input of one node."""
    known = ExporterPatternInfo()
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
        result = created.outputs[0]
        result.dtype = source.dtype
        result.is_parameter = False
        known.add_var_exponents(result.name, known.get_var_exponents(source.name))
        known.add_var_config(result.name, known.get_var_config(source.name))
        known.add_var_permute(result.name, list(range(len(new.shape))))
        result.shape = list(new.shape)
        for values in new.constants:
            constant = graph.create_variable(
                value=torch.tensor(values, dtype=torch.int64), is_parameter=True, dest_ops=[created]
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
