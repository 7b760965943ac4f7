"""Shapes of one node and of a whole graph, from the inputs on. Knows no operator by name.

A streaming file keeps the offline lengths in its ``value_info``, and an offline file may run at
other lengths, so shapes always come from the inputs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from espdl_hil.errors import ArtifactError, ConfigError, UnsupportedOpError
from espdl_hil.espdl.graph import MAX_ELEMENTS, MAX_RANK, Array, Graph, Node, Shape
from espdl_hil.operators.node import NodeView, PlacedNode
from espdl_hil.operators.problem import NodeProblem
from espdl_hil.operators.registry import OPERATORS
from espdl_hil.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


MAX_REASONS = 100  # of one refusal; a file can hold a wrong node for each 100 bytes
MAX_REASON_CHARACTERS = 1000  # and each can quote a constant as long as the file


def output_shapes(
    node: Node, input_shapes: Sequence[Shape | None], constants: Mapping[str, Array]
) -> tuple[Shape, ...]:
    """Shapes of one node's outputs, as ESP-DL's ``get_output_shape`` finds them.

    Args:
        node: From a file, or from the exporter's graph in the file's layout. Lists may stand for
            tuples among its attributes, and None for an attribute that is missing.
        input_shapes: One entry an input, in order, ``()`` for a scalar; None for an optional
            input that is missing.
        constants: Constant tensors by name, any shape. Only those are read whose values decide a
            shape (int64 axes, lengths and the like); of filters ``input_shapes`` alone counts.

    Returns:
        One shape an output, in order; more when ESP-DL makes outputs that the node does not name.

    Raises:
        NodeProblem: ESP-DL has no such operator, or the inputs do not fit it.
    """
    operator = OPERATORS.get(node.op_type)
    if operator is None:
        raise NodeProblem(f"ESP-DL has no operator {node.op_type}")
    found = tuple(operator.shapes(NodeView(node, input_shapes, constants)))
    if len(node.outputs) > len(found):
        raise NodeProblem(f"{len(node.outputs)} outputs, ESP-DL makes {len(found)}")
    for shape in found:
        if len(shape) > MAX_RANK:
            raise NodeProblem(f"the output would have {len(shape)} dimensions, not {MAX_RANK}")
        if any(dim < 1 for dim in shape) or math.prod(shape) > MAX_ELEMENTS:
            raise NodeProblem(f"the output would have shape {shape}")
    return found


def place(
    node: Node,
    graph: Graph,
    constants: Mapping[str, Array],
    shapes: Mapping[str, Shape],
    target: str,
) -> PlacedNode:
    """A node of *graph*, which has those *constants*, on a target, by the shapes of its inputs.

    Raises:
        NodeProblem: See `output_shapes`.
    """
    inputs = tuple(shapes.get(name) for name in node.inputs)
    return PlacedNode(
        node=node,
        shapes=inputs,
        constants=constants,
        graph=graph,
        target=TARGETS[target],
        width=str(node.attributes.get("quant_type")),
        results=output_shapes(node, inputs, constants),
    )


def shortened(reason: str) -> str:
    """A reason against a node, without the middle of what it quotes at length."""
    half = MAX_REASON_CHARACTERS // 2
    return reason if len(reason) <= 2 * half else f"{reason[:half]} … {reason[-half:]}"


def infer_shapes(graph: Graph, input_shapes: Mapping[str, Shape] | None = None) -> dict[str, Shape]:
    """Shape of every tensor of the graph.

    Args:
        graph: A graph from `load_graph`.
        input_shapes: Shapes of graph inputs that shall differ from the file's; in the file's
            layout.

    Returns:
        Shapes by tensor name, constants included (packed filters in their stored shape).

    Raises:
        UnsupportedOpError: A node does not fit its inputs; names every such node. Nodes that
            depend on one of them are left out.
        ArtifactError: The file does not fix the shape of an input, nor does *input_shapes*.
        ConfigError: *input_shapes* names something that is not a graph input, or has another
            rank.
    """
    shapes, problems = try_shapes(graph, input_shapes)
    if problems:
        raise refusal(graph, problems)
    return shapes


def refusal(
    graph: Graph, problems: list[tuple[Node, str]], *, supported: str | None = None
) -> UnsupportedOpError:
    """One error that names the nodes of *problems*, the first hundred, with their reasons."""
    lines = "".join(f"\n  {node}: {reason}" for node, reason in problems[:MAX_REASONS])
    if len(problems) > MAX_REASONS:
        lines += f"\n  and {len(problems) - MAX_REASONS} more"
    count = len({node.name for node, _ in problems})
    nodes = "1 node" if count == 1 else f"{count} nodes"
    error = UnsupportedOpError(
        f"ESP-DL cannot run {nodes} of this graph:{lines}", path=graph.path, hint=supported
    )
    error.nodes = [(node.name, node.op_type, reason) for node, reason in problems[:MAX_REASONS]]
    return error


def try_shapes(
    graph: Graph, input_shapes: Mapping[str, Shape] | None = None
) -> tuple[dict[str, Shape], list[tuple[Node, str]]]:
    """Like `infer_shapes`, but returns what it could not infer as (node, reason).

    Raises:
        ArtifactError: See `infer_shapes`.
        ConfigError: See `infer_shapes`.
    """
    shapes: dict[str, Shape] = {
        name: tensor.info.shape for name, tensor in graph.initializers.items()
    }
    shapes.update(_graph_inputs(graph, input_shapes or {}))
    constants = graph.constants
    problems: list[tuple[Node, str]] = []
    for node in graph.nodes:
        if any(name and name not in shapes for name in node.inputs):
            continue  # depends on a node that is reported already
        try:
            found = output_shapes(node, [shapes.get(name) for name in node.inputs], constants)
        except NodeProblem as problem:
            problems.append((node, shortened(str(problem))))
            continue
        shapes.update(
            (name, shape) for name, shape in zip(node.outputs, found, strict=False) if name
        )
    return shapes, problems


def _graph_inputs(graph: Graph, given: Mapping[str, Shape]) -> dict[str, Shape]:
    known = {info.name: info.shape for info in graph.inputs}
    for name, shape in given.items():
        if name not in known:
            raise ConfigError(f"{graph.path}: no graph input {name!r}; there are {sorted(known)}")
        if len(shape) != len(known[name]) or any(dim < 1 for dim in shape):
            raise ConfigError(
                f"{graph.path}: input {name!r} has shape {known[name]}, {tuple(shape)} does not fit"
            )
    found = known | {name: tuple(shape) for name, shape in given.items()}
    for name, shape in found.items():
        if any(dim < 1 for dim in shape):
            message = f"the shape of input {name!r} is not fixed: {shape}"
            raise ArtifactError(message, path=graph.path, hint="give its shape")
    return found
