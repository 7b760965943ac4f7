"""Which code of a chip computes each node of a graph, where its size decides. Runs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espdl_hil.operators.inference import infer_shapes
from espdl_hil.operators.node import PlacedNode
from espdl_hil.operators.registry import OPERATORS
from espdl_hil.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from espdl_hil.espdl.graph import Graph, Shape


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
    shapes = infer_shapes(graph, input_shapes)
    codes = {}
    for node in graph.nodes:
        placed = PlacedNode(
            node=node,
            shapes=tuple(shapes.get(name) for name in node.inputs),
            constants={},
            graph=graph,
            target=TARGETS[target],
            width=str(node.attributes.get("quant_type")),
            results=tuple(shapes[name] for name in node.outputs if name),
        )
        codes[node.name] = OPERATORS[node.op_type].by_size(placed)
    return {name: code for name, code in codes.items() if code}
