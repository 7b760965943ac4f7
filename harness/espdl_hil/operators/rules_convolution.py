"""What ESP-DL asks of Conv, Gemm, MatMul, pooling and Resize nodes.

Matches: ``dl_base.hpp`` (ConvOpArgs), ``dl_base_pool2d.hpp``, ``dl_base_resize.hpp``,
``TensorBase::reset_bias_layout``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.espdl.weights import block_size
from espdl_hil.operators.rules_elementwise import MAX_SCALE_BITS
from espdl_hil.operators.shapes import pads_of, spatial_rank

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.espdl.graph import Shape
    from espdl_hil.operators.site import Site

MAX_SHIFT = 62  # half an LSB must fit an int64
MIN_SHIFT = {"S8": -31, "S16": -15}  # what the portable kernels shift left without overflow
S3_BIAS_BITS = {"S8": 20, "S16": 40}  # width of the S3's accumulator lanes
ACTIVATIONS = ("Linear", "Relu")
SINGLE = {"pytorch_half_pixel": "half_pixel", "align_corners": "a division by zero"}


def conv(site: Site) -> Iterator[str]:
    """Convolution, depthwise or not."""
    depthwise = site.integer("group", 1) != 1
    channels = site.shape_of(1)[-2 if depthwise else -1]
    if depthwise and site.shape_of(1)[-1] != 1:
        yield f"a depthwise filter of shape {site.shape_of(1)}, ESP-DL takes one of each channel"
    yield from _one_picture(site)
    yield from _attributes(site)
    spatial = spatial_rank(site)
    kernel, dilations = site.shape_of(1)[:spatial], site.integers("dilations")
    yield from _windows_touch_input(site, kernel, dilations)
    yield from _filter(site, channels)
    yield from _bias(site, channels, depthwise=depthwise)


def gemm(site: Site) -> Iterator[str]:
    """Fully connected layer."""
    channels = site.shape_of(1)[-1]
    for name, expected in (("transA", 0), ("transB", 0)):
        if site.integer(name, expected) != expected:
            yield f"{name} is {site.integer(name)}, the chip asserts that it is {expected}"
    for name in ("alpha", "beta"):
        if site.number(name, 1.0) != 1.0:
            yield f"{name} is {site.number(name)}, the chip does not read it"
    yield from _attributes(site)
    yield from _filter(site, channels)
    yield from _bias(site, channels, depthwise=False)


def matmul(site: Site) -> Iterator[str]:
    """Matrix product; the second operand is read in packed order."""
    yield from _attributes(site)
    layout = site.text("input1_layout", "packed")
    if layout != "packed" and not _packing_is_identity(site):
        yield (
            f"the second operand has layout {layout!r}; ESP-DL 3.3 does not read that attribute, "
            "takes the rows for packed blocks and multiplies other elements"
        )
    shift = site.output().exponent - site.info(0).exponent - site.info(1).exponent
    yield from _shifts(site, shift, shift)


def _packing_is_identity(site: Site) -> bool:
    shape = site.shape_of(1)
    if len(shape) < 2 or 1 in shape[-2:]:
        return True
    return site.target.packed_filters and shape[-1] == block_size(site.info(1).dtype)


def _one_picture(site: Site) -> Iterator[str]:
    if site.shape[0] != 1:
        yield f"a batch of {site.shape[0]}, the kernel computes the first one only"


def _attributes(site: Site) -> Iterator[str]:
    activation = site.text("activation", "Linear")
    if activation not in ACTIVATIONS:
        yield f"activation {activation!r}, ESP-DL fuses {' or '.join(ACTIVATIONS)}"
    if site.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        yield f"auto_pad {site.text('auto_pad')!r}, the chip reads pads only"


def _windows_touch_input(site: Site, kernel: Shape, dilations: Shape) -> Iterator[str]:
    """A window that lies in the padding alone gives the kernels a width of 0 or less."""
    spatial = len(kernel)
    pads, strides = pads_of(site, spatial), site.integers("strides")
    for i in range(spatial):
        length, span = site.shape[1 + i], dilations[i] * (kernel[i] - 1) + 1
        last = (site.results[0][1 + i] - 1) * strides[i] - pads[i]
        if min(pads[i], pads[spatial + i]) < 0:
            yield f"pads {pads} are negative"
        elif pads[i] >= span or last >= length:
            yield f"a window of axis {1 + i} lies in the padding alone"


def _filter(site: Site, channels: int) -> Iterator[str]:
    exponents = site.info(1).exponents
    if len(exponents) not in (1, channels):
        yield f"{len(exponents)} filter exponents for {channels} channels"
        return
    if len(exponents) > 1 and site.target.name != "esp32p4":
        yield (
            f"the filter has an exponent per channel, which {site.target.name} does not have; "
            "the chip would shift by an undefined amount"
        )
    shifts = [site.output().exponent - site.info(0).exponent - e for e in exponents]
    yield from _shifts(site, min(shifts), max(shifts))


def _shifts(site: Site, low: int, high: int) -> Iterator[str]:
    if high > MAX_SHIFT:
        yield f"the accumulator is shifted right by {high}, {MAX_SHIFT} is the most"
    floor = 0 if site.target.packed_filters else MIN_SHIFT[site.width]
    if low < floor:
        yield (
            f"output exponent minus input and filter exponent is {low}: the accumulator would be "
            f"shifted left, which {site.target.name} can do by {-floor} bits only"
        )


def _bias(site: Site, channels: int, *, depthwise: bool) -> Iterator[str]:
    bias = site.stored(2)
    if bias is None:
        return
    if bias.info.size != channels:
        yield f"{bias.info.size} bias elements for {channels} channels"
        return
    if site.target.name != "esp32s3":
        return
    readers = [
        node.name
        for node in site.graph.nodes
        if node.op_type in ("Conv", "Gemm") and node.inputs[2:3] == (bias.info.name,)
    ]
    if len(readers) > 1:
        yield f"shares its bias with {readers}; the chip rearranges it once for each of them"
    bits = S3_BIAS_BITS[site.width]
    lanes = channels if depthwise else channels - channels % block_size(site.info(0).dtype)
    limit = 2 ** (bits - 1)
    outside = np.flatnonzero((bias.raw[:lanes] < -limit) | (bias.raw[:lanes] >= limit))
    if len(outside):
        yield (
            f"bias {bias.raw[outside[0]]} of channel {outside[0]} (and {len(outside) - 1} more) "
            f"exceeds the {bits}-bit lanes of the chip, which keeps the low bits"
        )


def pool(site: Site) -> Iterator[str]:
    """AveragePool and MaxPool."""
    yield from _one_picture(site)
    yield from _attributes(site)
    spatial = spatial_rank(site)
    kernel, ones = site.integers("kernel_shape"), (1,) * spatial
    if site.integers("dilations", ones) != ones:
        yield f"dilations {site.integers('dilations')}, the chip does not read them"
    yield from _windows_touch_input(site, kernel, ones)
    pads, strides = pads_of(site, spatial), site.integers("strides")
    if site.integer("ceil_mode", 0) and any(
        (site.shape[1 + i] + pads[i] + pads[spatial + i] - kernel[i]) % strides[i]
        for i in range(spatial)
    ):
        yield "ceil_mode adds a window that the chip does not compute"


def global_pool(site: Site) -> Iterator[str]:
    """GlobalAveragePool."""
    yield from _one_picture(site)


def resize(site: Site) -> Iterator[str]:
    """Nearest and linear resizing of one picture."""
    yield from _one_picture(site)
    if site.has(1) and site.info(1).size:
        yield "a region of interest, the chip does not read it"
    if site.integer("antialias", 0):
        yield "antialias, the chip does not read it"
    scales = None if site.constant_integers(3) else site.constant(2)
    if scales is not None and tuple(scales[:2].tolist()) != (1.0, 1.0):
        yield f"scales {scales.tolist()} change the batch or the channels"
    mode = site.text("mode", "nearest")
    if mode == "nearest":
        yield from _nearest(site)
    elif mode == "linear":
        yield from _linear(site)
    else:
        yield f"mode {mode!r}, ESP-DL has nearest and linear"


def _nearest(site: Site) -> Iterator[str]:
    transform = site.text("coordinate_transformation_mode", "half_pixel")
    rounding = site.text("nearest_mode", "round_prefer_floor")
    if (transform, rounding) != ("asymmetric", "floor"):
        yield f"nearest with {transform} and {rounding}, the chip does asymmetric and floor"
    finer = site.info(0).exponent - site.output().exponent
    if finer > 0 and not site.target.packed_filters:
        yield "the output is finer than the input; the portable kernel does not saturate"
    if finer > MAX_SCALE_BITS:
        yield f"the output is {finer} bits finer than the input, {MAX_SCALE_BITS} is the most"


def _linear(site: Site) -> Iterator[str]:
    transform = site.text("coordinate_transformation_mode", "half_pixel")
    if transform not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        yield f"linear with {transform}, the chip does half_pixel or align_corners"
    lengths = site.shape[1:-1]
    if 1 in lengths:
        yield f"linear over {lengths}: the chip reads outside an axis of length 1"
    if transform != "half_pixel" and 1 in site.results[0][1:-1]:
        yield f"{transform} to a length of 1, which the chip computes as {SINGLE[transform]}"
