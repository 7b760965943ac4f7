"""Softmax and LogSoftmax: float32 out, whatever goes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.numeric import exp32, log32, sequential_sum
from espdl_hil.operators.tables import tabulate

if TYPE_CHECKING:
    from espdl_hil.espdl import Array
    from espdl_hil.operators.prepare import Kernel, Op


def build_softmax(op: Op) -> Kernel:
    """Softmax or LogSoftmax along one axis, sums in index order.

    int8 takes ``expf`` of the values as they are, without subtracting the largest.

    Matches: ``Softmax::forward_lut``, ``forward_float``; ``LogSoftmax`` alike.
    """
    source = op.input()
    rank = len(source.shape)
    if rank == 0:
        return _scalar(op)
    axis = op.view.axis(op.view.integer("axis", -1), rank)
    x = np.moveaxis(source.array, axis, -1)
    y = np.moveaxis(op.out.array, axis, -1)
    logarithmic = op.op_type == "LogSoftmax"
    if source.dtype == np.int8:
        scale = source.scale
        table = tabulate(lambda q: exp32(q.astype(np.float32) * scale), source.dtype)

        def run_int8() -> None:
            exps = table[x.view(np.uint8)]
            sums = sequential_sum(exps)[..., None]
            y[...] = x * scale - log32(sums) if logarithmic else exps / sums

        return run_int8
    scale = np.float32(1) if source.is_float else source.scale

    def run() -> None:
        real = x * scale
        largest = real.max(-1, keepdims=True)
        exps = exp32(real - largest)
        sums = sequential_sum(exps)[..., None]
        y[...] = real - largest - log32(sums) if logarithmic else exps / sums

    return run


def _scalar(op: Op) -> Kernel:
    output: Array = op.out.array
    value = np.float32(0 if op.op_type == "LogSoftmax" else 1)

    def run() -> None:
        output[...] = value

    return run
