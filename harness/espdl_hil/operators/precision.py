"""How far a board may be from the interpreter at one node: where compilers reorder float steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espdl_hil.operators.registry import OPERATORS
from espdl_hil.targets import DEVKIT_TARGETS, TARGETS

if TYPE_CHECKING:
    from espdl_hil.espdl.graph import Node


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
