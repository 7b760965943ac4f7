"""What Conv, Gemm and MatMul share: a filter, a bias, a shift, a fused activation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.operators.accumulate import Products
from espdl_hil.operators.lanes import accumulators_of
from espdl_hil.operators.saturation import LaneLog, Saturation
from espdl_hil.operators.signature import Arithmetic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.espdl import Array, Shape
    from espdl_hil.operators.node import BoundNode, NodeView, PlacedNode


MAX_SHIFT = 62  # half an LSB must fit an int64
INT8_SHIFT = {"esp32p4": 31, "esp32s3": 32}  # the shift field of the int8 vector kernels wraps
MIN_SHIFT = {"S8": -31, "S16": -15}  # what the portable kernels shift left without overflow
FUSED = ("Linear", "Relu")
LANES = (
    Arithmetic("SIMD", "20-bit lanes, 40-bit tails", widths=("S8",), targets=("esp32s3",)),
    Arithmetic("SIMD", "32-bit lanes, 40-bit tails", widths=("S8",), targets=("esp32p4",)),
    Arithmetic("SIMD", "40-bit lanes and tails", widths=("S16",), targets=("esp32s3",)),
    Arithmetic(
        "SIMD",
        "64-bit lanes, 40-bit tails",
        confidence="medium: tails at 2**39",
        widths=("S16",),
        targets=("esp32p4",),
    ),
)


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
    most = INT8_SHIFT.get(placed.target.name, MAX_SHIFT) if placed.width == "S8" else MAX_SHIFT
    if high > most:
        yield (
            f"the accumulator is shifted right by {high}, {most} is the most; a coarser filter "
            "(fewer fraction bits) or a finer output avoids it"
        )
    floor = 0 if placed.target.packed_filters else MIN_SHIFT[placed.width]
    if low < floor:
        yield (
            f"output exponent minus input and filter exponent is {low}: the accumulator would be "
            f"shifted left, which {placed.target.name} can do by {-floor} bits only; the range of "
            "its output is next to nothing, as of a layer that gave 0 for the whole calibration"
        )


def bias_rules(placed: PlacedNode, channels: int) -> Iterator[str]:
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


def bias_flaws(placed: PlacedNode) -> Iterator[str]:
    """A bias that its accumulators do not hold."""
    bias = placed.stored(2)
    if bias is None:
        return
    depthwise = placed.op_type == "Conv" and placed.integer("group", 1) != 1
    accumulators = accumulators_of(
        placed.target, placed.info(0).dtype, bias.info.size, 1, 1, depthwise=depthwise
    )
    if accumulators is None:
        return
    stored = bias.raw.astype(np.int64)
    outside = np.flatnonzero(accumulators.wrapped(stored) != stored)
    if len(outside):
        first = outside[0]
        yield (
            f"bias {stored[first]} of channel {first} (and {len(outside) - 1} more) exceeds the "
            f"{accumulators.bits[first]}-bit lanes of the chip, which keeps the low bits"
        )


def filter_macs(view: NodeView, output: Shape) -> int:
    """Multiply-accumulates of a Conv or Gemm."""
    weights = view.shape_of(1)
    depthwise = view.integer("group", 1) != 1
    return math.prod(output) * math.prod(weights[:-2] if depthwise else weights[:-1])


def products_of(
    bound: BoundNode, weights: Array, *, taps: int = 1, depthwise: bool = False
) -> Products:
    """Products of a Conv, Gemm or MatMul, with bias, shifts, activation and accumulators.

    Args:
        bound: The node.
        weights: (K, N) in logical order.
        taps: Places of the window.
        depthwise: Each output channel has its own inputs.
    """
    terms, channels = weights.shape
    bias = bound.optional(2)
    start = np.zeros(channels, np.int64) if bias is None else bias.array.astype(np.int64)
    filter_exponents = np.array(bound.input(1).exponents, np.int64)
    shift = bound.out.exponent - bound.input().exponent - filter_exponents
    relu = bound.text("activation", "Linear") == "Relu"
    bound.out.positive = relu
    accumulators = accumulators_of(
        bound.target, bound.out.dtype, channels, taps, terms // taps, depthwise=depthwise
    )
    return Products(
        weights=weights,
        bias=start if accumulators is None else accumulators.wrapped(start),
        shift=np.broadcast_to(shift, (channels,)),
        rounding=bound.rounding,
        relu=relu,
        out_type=bound.out.dtype,
        accumulators=accumulators,
    )


def saturation_of(bound: BoundNode, products: Products) -> Saturation | None:
    """What corrects the node's sums; None when no input could fill an accumulator."""
    if products.accumulators is None:
        return None
    log = bound.lanes[0] if bound.lanes else LaneLog(bound.node.name, 64)
    saturation = Saturation(products, log, positive=bound.input().positive)
    if not saturation.possible:
        return None
    log.bits = min(log.bits, saturation.bits)
    bound.lanes[:] = [log]
    return saturation
