"""Shapes of a whole graph, from its inputs on. Knows order and names, not the operators.

A streaming file keeps the offline lengths in its ``value_info``, and an offline file may run at
other lengths, so shapes always come from the inputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from espdl_hil.errors import ArtifactError, ConfigError, UnsupportedOpError
from espdl_hil.operators.node_view import NodeProblem, NodeView
from espdl_hil.operators.shapes import output_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from espdl_hil.espdl.graph import Graph, Node, Shape


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
    """One error that names every node of *problems* with its reasons."""
    lines = "".join(f"\n  {node}: {reason}" for node, reason in problems)
    count = len({node.name for node, _ in problems})
    nodes = "1 node" if count == 1 else f"{count} nodes"
    return UnsupportedOpError(
        f"ESP-DL cannot run {nodes} of this graph:{lines}", path=graph.path, hint=supported
    )


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
    problems: list[tuple[Node, str]] = []
    for node in graph.nodes:
        if any(name and name not in shapes for name in node.inputs):
            continue  # depends on a node that is reported already
        view = NodeView(node, graph, tuple(shapes.get(name) for name in node.inputs))
        try:
            found = output_shapes(view)
        except NodeProblem as problem:
            problems.append((node, str(problem)))
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
    for name, shape in known.items():
        if name not in given and any(dim < 1 for dim in shape):
            raise ArtifactError(
                f"the shape of input {name!r} is not fixed: {shape}",
                path=graph.path,
                hint="give its shape",
            )
    return known | {name: tuple(shape) for name, shape in given.items()}
