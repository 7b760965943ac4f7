"""Faults of arithmetic: rounding, exponents, limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from espdl_hil import interpreter
from espdl_hil.interpreter.node_graph import cut_node
from espdl_hil.simulator.faults.base import LoadFault, NodeFault, StepFault
from espdl_hil.simulator.faults.sums import operands, plain_sums, rounded, usual_mode
from espdl_hil.targets import DEVKIT_TARGETS

if TYPE_CHECKING:
    from espdl_hil.espdl import Graph
    from espdl_hil.simulator.faults.base import Array, NodeRun
    from espdl_hil.simulator.faults.sums import Mode


@dataclass(frozen=True)
class WrongRounding(LoadFault):
    """A half is rounded as on the other target, in every node."""

    def arithmetic(self, target: str) -> str:
        return next(other for other in DEVKIT_TARGETS if other != target)


# -- of the finished result --------------------------------------------------


@dataclass(frozen=True)
class ResultFault(NodeFault):
    """A node's integer results, mapped before they are stored."""

    def fits(self, graph: Graph) -> bool:
        node = next((node for node in graph.nodes if node.name == self.node), None)
        return node is not None and graph.info(node.outputs[0]).dtype.name in ("int8", "int16")

    def computed(self, run: NodeRun) -> Array:
        if run.node.name != self.node:
            return run.output
        info = np.iinfo(run.output.dtype)
        wide = self.mapped(run.output.astype(np.int64), info.min, info.max)
        return wide.clip(info.min, info.max).astype(run.output.dtype)

    def mapped(self, values: Array, low: int, high: int) -> Array:
        """Other results, int64; *low* and *high* are the limits of the stored type."""
        raise NotImplementedError


@dataclass(frozen=True)
class WrongShift(ResultFault):
    """A node's integer results are shifted too far before they are stored.

    Attributes:
        bits: How much too far to the right, rounding down; negative is too little, saturating.
    """

    bits: int = 1

    def mapped(self, values: Array, low: int, high: int) -> Array:
        shifted: Array = values >> self.bits if self.bits >= 0 else values << -self.bits
        return shifted


@dataclass(frozen=True)
class SaturationWrap(ResultFault):
    """Where a node saturates, the result wraps to the other end instead."""

    def mapped(self, values: Array, low: int, high: int) -> Array:
        return np.where(values == low, high, np.where(values == high, low, values))


@dataclass(frozen=True)
class SymmetricClamp(ResultFault):
    """A node saturates at the negative of the largest value."""

    def mapped(self, values: Array, low: int, high: int) -> Array:
        return np.maximum(values, -high)


@dataclass(frozen=True)
class Requantized(NodeFault):
    """A node uses another output exponent.

    Attributes:
        by: What is added to the exponent.
    """

    by: int

    def computed(self, run: NodeRun) -> Array:
        if run.node.name != self.node:
            return run.output
        name = run.node.outputs[0]
        alone = cut_node(run.graph, run.node, {**run.inputs, name: run.output})
        info = replace(alone.outputs[0], exponents=(alone.outputs[0].exponents[0] + self.by,))
        alone = replace(alone, outputs=(info,), value_info={**alone.value_info, name: info})
        result: Array = interpreter.load(alone, run.target).step(dict(run.inputs))[name]
        return result


# -- of the sums --------------------------------------------------------------


@dataclass(frozen=True)
class SumFault(StepFault):
    """Nodes that finish their sums another way.

    Attributes:
        nodes: Names of Conv, Add, Sub or Mul nodes.
    """

    relu: ClassVar[bool] = True  # a fused Relu is applied
    saturates: ClassVar[bool] = True  # results stop at the limits; otherwise they wrap
    nodes: tuple[str, ...]

    def computed(self, run: NodeRun) -> Array:
        if run.node.name not in self.nodes:
            return run.output
        values = self.finished(run)
        if self.relu and run.node.attributes.get("activation") == "Relu":
            values = np.maximum(values, 0)
        if self.saturates:
            info = np.iinfo(run.output.dtype)
            values = values.clip(info.min, info.max)
        return values.astype(run.output.dtype).reshape(run.output.shape)

    def finished(self, run: NodeRun) -> Array:
        """Sums shifted and rounded, int64."""
        sums, shift = plain_sums(run)
        return rounded(sums, shift, usual_mode(run.target))


@dataclass(frozen=True)
class ShiftOff(SumFault):
    """Sums are shifted by too many or too few bits.

    Attributes:
        by: How many too many.
        channels: Of which channels; none means all.
    """

    by: int
    channels: tuple[int, ...] = ()

    def finished(self, run: NodeRun) -> Array:
        sums, shift = plain_sums(run)
        by = np.zeros(sums.shape[-1], np.int64)
        by[list(self.channels) or slice(None)] = self.by
        return rounded(sums, shift + by, usual_mode(run.target))


@dataclass(frozen=True)
class RoundsOtherwise(SumFault):
    """Sums are rounded another way.

    Attributes:
        mode: ``up`` and ``even`` differ in halves.
    """

    mode: Mode

    def finished(self, run: NodeRun) -> Array:
        return rounded(*plain_sums(run), self.mode)


@dataclass(frozen=True)
class ExactProduct(SumFault):
    """A Mul shifts its exact integer product, as vector units do, not a float32."""

    def finished(self, run: NodeRun) -> Array:
        a, b = operands(run.graph, run.node, run.inputs)
        return rounded(a * b, plain_sums(run)[1], usual_mode(run.target))


@dataclass(frozen=True)
class SumWrap(SumFault):
    """Results wrap where they should saturate."""

    saturates = False


@dataclass(frozen=True)
class ReluLeftOut(SumFault):
    """A fused Relu is not applied."""

    relu = False
