"""One node, executed again: what it was given, what it should give and what it gave."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.diagnosis.cause import counted
from espdl_hil.diagnosis.replay import run_steps
from espdl_hil.errors import HarnessError
from espdl_hil.interpreter.node_graph import activations, cut_node

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from espdl_hil.compare import Array, Tensors
    from espdl_hil.diagnosis.mismatch import Mismatch
    from espdl_hil.espdl import Graph, Node


@dataclass(frozen=True)
class NodeReplay:
    """One node over the chunks in which the device fed it what it should.

    Attributes:
        mismatch: The stream that went wrong.
        node: The node.
        output: Name of its output that differs.
        numbers: The chunks, ascending.
        inputs: For each chunk, the node's inputs.
        expected: What it should give, one chunk after the other on a new first axis.
        observed: What it gave, likewise.
    """

    mismatch: Mismatch
    node: Node
    output: str
    numbers: tuple[int, ...]
    inputs: tuple[Tensors, ...]
    expected: Array
    observed: Array

    @cached_property
    def differs(self) -> Array:
        """Where observed is not expected."""
        mask: Array = self.observed != self.expected
        return mask

    @cached_property
    def channels(self) -> Array:
        """Channels (last axis) in which anything differs."""
        found: Array = np.flatnonzero(self.in_rows(self.differs).any(0))
        return found

    def in_rows(self, values: Array) -> Array:
        """*values* as ``(M, N)`` with channels last."""
        matrix: Array = values.reshape(-1, self.expected.shape[-1])
        return matrix

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest integer of the output."""
        info = np.iinfo(self.expected.dtype)
        return int(info.min), int(info.max)

    @property
    def quantized(self) -> bool:
        """Whether the output is an integer tensor."""
        return self.expected.dtype.kind == "i"

    @cached_property
    def alone(self) -> Graph:
        """The node cut out of its graph."""
        tensors = {**self.inputs[0], self.output: self.expected[0]}
        return cut_node(self.mismatch.graph, self.node, tensors)

    @property
    def sources(self) -> list[str]:
        """The node's inputs that are no constants."""
        return activations(self.mismatch.graph, self.node)

    def again(
        self,
        edit: Callable[[Graph], Graph] = lambda graph: graph,
        *,
        target: str | None = None,
        inputs: Sequence[Tensors] | None = None,
    ) -> Array | None:
        """Execute the node again on what the device fed it.

        Args:
            edit: Changes the node's graph first.
            target: Another target than the mismatch's.
            inputs: Other inputs than the node was given.

        Returns:
            Like ``observed``; None if the target cannot run that graph.
        """
        try:
            target = target or self.mismatch.target
            return run_steps(edit(self.alone), target, inputs or self.inputs, self.output)
        except HarnessError:
            return None

    def explained_by(self, alternative: Array | None) -> bool:
        """Whether *alternative*, in rows or not, is what was observed in every element."""
        if alternative is None or alternative.size != self.observed.size:
            return False
        return np.array_equal(alternative.reshape(self.observed.shape), self.observed)

    @property
    def span(self) -> str:
        """What an explanation covers, in words."""
        return f"all {self.expected.size} elements in {counted(len(self.numbers), 'chunk')}"
