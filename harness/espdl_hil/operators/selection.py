"""Which code of a chip computes each node: by its size, how exactly, and ways around wrong code."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from espdl_hil.operators.inference import infer_shapes, place
from espdl_hil.operators.problem import NodeProblem
from espdl_hil.operators.registry import OPERATORS
from espdl_hil.targets import DEVKIT_TARGETS, TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from espdl_hil.espdl.graph import Graph, Node, Shape
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


def float_step_lsb(node: Node, target: str) -> int:
    """LSB by which firmware built with -ffast-math may differ at the output of *node*.

    Args:
        node: Of a graph that `check_graph` accepts.
        target: The chip.

    Returns:
        0 for integer kernels, which are exact. The bound is of the node alone, given its inputs.
    """
    width, mode = node.attributes.get("quant_type"), node.attributes.get("mode")
    # float steps are portable code, the same on a chip that runs nothing else
    chip = target if TARGETS[target].simd else DEVKIT_TARGETS[0]
    found = (
        kind.float_step_lsb
        for kind in OPERATORS[node.op_type].arithmetic
        if width in kind.widths and chip in kind.targets and kind.mode in ("", mode)
    )
    return next(found, 0)
