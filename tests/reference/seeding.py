"""Rounding faults in one node: wherever the interpreter builds it, its results are off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from espdl_hil.operators import OPERATORS
from espdl_hil.reference.judge import SUMS
from espdl_hil.targets import Rounding

EVERY = 50  # of so many elements one is off; a single one may lie where float32 decides
OTHER = {Rounding.HALF_UP: Rounding.HALF_EVEN, Rounding.HALF_EVEN: Rounding.HALF_UP}


def seed(monkeypatch, node, fault):
    """Let *fault* make the kernel of one node, wherever it is built.

    Args:
        monkeypatch: Undoes it.
        node: A node of a graph.
        fault: Takes the bound node and the operator, and returns a kernel.
    """
    operator = OPERATORS[node.op_type]

    def build(bound):
        return fault(bound, operator) if bound.node.name == node.name else operator.build(bound)

    monkeypatch.setitem(OPERATORS, node.op_type, replace(operator, build=build))


def off_by_one(bound, operator):
    """One LSB too much in one element of fifty, too little where there is no more."""
    kernel = operator.build(bound)

    def run():
        kernel()
        output = bound.outputs[0].array.reshape(-1)
        places = slice(output.size // 2 % EVERY, None, EVERY)
        if output.dtype.kind == "f":
            output[places] *= np.float32(1 + 2**-15)
            return
        highest = np.iinfo(output.dtype).max
        output[places] += np.where(output[places] == highest, -1, 1).astype(output.dtype)

    return run


def ties_otherwise(bound, operator):
    """A half goes where the other target rounds it."""
    other = replace(bound.target, rounding=OTHER[bound.target.rounding])
    return operator.build(replace(bound, target=other))


def down(bound, operator):
    """Sums are shifted and not rounded."""
    assert bound.op_type in SUMS
    return operator.build(replace(bound, target=replace(bound.target, rounding=None)))
