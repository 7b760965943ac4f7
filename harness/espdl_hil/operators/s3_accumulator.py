"""The S3's 20-bit accumulators: could a stimulus leave them?

The vector unit of the ESP32-S3 sums int8 products of full 16-channel blocks, and of all depthwise
channels, in 20-bit lanes that saturate (other channels have 40 bits). Neither ESP-DL's portable
kernels nor this interpreter model that, so where a running sum could leave ±2**19, silicon may
differ. Two bounds tell where: one from the weights alone, at load; and for a given input the sum
of all positive (or negative) products, which no running sum exceeds whatever its order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from espdl_hil.espdl import Array
    from espdl_hil.operators.accumulate import Products

LANE_LIMIT = 2**19 - 1  # largest value of a 20-bit lane; the smallest is -2**19
LANE_CHANNELS = 16  # a block of output channels that the vector unit sums together


@dataclass(frozen=True)
class LaneWarning:
    """A node whose accumulators could have left the 20-bit lanes on an ESP32-S3.

    Attributes:
        node: Name of the node.
        bound: Largest magnitude that any int8 input could reach.
        observed: Largest magnitude that the inputs seen could have reached.
        limit: What a lane holds.
    """

    node: str
    bound: int
    observed: int
    limit: int = LANE_LIMIT

    def __str__(self) -> str:
        return (
            f"{self.node}: a running sum could reach {self.observed}, a 20-bit lane of the "
            f"ESP32-S3 saturates at {self.limit} (any input: {self.bound})"
        )


@dataclass
class LaneCheck:
    """Watches one node whose static bound exceeds the lanes.

    Attributes:
        node: Name of the node.
        bound: The static bound.
        reach: Returns the largest reach of the input that is in memory now.
        observed: The largest reach so far.
    """

    node: str
    bound: int
    reach: Callable[[], int]
    observed: int = field(default=0)

    def observe(self) -> None:
        """Look at the input of the last step."""
        self.observed = max(self.observed, self.reach())

    def warning(self) -> LaneWarning | None:
        """What was observed, if it exceeds a lane."""
        if self.observed <= LANE_LIMIT:
            return None
        return LaneWarning(self.node, self.bound, self.observed)


def lane_check(
    node: str, products: Products, columns: Callable[[], Array], *, depthwise: bool = False
) -> LaneCheck | None:
    """The check of a node on an ESP32-S3; None when no input could leave the lanes.

    Args:
        node: Name of an int8 Conv, Gemm or MatMul.
        products: Its weights (K, N) and bias.
        columns: Returns the rows that meet the weights, (M, K), or (M, K, N) for depthwise.
        depthwise: Each output channel has its own K inputs; all channels are in lanes.
    """
    channels = products.weights.shape[1]
    lanes = channels if depthwise else channels // LANE_CHANNELS * LANE_CHANNELS
    if products.out_type != np.int8 or lanes == 0:
        return None
    bound = int(products.bound[:lanes].max())
    if bound <= LANE_LIMIT:
        return None
    weights = products.weights[:, :lanes].astype(np.float64)
    bias = products.bias[:lanes].astype(np.float64)

    def reach() -> int:
        x = columns().astype(np.float64)
        if depthwise:
            terms = x[:, :, :lanes] * weights
            total, magnitude = terms.sum(1), np.abs(terms).sum(1)
        else:
            total, magnitude = x @ weights, np.abs(x) @ np.abs(weights)
        above = bias + (magnitude + total) / 2
        below = (magnitude - total) / 2 - bias
        return int(max(above.max(), below.max()))

    return LaneCheck(node, bound, reach)
