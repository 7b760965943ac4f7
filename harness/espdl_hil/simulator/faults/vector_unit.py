"""Faults of the P4's vector unit: modes that another task of the core leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from espdl_hil.simulator.faults.base import StepFault
from espdl_hil.simulator.faults.sums import plain_sums, rounded
from espdl_hil.targets import TARGETS

if TYPE_CHECKING:
    from espdl_hil.espdl import Graph
    from espdl_hil.simulator.faults.base import Array, NodeRun


@dataclass(frozen=True)
class VectorUnitFault(StepFault):
    """Another task of the core computes with the vector unit, and leaves a mode as it wants it.

    Attributes:
        late: It interrupts each step in its first Conv; otherwise it runs between steps,
            where the firmware puts the mode right before the next one.
    """

    FOUND: ClassVar[str]  # what the firmware finds, constant of ``hil_host.h``
    late: bool = False

    def fits(self, graph: Graph) -> bool:
        return self.late and _first(graph) is not None

    def computed(self, run: NodeRun) -> Array:
        if run.node.name != _first(run.graph) or not TARGETS[run.target].vector_modes:
            return run.output
        flat = run.output.reshape(-1).copy()
        half = flat.size // 2  # where the kernel was interrupted
        flat[half:] = self.disturbed(run).reshape(-1)[half:]
        return flat.reshape(run.output.shape)

    def disturbed(self, run: NodeRun) -> Array:
        """What the node gives under the wrong mode, as ``run.output``."""
        raise NotImplementedError


@dataclass(frozen=True)
class RoundingLost(VectorUnitFault):
    """Kernels of esp-nn run, which leave the rounding mode at floor."""

    FOUND = "HIL_ROUNDING_LOST"

    def disturbed(self, run: NodeRun) -> Array:
        info = np.iinfo(run.output.dtype)
        values = rounded(*plain_sums(run), "down").clip(info.min, info.max)
        if run.node.attributes.get("activation") == "Relu":
            values = np.maximum(values, 0)
        return values.astype(run.output.dtype)


@dataclass(frozen=True)
class MisalignedMode(VectorUnitFault):
    """Kernels of esp-dsp run, which leave loads from any address on.

    ESP-DL relies on loads that drop the low bits of an address. Which elements it gets wrong
    otherwise depends on addresses; here each load is one element late.
    """

    FOUND = "HIL_MISALIGNED"

    def disturbed(self, run: NodeRun) -> Array:
        return np.roll(run.output, 1)


def _first(graph: Graph) -> str | None:
    """Name of the node that is interrupted."""
    return next((node.name for node in graph.nodes if node.op_type == "Conv"), None)
