"""Softmax and LogSoftmax: float32 out, whatever goes in."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.numeric import exp32, log32, sequential_sum
from espdl_hil.operators.signature import C_FLOAT_S16, Operator, fixed
from espdl_hil.operators.tables import tabulate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.operators.kernel import Kernel
    from espdl_hil.operators.node import BoundNode, PlacedNode


def _softmax_rules(placed: PlacedNode) -> Iterator[str]:
    rank = len(placed.shape)
    if rank:
        placed.axis(placed.integer("axis", -1), rank)
    return iter(())


def build_softmax(bound: BoundNode) -> Kernel:
    """Softmax or LogSoftmax along one axis, sums in index order.

    int8 takes ``expf`` of the values as they are, without subtracting the largest.

    Matches: ``Softmax::forward_lut``, ``forward_float``; ``LogSoftmax`` alike.
    """
    source = bound.input()
    rank, logarithmic = len(source.shape), bound.op_type == "LogSoftmax"
    if rank == 0:
        return partial(bound.out.array.fill, np.float32(0 if logarithmic else 1))
    axis = bound.axis(bound.integer("axis", -1), rank)
    x, y = np.moveaxis(source.array, axis, -1), np.moveaxis(bound.out.array, axis, -1)
    scale = source.scale
    if source.dtype == np.int8:
        table = tabulate(lambda q: exp32(q.astype(np.float32) * scale), source.dtype)

        def run_int8() -> None:
            exps = table[x.view(np.uint8)]
            sums = sequential_sum(exps)[..., None]
            y[...] = x * scale - log32(sums) if logarithmic else exps / sums

        return run_int8

    def run() -> None:
        real = x * scale
        largest = real.max(-1, keepdims=True)
        exps = exp32(real - largest)
        sums = sequential_sum(exps)[..., None]
        y[...] = real - largest - log32(sums) if logarithmic else exps / sums

    return run


OPERATORS = dict.fromkeys(
    ("LogSoftmax", "Softmax"),
    Operator(
        build_softmax,
        rules=_softmax_rules,
        outputs=(fixed("float32"),),
        arithmetic=(C_FLOAT_S16,),
    ),
)
