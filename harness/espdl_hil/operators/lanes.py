"""Accumulators of the vector units: how wide, and after how many products they saturate.

A vector register of 16 bytes is a block of output channels, one lane each. What is left behind the
last block (a tail) is summed channel by channel in one wide accumulator, a register of inputs at a
time. Depthwise layers have no tail::

    target   width   lanes of a block          tail: the register's products, then saturate
    esp32s3  int8    20 bits, each product     40 bits, 16 products of one tap
    esp32s3  int16   40 bits, each product     40 bits, 8 products of one tap
    esp32p4  int8    32 bits, each product     40 bits, 16 products of one tap
    esp32p4  int16   64 bits, exact            40 bits, 8 products of one tap

A bias is stored at the accumulator's width, so it wraps. Target ``c`` has C integers, which wrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.espdl.weights import block_size
from espdl_hil.operators.numeric import wrapped

if TYPE_CHECKING:
    from espdl_hil.espdl import Array
    from espdl_hil.targets import Target

LANE_BITS = {("esp32s3", 1): 20, ("esp32s3", 2): 40, ("esp32p4", 1): 32, ("esp32p4", 2): 64}
TAIL_BITS = 40  # ACCX of the S3, XACC of the P4


@dataclass(frozen=True, eq=False)
class Accumulators:
    """The accumulators of one layer.

    Attributes:
        bits: (N,) int64, width of each output channel's accumulator.
        blocked: Channels below this one saturate after each product.
        starts: (G,) the first product of each instruction that sums a tail channel.
    """

    bits: Array
    blocked: int
    starts: Array

    @property
    def high(self) -> Array:
        """(N,) int64, largest value; the smallest is ``-high - 1``."""
        exact = np.iinfo(np.int64).max
        limit: Array = (np.int64(1) << np.minimum(self.bits - 1, 62)) - 1
        return np.where(self.bits == 64, exact, limit)

    def wrapped(self, bias: Array) -> Array:
        """An int64 bias (N,) as the accumulators start with it."""
        return np.where(self.bits == 64, bias, wrapped(bias, np.minimum(self.bits, 63)))


def accumulators_of(
    target: Target, dtype: np.dtype[Any], channels: int, taps: int, depth: int, *, depthwise: bool
) -> Accumulators | None:
    """The accumulators of a layer; None on target ``c``, whose integers wrap.

    Args:
        target: The chip.
        dtype: int8 or int16.
        channels: Output channels.
        taps: Places of the window, 1 for Gemm and MatMul.
        depth: Products of one tap, in the order they are summed; 1 for depthwise.
        depthwise: Every channel is in a lane.
    """
    if not target.simd:
        return None
    block = block_size(dtype)
    blocked = channels if depthwise else channels // block * block
    bits = np.full(channels, TAIL_BITS, np.int64)
    bits[:blocked] = LANE_BITS[target.name, dtype.itemsize]
    starts = (np.arange(taps)[:, None] * depth + np.arange(0, depth, block)).reshape(-1)
    return Accumulators(bits, blocked, starts)
