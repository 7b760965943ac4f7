"""Why a layer loses quality, and what to try. Knows one layer's values and weights."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.compare import Fidelity
from espdl_hil.espdl import unpack_filter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from espdl_hil.compare import Array
    from espdl_hil.espdl import Graph, Node

CLIPPED_PART = 0.5  # of the noise
FEW_LEVELS = 16
UNEQUAL = 16  # times: the smallest channel's weights have 4 bits less than the largest one's


@dataclass(frozen=True)
class Layer:
    """What a layer gives, and what it should give.

    Attributes:
        values: As the file computes them: integers, or floats.
        real: The float network's, of the same shape.
        exponents: Of *values*.
        frame_axis: Their time axis; None without one.
    """

    values: Array
    real: NDArray[np.float32]
    exponents: tuple[int, ...]
    frame_axis: int | None = None

    @property
    def step(self) -> float:
        """The size of one quantization step; 0 for floats."""
        return 0.0 if self.values.dtype.kind == "f" else 2.0 ** self.exponents[0]

    @functools.cached_property
    def decoded(self) -> NDArray[np.float64]:
        """The values as real numbers."""
        return self.values.astype(np.float64) * (self.step or 1.0)

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the largest value that the type holds."""
        if not self.step:
            return -np.inf, np.inf
        limits = np.iinfo(self.values.dtype)
        return limits.min * self.step, limits.max * self.step

    @functools.cached_property
    def clipped(self) -> NDArray[np.bool_]:
        """Where the real value lies beyond the type's range."""
        low, high = self.limits
        return (self.real < low - self.step / 2) | (self.real > high + self.step / 2)

    @property
    def saturated(self) -> float:
        """Share of the values at either end of the type's range."""
        low, high = self.limits
        return float(np.mean((self.decoded <= low) | (self.decoded >= high)))

    @functools.cached_property
    def fidelity(self) -> Fidelity:
        """How well the real ones are kept."""
        return Fidelity.of(self.real, self.decoded, self.frame_axis)


def explain_loss(
    graph: Graph, node: Node, target: str, layer: Layer, lanes: Mapping[str, str]
) -> tuple[str, str]:
    """Say why a layer of the offline file loses quality, and what to try.

    *lanes* says by node what is known of sums that leave the ESP32-S3's lanes.
    """
    if not layer.step:
        return (
            "it computes in float what its inputs have lost",
            "int16, or a calibration that fits the stimulus, for the layers before it",
        )
    return (
        _clipped(layer)
        or _in_lanes(node, lanes)
        or _few_levels(layer)
        or _unequal_channels(graph, node, target)
        or _coarse_table(graph, node)
        or _rounded(layer)
    )


def _clipped(layer: Layer) -> tuple[str, str] | None:
    (low, high), beyond = layer.limits, layer.clipped
    noise = (layer.decoded - layer.real) ** 2
    if not beyond.any() or noise[beyond].sum() < CLIPPED_PART * noise.sum():
        return None
    largest = layer.real.flat[np.argmax(np.abs(layer.real))]
    return (
        f"its range is clipped: {beyond.mean():.1%} of its values lie beyond {low:g} to {high:g}, "
        f"the largest is {largest:g}",
        "a calibration with values as large as the stimulus has, and more of it "
        "(Quantization(batches=64)); where the layer feeds an addition "
        "or a difference, whose operands share the step of the result, let a convolution or a "
        "factor bring the operands to the size of the result first",
    )


def _in_lanes(node: Node, lanes: Mapping[str, str]) -> tuple[str, str] | None:
    if node.name not in lanes:
        return None
    return (
        f"its sums leave the ESP32-S3's 20-bit lanes ({lanes[node.name]})",
        "int16, smaller weights or fewer inputs for this layer, or an ESP32-P4",
    )


def _few_levels(layer: Layer) -> tuple[str, str] | None:
    low, high = float(layer.real.min()), float(layer.real.max())
    steps = (high - low) / layer.step
    if steps > FEW_LEVELS:
        return None
    levels = 2 ** (8 * layer.values.dtype.itemsize)
    return (
        f"it uses few of its {levels:,} levels: its values lie within {low:g} to {high:g}, "
        f"{steps:.1f} steps of {layer.step:g}",
        f"{_wider(layer)}a calibration whose values are as small as the stimulus has, or operands "
        "of one addition that are of like size",
    )


def _unequal_channels(graph: Graph, node: Node, target: str) -> tuple[str, str] | None:
    stored = graph.initializers.get(node.inputs[1]) if len(node.inputs) > 1 else None
    if node.op_type not in ("Conv", "Gemm") or stored is None or len(stored.info.exponents) > 1:
        return None
    if stored.info.dtype != np.int8:
        return None
    depthwise = node.attributes.get("group", 1) != 1
    taps = unpack_filter(stored.raw, stored.info.shape, target, depthwise=depthwise)
    largest = np.abs(taps.astype(np.int64)).reshape(len(taps), -1).max(axis=1)
    smallest = max(int(largest.min()), 1)
    if largest.max() < UNEQUAL * smallest:
        return None
    return (
        f"its channels' int8 weights are unequal: those of one reach {largest.max()}, those of "
        f"another only {largest.min()}",
        "equalization, batch norms that are folded before training ends, per-channel weights "
        "(ESP32-P4), or int16 for this layer",
    )


def _coarse_table(graph: Graph, node: Node) -> tuple[str, str] | None:
    table = graph.initializers.get(str(node.attributes.get("lut", "")))
    if node.op_type != "LUT" or table is None:
        return None
    return (
        f"it is a lookup table of {table.info.size} entries for 65,536 values",
        "an activation that is computed (ReLU, ReLU6, LeakyReLU, Hardswish) for this layer",
    )


def _wider(layer: Layer) -> str:
    return "int16 for this layer, " if layer.values.dtype == np.int8 else ""


def _rounded(layer: Layer) -> tuple[str, str]:
    noise = float(np.sqrt(np.mean(np.square(layer.decoded - layer.real))))
    spread = float(np.std(layer.real, axis=layer.frame_axis, dtype=np.float64).max())
    return (
        f"its errors are {noise / layer.step:.1f} steps of {layer.step:g} (rms), and no channel's "
        f"values vary by more than {spread / layer.step:.1f} steps",
        f"{_wider(layer)}a calibration that fits the stimulus closely, or another form where it "
        "takes the difference of large values",
    )
