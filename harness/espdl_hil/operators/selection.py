"""Which code of a chip computes each node where its size decides, and ways around wrong code."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from espdl_hil.operators.inference import infer_shapes
from espdl_hil.operators.node import PlacedNode
from espdl_hil.operators.problem import NodeProblem
from espdl_hil.operators.registry import OPERATORS
from espdl_hil.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from espdl_hil.espdl.graph import Graph, Shape
    from espdl_hil.operators.detour import Detour


def code_by_size(
    graph: Graph, target: str, input_shapes: Mapping[str, Shape] | None = None
) -> dict[str, str]:
    """Name the code of each node that has another at another size, with other results.

    Args:
        graph: A graph that `check_graph` accepts.
        target: The chip.
        input_shapes: See `infer_shapes`.

    Returns:
        By node name, such as ``SIMD`` or ``C``; nodes of one code for every size are left out.

    Raises:
        UnsupportedOpError: A node does not fit *input_shapes*.
    """
    codes = {
        placed.node.name: OPERATORS[placed.op_type].by_size(placed)
        for placed in _placed(graph, target, input_shapes)
    }
    return {name: code for name, code in codes.items() if code}


def find_detours(graph: Graph, target: str) -> dict[str, Detour]:
    """Say how to get around what the chip would compute wrongly, where a way is known.

    Args:
        graph: Any graph whose shapes fit.
        target: The chip.

    Returns:
        By node name; nodes that are right, or have to be refused, are left out.

    Raises:
        UnsupportedOpError: A node does not fit its inputs.
    """
    found = {}
    for placed in _placed(graph, target):
        with contextlib.suppress(NodeProblem):  # which `check_graph` reports
            if (detour := OPERATORS[placed.op_type].detour(placed)) is not None:
                found[placed.node.name] = detour
    return found


def _placed(
    graph: Graph, target: str, input_shapes: Mapping[str, Shape] | None = None
) -> Iterator[PlacedNode]:
    shapes = infer_shapes(graph, input_shapes)
    constants = graph.constants
    for node in graph.nodes:
        yield PlacedNode(
            node=node,
            shapes=tuple(shapes.get(name) for name in node.inputs),
            constants=constants,
            graph=graph,
            target=TARGETS[target],
            width=str(node.attributes.get("quant_type")),
            results=tuple(shapes[name] for name in node.outputs if name),
        )
