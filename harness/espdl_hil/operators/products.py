"""What Conv, Gemm and MatMul share: a filter, a bias, a shift, a fused activation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.espdl.weights import block_size
from espdl_hil.operators.accumulate import Products
from espdl_hil.operators.s3_accumulator import lane_check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from espdl_hil.espdl import Array, Shape
    from espdl_hil.operators.node import BoundNode, NodeView, PlacedNode


MAX_SHIFT = 62  # half an LSB must fit an int64
MIN_SHIFT = {"S8": -31, "S16": -15}  # what the portable kernels shift left without overflow
S3_BIAS_BITS = {"S8": 20, "S16": 40}  # width of the S3's accumulator lanes
FUSED = ("Linear", "Relu")


def fused_rules(placed: PlacedNode) -> Iterator[str]:
    """A fused activation; padding in words, which pooling shares."""
    activation = placed.text("activation", "Linear")
    if activation not in FUSED:
        yield f"activation {activation!r}, ESP-DL fuses {' or '.join(FUSED)}"
    if placed.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        yield f"auto_pad {placed.text('auto_pad')!r}, the chip reads pads only"


def filter_rules(placed: PlacedNode, channels: int) -> Iterator[str]:
    """Exponents of the filter, one or one a channel."""
    exponents = placed.info(1).exponents
    if len(exponents) not in (1, channels):
        yield f"{len(exponents)} filter exponents for {channels} channels"
        return
    if len(exponents) > 1 and placed.target.name != "esp32p4":
        yield (
            f"the filter has an exponent per channel, which {placed.target.name} does not have; "
            "the chip would shift by an undefined amount"
        )
    shifts = [placed.output().exponent - placed.info(0).exponent - e for e in exponents]
    yield from shift_rules(placed, min(shifts), max(shifts))


def shift_rules(placed: PlacedNode, low: int, high: int) -> Iterator[str]:
    """Smallest and largest shift of the accumulator."""
    if high > MAX_SHIFT:
        yield f"the accumulator is shifted right by {high}, {MAX_SHIFT} is the most"
    floor = 0 if placed.target.packed_filters else MIN_SHIFT[placed.width]
    if low < floor:
        yield (
            f"output exponent minus input and filter exponent is {low}: the accumulator would be "
            f"shifted left, which {placed.target.name} can do by {-floor} bits only"
        )


def bias_rules(placed: PlacedNode, channels: int, *, depthwise: bool) -> Iterator[str]:
    """Bias of a Conv or Gemm.

    Matches: ``TensorBase::reset_bias_layout``.
    """
    bias = placed.stored(2)
    if bias is None:
        return
    if bias.info.size != channels:
        yield f"{bias.info.size} bias elements for {channels} channels"
        return
    if placed.target.name != "esp32s3":
        return
    readers = [
        node.name
        for node in placed.graph.nodes
        if node.op_type in ("Conv", "Gemm") and node.inputs[2:3] == (bias.info.name,)
    ]
    if len(readers) > 1:
        yield f"shares its bias with {readers}; the chip rearranges it once for each of them"
    bits = S3_BIAS_BITS[placed.width]
    lanes = channels if depthwise else channels - channels % block_size(placed.info(0).dtype)
    limit = 2 ** (bits - 1)
    outside = np.flatnonzero((bias.raw[:lanes] < -limit) | (bias.raw[:lanes] >= limit))
    if len(outside):
        yield (
            f"bias {bias.raw[outside[0]]} of channel {outside[0]} (and {len(outside) - 1} more) "
            f"exceeds the {bits}-bit lanes of the chip, which keeps the low bits"
        )


def filter_macs(view: NodeView, output: Shape) -> int:
    """Multiply-accumulates of a Conv or Gemm."""
    weights = view.shape_of(1)
    depthwise = view.integer("group", 1) != 1
    return math.prod(output) * math.prod(weights[:-2] if depthwise else weights[:-1])


def products_of(bound: BoundNode, weights: Array) -> Products:
    """The node's products, with bias, shifts and activation.

    Args:
        bound: Conv, Gemm or MatMul; inputs 0 and 1, and 2 for a bias.
        weights: (K, N) in logical order.
    """
    channels = weights.shape[1]
    bias = bound.optional(2)
    filter_exponents = np.array(bound.input(1).exponents, np.int64)
    shift = bound.out.exponent - bound.input().exponent - filter_exponents
    return Products(
        weights=weights,
        bias=np.zeros(channels, np.int64) if bias is None else bias.array.astype(np.int64),
        shift=np.broadcast_to(shift, (channels,)),
        rounding=bound.rounding,
        relu=bound.text("activation", "Linear") == "Relu",
        out_type=bound.out.dtype,
    )


def watch(
    bound: BoundNode, products: Products, columns: Callable[[], Array], *, depthwise: bool = False
) -> None:
    """Have the node checked, if it runs on an ESP32-S3; see `lane_check`."""
    if bound.target.name != "esp32s3":
        return
    check = lane_check(bound.node.name, products, columns, depthwise=depthwise)
    if check is not None:
        bound.lanes.append(check)
