"""Faults of memory: state that is lost or kept, inputs and outputs that are damaged or stale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.simulator.faults.base import ModelFault, NodeFault, StepFault, damaged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from espdl_hil.espdl import Node
    from espdl_hil.simulator.faults.base import Array, NodeRun

# -- state: from the next step on -----------------------------------------------


@dataclass(frozen=True)
class StateKept(ModelFault):
    """A reset is acknowledged and does nothing."""


@dataclass(frozen=True)
class StateDropped(ModelFault):
    """The caches are lost before a step.

    Attributes:
        step: Which step since the last reset, from 0; None before every step.
    """

    step: int | None = None


@dataclass(frozen=True)
class OutputUnwritten(ModelFault):
    """A step does not write an output; whatever its memory held stays.

    Attributes:
        output: Name of the graph output.
        step: Which step since the last reset, from 0; None every step.
        start: First byte that is not written.
        count: How many bytes; None all that follow.
    """

    output: str
    step: int | None = None
    start: int = 0
    count: int | None = None

    def written(self, size: int) -> tuple[slice, slice]:
        """The bytes of an output of *size* bytes that are written."""
        start = min(self.start, size)
        end = size if self.count is None else min(start + self.count, size)
        return slice(0, start), slice(end, size)


# -- state: from the model's loading on ---------------------------------------------


@dataclass(frozen=True)
class CacheKept(NodeFault):
    """A reset does not reach one cache."""

    def keeps(self, node: Node) -> bool:
        return node.name == self.node


@dataclass(frozen=True)
class CacheDropped(NodeFault):
    """One cache is lost before each step.

    Attributes:
        first: From which step on.
    """

    first: int

    def forgets(self, step: int, node: Node) -> bool:
        return step >= self.first and node.name == self.node


@dataclass(frozen=True)
class CacheStale(NodeFault):
    """At one step a cache still holds the frames of the chunk before the last.

    Attributes:
        step: Which step.
    """

    step: int

    def computed(self, run: NodeRun) -> Array:
        if run.node.name != self.node or run.step != self.step:
            return run.output
        kept = run.output.size - run.inputs[run.node.inputs[0]].size
        return _partly(run.output, run.before, 0, kept)


@dataclass(frozen=True)
class StateUnbound(StepFault):
    """A recurrent state is not fed back: its input stays zero.

    Attributes:
        inputs: Names of the state inputs.
    """

    inputs: tuple[str, ...]

    def arrived(self, step: int, inputs: Mapping[str, Array], before: Mapping[str, Array]) -> None:
        for name in self.inputs:
            inputs[name][...] = 0


# -- inputs and outputs -----------------------------------------------------------------


@dataclass(frozen=True)
class InputBits(StepFault):
    """Bits of one input are flipped at one step.

    Attributes:
        name: The graph input.
        step: Which step.
        bits: How many.
        seed: Of their choice.
    """

    name: str
    step: int
    bits: int = 1
    seed: int = 0

    def arrived(self, step: int, inputs: Mapping[str, Array], before: Mapping[str, Array]) -> None:
        if step == self.step:
            inputs[self.name][...] = damaged(inputs[self.name], self.seed, self.bits)


@dataclass(frozen=True)
class OutputFault(StepFault):
    """One output is wrong at one step.

    Attributes:
        output: The graph output.
        step: Which step.
    """

    output: str
    step: int

    def returned(self, step: int, name: str, value: Array, before: Array) -> Array:
        hit = step == self.step and name == self.output
        return self.spoilt(value, before) if hit else value

    def spoilt(self, value: Array, before: Array) -> Array:
        """What its memory holds instead of *value*; *before* is the last step's."""
        raise NotImplementedError


@dataclass(frozen=True)
class OutputBits(OutputFault):
    """Bits of one output are flipped at one step.

    Attributes:
        bits: How many.
        seed: Of their choice.
    """

    bits: int = 1
    seed: int = 0

    def spoilt(self, value: Array, before: Array) -> Array:
        return damaged(value, self.seed, self.bits)


@dataclass(frozen=True)
class OutputByteLost(OutputFault):
    """One byte of an output is lost at one step, and those behind it move up.

    Attributes:
        byte: Which byte.
    """

    byte: int = 0

    def spoilt(self, value: Array, before: Array) -> Array:
        raw = np.ascontiguousarray(value).view(np.uint8).reshape(-1).copy()
        raw[self.byte : -1] = raw[self.byte + 1 :]
        return raw.view(value.dtype).reshape(value.shape)


@dataclass(frozen=True)
class OutputNotCopied(OutputFault):
    """Elements of an output still hold what they held after the step before.

    Attributes:
        start: The first element.
        count: How many.
    """

    start: int
    count: int

    def spoilt(self, value: Array, before: Array) -> Array:
        return _partly(value, before, self.start, self.count)


@dataclass(frozen=True)
class NodeNotWritten(NodeFault):
    """Elements of a node's output still hold what they held after the step before.

    Attributes:
        step: Which step.
        start: The first element.
        count: How many.
    """

    step: int
    start: int
    count: int

    def computed(self, run: NodeRun) -> Array:
        if run.node.name != self.node or run.step != self.step:
            return run.output
        return _partly(run.output, run.before, self.start, self.count)


def _partly(value: Array, other: Array, start: int, count: int) -> Array:
    mixed = value.copy().reshape(-1)
    mixed[start : start + count] = other.reshape(-1)[start : start + count]
    return mixed.reshape(value.shape)


# -- order ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepTwice(StepFault):
    """One step is executed twice.

    Attributes:
        step: Which step.
    """

    step: int

    def repeats(self, step: int) -> int:
        return 2 if step == self.step else 1


@dataclass(frozen=True)
class InputLate(StepFault):
    """Steps run on the inputs of the step before them.

    Attributes:
        inputs: Names of the graph inputs.
        first: From which step on, at least 1.
        last: To which step; None to the end.
    """

    inputs: tuple[str, ...]
    first: int
    last: int | None = None

    def arrived(self, step: int, inputs: Mapping[str, Array], before: Mapping[str, Array]) -> None:
        if step >= self.first and (self.last is None or step <= self.last):
            for name in self.inputs:
                inputs[name][...] = before[name]
