"""Which code of a chip computes each node where its size decides, and ways around wrong code."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from espdl_hil.operators.inference import infer_shapes, place
from espdl_hil.operators.problem import NodeProblem
from espdl_hil.operators.registry import OPERATORS

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    shapes, constants = infer_shapes(graph, input_shapes), graph.constants
    codes = {
        node.name: OPERATORS[node.op_type].by_size(place(node, graph, constants, shapes, target))
        for node in graph.nodes
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
    shapes, constants = infer_shapes(graph), graph.constants
    found = {}
    for node in graph.nodes:
        with contextlib.suppress(NodeProblem):  # which `check_graph` reports
            detour = OPERATORS[node.op_type].detour(place(node, graph, constants, shapes, target))
            if detour is not None:
                found[node.name] = detour
    return found
