"""Coarser weights where sums leave the ESP32-S3's lanes. Runs only in a worker.

A sum of products of 8 bits is kept in 20 bits that saturate. Weights of twice the step give sums of
half the size, and cost one bit of the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil import interpreter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from espdl_hil.espdl import Graph

TARGET = "esp32s3"
_WEIGHTED = ("Conv", "Gemm", "MatMul")
_MAX_BITS = 6  # of its weights that a layer can lose


@dataclass(frozen=True)
class Watched:
    """What the offline file does on the calibration.

    Attributes:
        saturated: Outputs of each node whose sums left their lanes.
        sqnr_db: Of the output that keeps least.
    """

    saturated: dict[str, int]
    sqnr_db: float


def avoid_saturation(graph: Any, watch: Callable[[], Watched]) -> str:
    """Double the step of the weights of layers that saturate, until none does or none can.

    Args:
        graph: Calibrated; changed in place, unless the outputs are no better for it.
        watch: Exports it, and runs the file on the calibration.

    Returns:
        What was done and what it gained, in words.
    """
    before = now = watch()
    bits: dict[str, int] = {}
    while now.saturated:
        layers = [
            name
            for name in now.saturated
            if _can_be_coarser(graph, name) and bits.get(name, 0) < _MAX_BITS
        ]
        if not layers:
            break
        for name in layers:
            _scale_weights(graph, name, 2.0)
            bits[name] = bits.get(name, 0) + 1
        now = watch()
    if not bits:
        return f"avoid_lane_saturation: nothing done, {_told(before)}"
    gained = now.sqnr_db - before.sqnr_db
    if gained <= 0:
        for name, count in bits.items():
            _scale_weights(graph, name, 2.0**-count)
        return (
            f"avoid_lane_saturation: nothing done, {_told(before)}; without, the outputs would "
            f"keep {-gained:.1f} dB less"
        )
    coarser = ", ".join(f"{name} by {count} bit(s)" for name, count in bits.items())
    return (
        f"avoid_lane_saturation: weights are coarser in {coarser}; on the calibration "
        f"{sum(before.saturated.values())} sums saturated, now {sum(now.saturated.values())}; SQNR "
        f"{before.sqnr_db:.1f} to {now.sqnr_db:.1f} dB, {gained:+.1f} dB"
    )


def run_batches(
    graph: Graph,
    target: str,
    batches: Sequence[Mapping[str, NDArray[Any]]],
    wanted: Sequence[Mapping[str, NDArray[Any]]],
) -> Watched:
    """Run the offline file on calibration batches, quantized inputs in the file's layout.

    *wanted* are the float network's outputs for them, likewise; those that are judged.
    """
    session = interpreter.load(graph, target)
    exponents = {info.name: info.exponents for info in graph.outputs}
    signal, noise = dict.fromkeys(wanted[0], 0.0), dict.fromkeys(wanted[0], 0.0)
    saturated: dict[str, int] = {}
    for inputs, outputs in zip(batches, wanted, strict=True):
        session.reset()
        found = session.step(inputs)
        for lane in session.lane_saturations:
            saturated[lane.node] = saturated.get(lane.node, 0) + lane.saturated
        for name, real in outputs.items():
            value = found[name].astype(np.float64)
            if found[name].dtype.kind == "i":
                value = np.ldexp(value, exponents[name][0])
            signal[name] += float(np.square(real, dtype=np.float64).sum())
            noise[name] += float(np.square(value - real).sum())
    ratios = [signal[name] / noise[name] for name in signal if noise[name] and signal[name]]
    return Watched(saturated, 10 * math.log10(min(ratios)) if ratios else math.inf)


def _told(watched: Watched) -> str:
    count = sum(watched.saturated.values())
    return f"{count} sums saturate on the calibration" if count else "no sum saturates there"


def _can_be_coarser(graph: Any, name: str) -> bool:
    operation = graph.operations.get(name)
    return (
        operation is not None
        and operation.type in _WEIGHTED
        and bool(operation.inputs[1].is_parameter)
    )


def _scale_weights(graph: Any, name: str, factor: float) -> None:
    """Change the step of a layer's weights, and with it that of its bias."""
    for config in graph.operations[name].input_quant_config[1:]:
        root = vars(config.dominated_by)
        root["_scale"] = root["_scale"] * factor
