"""How a model is quantized, as its author declares it, checked when it is made. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from espdl_hil.errors import ConfigError

BITS = (8, 16)
MIXED = "w8a16"
MIN_BATCHES, MAX_BATCHES = 2, 512

Algorithm = Literal["kl", "minmax", "mse", "percentile"]
ALGORITHMS: tuple[Algorithm, ...] = ("kl", "minmax", "mse", "percentile")


@dataclass(frozen=True)
class Quantization:
    """Settings of esp-ppq, as far as ESP-DL's power-of-two steps leave a choice.

    Attributes:
        algorithm: What finds the ranges of activations: ``kl``, ``minmax``, ``mse`` or
            ``percentile``. The default is esp-ppq's: ``kl`` at 8 bits, ``minmax`` at 16. Tensors
            of 16 bits always take ``minmax``, unless ``percentile`` is asked for.
        batches: How often ``calibration`` is called.
        layer_bits: 8 or 16 by layer: a module path of the network (``blocks.1.point``, with all
            that is below it) or the name of a node. The longest that fits counts.
        equalization: Even out the weights of neighbouring layers, channel by channel.
        bias_correction: Add to biases what quantization takes from the mean of each channel.
        avoid_lane_saturation: ESP32-S3 at 8 bits: give layers whose sums leave the chip's 20-bit
            lanes on the calibration coarser weights, as far as that gains quality.

    Raises:
        ConfigError: the first thing that is wrong.
    """

    algorithm: Algorithm | None = None
    batches: int = 8
    layer_bits: Mapping[str, int] = field(default_factory=dict)
    equalization: bool = False
    bias_correction: bool = False
    avoid_lane_saturation: bool = False

    def __post_init__(self) -> None:
        if self.algorithm not in (None, *ALGORITHMS):
            raise ConfigError(
                f"quantization: algorithm = {self.algorithm!r}: expected one of "
                f"{', '.join(ALGORITHMS)}"
            )
        whole = isinstance(self.batches, int) and not isinstance(self.batches, bool)
        if not (whole and MIN_BATCHES <= self.batches <= MAX_BATCHES):
            raise ConfigError(
                f"quantization: batches = {self.batches!r}: expected a whole number from "
                f"{MIN_BATCHES} to {MAX_BATCHES}"
            )
        for name in ("equalization", "bias_correction", "avoid_lane_saturation"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"quantization: {name} is not True or False")
        given: Any = self.layer_bits
        if not isinstance(given, Mapping):
            raise ConfigError("quantization: layer_bits is not a mapping from layer to bits")
        for layer, bits in given.items():
            if not (isinstance(layer, str) and layer):
                raise ConfigError(f"quantization: layer_bits names {layer!r}, expected a layer")
            check_bits(bits, f"quantization: layer_bits of {layer!r}")

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_json(), sort_keys=True))

    def __str__(self) -> str:
        """As it is written in a model file, defaults left out."""
        default = Quantization().to_json()
        given = {name: value for name, value in self.to_json().items() if value != default[name]}
        arguments = ", ".join(f"{name}={value!r}" for name, value in given.items())
        return f"Quantization({arguments})"

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain data."""
        return {**vars(self), "layer_bits": dict(self.layer_bits)}


def check_bits(bits: object, what: str) -> None:
    """Insist on a width that ESP-DL has kernels for.

    Raises:
        ConfigError: begins with *what*.
    """
    if bits == MIXED:
        # dl_define.hpp has quant_type_t of 8, 16 and 32 bits, and no kernel mixes two of them
        raise ConfigError(
            f"{what} is {MIXED!r}: ESP-DL 3.3.9 has no kernels for 8-bit weights with 16-bit "
            "activations",
            hint="write 16: weights and activations of the layer",
        )
    if isinstance(bits, bool) or bits not in BITS:
        raise ConfigError(f"{what} is {bits!r}: expected 8 or 16")
