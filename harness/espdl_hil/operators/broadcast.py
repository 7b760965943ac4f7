"""Two shapes that broadcast, as the element-wise kernels loop over them. Knows no arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espdl_hil.operators.problem import NodeProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.espdl import Shape
    from espdl_hil.operators.node import NodeView, PlacedNode

LIMITS = "up to 4 dimensions once axes that broadcast alike are merged"
MAX_LOOPS = 4  # nested loops of the element-wise and Reduce kernels


def broadcast(first: Shape, second: Shape) -> Shape:
    """Shape of an element-wise operator with two inputs.

    ESP-DL takes the longer of two lengths without asking whether they are compatible.

    Raises:
        NodeProblem: They are not, and the chip would read out of range.
    """
    rank = max(len(first), len(second))
    pairs = list(
        zip((1,) * (rank - len(first)) + first, (1,) * (rank - len(second)) + second, strict=True)
    )
    if any(a != b and 1 not in (a, b) for a, b in pairs):
        raise NodeProblem(
            f"shapes {first} and {second} do not broadcast; the chip takes the longer length of "
            "each axis without a check and reads out of range"
        )
    return tuple(max(pair) for pair in pairs)


def broadcast_shapes(view: NodeView) -> list[Shape]:
    """The output of a node with two inputs."""
    return [broadcast(view.shape_of(0), view.shape_of(1))]


def merged_loops(first: Shape, second: Shape) -> tuple[tuple[int, int], ...]:
    """The loops that an element-wise kernel runs, outermost first.

    Neighbouring axes become one loop when both inputs have them, or the same one lacks them. The
    innermost loop decides which code runs: n with n, n with 1, or 1 with n.

    Args:
        first: Shape of one input.
        second: Shape of the other; they broadcast.

    Returns:
        Length of each loop in both inputs; nothing for two scalars.

    Matches: ``base::get_elemwise_operation_args``.
    """
    rank = max(len(first), len(second))
    padded = ((1,) * (rank - len(shape)) + shape for shape in (first, second))
    loops: list[tuple[int, int]] = []
    for a, b in zip(*padded, strict=True):
        p, q = loops[-1] if loops else (0, 0)
        alike = (p == q and a == b) or p == a == 1 or q == b == 1
        if loops and (alike or (1, 1) in ((p, q), (a, b))):
            loops[-1] = (p * a, q * b)
        else:
            loops.append((a, b))
    return tuple(loops)


def broadcast_rules(placed: PlacedNode) -> Iterator[str]:
    """Two inputs that broadcast."""
    loops = merged_loops(placed.shape_of(0), placed.shape_of(1))
    if not loops:
        yield "two scalars: the chip has no loop for them and computes nothing"
    if len(loops) > MAX_LOOPS:
        yield f"broadcasting takes {len(loops)} loops, the chip asserts that it is {MAX_LOOPS}"
