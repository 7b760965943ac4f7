"""Two shapes that broadcast, as the element-wise kernels loop over them."""

from __future__ import annotations

import math
from itertools import pairwise, product

import pytest

from espdl_hil.operators import NodeProblem
from espdl_hil.operators.broadcast import broadcast, merged_loops


@pytest.mark.parametrize(
    ("first", "second", "loops"),
    [
        ((2, 3, 4), (2, 3, 4), ((24, 24),)),
        ((2, 3, 4), (4,), ((6, 1), (4, 4))),
        ((2, 3, 4), (2, 1, 1), ((2, 2), (12, 1))),
        ((2, 3, 4), (3, 1), ((2, 1), (3, 3), (4, 1))),
        ((2, 3, 1), (1, 1, 4), ((6, 1), (1, 4))),
        ((2, 3, 4, 5), (2, 3, 1, 5), ((6, 6), (4, 1), (5, 5))),
        ((2, 1, 3, 1, 5), (1, 2, 1, 2, 1), ((2, 1), (1, 2), (3, 1), (1, 2), (5, 1))),
        ((1, 1, 4), (1, 2, 4), ((1, 2), (4, 4))),
        ((1,), (3, 4), ((1, 12),)),
        ((1,), (1,), ((1, 1),)),
        ((1, 1), (1, 1), ((1, 1),)),
        ((), (5,), ((1, 5),)),
        ((), (), ()),
    ],
)
def test_axes_that_broadcast_alike_become_one_loop(first, second, loops):
    assert merged_loops(first, second) == loops
    assert merged_loops(second, first) == tuple((b, a) for a, b in loops)


def test_loops_hold_every_element_and_none_could_be_merged():
    shapes = [shape for rank in range(4) for shape in product((1, 2, 3), repeat=rank)]
    for first, second in product(shapes, shapes):
        try:
            shape = broadcast(first, second)
        except NodeProblem:
            continue
        loops = merged_loops(first, second)
        assert math.prod(max(loop) for loop in loops) == math.prod(shape)
        kinds = [(a == max(a, b), b == max(a, b)) for a, b in loops]
        assert all(one != other for one, other in pairwise(kinds))
