"""What ESP-DL asks of nodes that move, pick or cast elements.

Matches: ``TensorBase::slice``, ``pad`` and ``assign``; ``dl_module_gather.hpp``,
``dl_module_streaming_cache.hpp``, ``dl_module_depth_to_space.hpp``, ``dl_module_scatter_nd.hpp``,
``dl_module_reverse_sequence.hpp``, ``dl_module_reduce_base.hpp``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from espdl_hil.operators.rules_elementwise import MAX_LOOPS
from espdl_hil.operators.shapes import reduced_axes, slice_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.operators.site import Site

MAX_PAD_RANK = 4
PAD_MODES = ("constant", "edge", "reflect")
REDUCTIONS = ("none", "add", "mul", "max", "min")


def streaming_cache(site: Site) -> Iterator[str]:
    """Two flat copies, which make a concatenation only along the outermost axis."""
    axis = site.axis(site.integer("frame_axis", 1), len(site.shape))
    outer = math.prod(site.shape[:axis])
    if outer != 1 and site.integer("window_size", 1) > 1:
        yield (
            f"frame_axis {axis} of {site.shape} has {outer} rows before it; the chip puts the "
            "whole cache before the whole input, which interleaves other elements"
        )


def slices(site: Site) -> Iterator[str]:
    """Slice, with the chip's own reading of negative numbers."""
    starts, ends = site.constant(1), site.constant(2)
    axes, steps = site.constant(3), site.constant(4)
    dtypes = {values.dtype for values in (starts, ends, axes, steps) if values is not None}
    if len(dtypes) != 1:
        yield f"starts, ends, axes and steps are {sorted(map(str, dtypes))}, the chip reads one"
    if starts is None or ends is None:
        return
    rank = len(site.shape)
    chosen = [site.axis(int(a), rank) for a in (range(len(starts)) if axes is None else axes)]
    if len(set(chosen)) != len(chosen):
        yield f"axes {chosen} repeat"
    wanted = slice_ranges(site)
    for i, axis in enumerate(chosen[: len(starts)]):
        step = 1 if steps is None else int(steps[i])
        taken = _chip_indices(site.shape[axis], int(starts[i]), int(ends[i]), step)
        if taken != list(wanted[axis]):
            yield (
                f"[{starts[i]}:{ends[i]}:{step}] of axis {axis}, which has {site.shape[axis]}: "
                "the chip takes other elements"
            )


def _chip_indices(length: int, start: int, end: int, step: int) -> list[int]:
    """The indices that ``TensorBase::slice`` takes; it flips the result of a negative step."""
    start, end = (max(-(2**31), min(2**31 - 1, v)) for v in (start, end))
    flipped = step < 0
    if flipped:
        start, step = -start - 1, -step
        end = 2**31 - 1 if end == -(2**31) else -end - 1
    end = min(end, length)
    first = start + length if start < 0 else start % (length + 1)
    last = end + length if end < 0 else end
    taken = list(range(first, last, step))
    return taken[::-1] if flipped else taken


def pad(site: Site) -> Iterator[str]:
    """Constant, edge and reflect padding."""
    mode = site.text("mode", "constant")
    if mode not in PAD_MODES:
        yield f"mode {mode!r}, ESP-DL has {', '.join(PAD_MODES)}"
    if len(site.shape) > MAX_PAD_RANK:
        yield f"{len(site.shape)} dimensions, ESP-DL pads up to {MAX_PAD_RANK}"
    pads = site.constant_integers(1) or ()
    if any(amount < 0 for amount in pads):
        yield f"pads {pads} are negative; the chip writes outside the output"
    longest = (max(pads[i], pads[i + len(site.shape)]) for i in range(len(site.shape)))
    if mode == "reflect" and any(
        amount >= dim for amount, dim in zip(longest, site.shape, strict=True)
    ):
        yield f"pads {pads} reflect more than {site.shape} holds"
    value = site.stored(2)
    if value is not None and mode == "constant":
        yield from _pad_value(site)


def _pad_value(site: Site) -> Iterator[str]:
    value, taken = site.info(2), site.info(0)
    if value.size < 1:
        yield "the padding value is empty"
    elif value.dtype != taken.dtype:
        yield f"the padding value is {value.dtype}, the input {taken.dtype}"
    elif value.exponents != taken.exponents and site.constant(2)[0] != 0:  # type: ignore[index]
        yield (
            f"the padding value has exponent {value.exponents}, the input {taken.exponents}; the "
            "chip copies the integer"
        )


def gather(site: Site) -> Iterator[str]:
    """Indices are taken as they are."""
    axis = site.axis(site.integer("axis", 0), len(site.shape))
    indices = site.constant(1)
    if indices is not None and len(indices):
        low, high = int(indices.min()), int(indices.max())
        if low < 0 or high >= site.shape[axis]:
            yield (
                f"indices {low} to {high} of axis {axis}, which has {site.shape[axis]}; the chip "
                "does not count from the end and reads outside"
            )


def scatter_nd(site: Site) -> Iterator[str]:
    """Updates of whole slices at constant places."""
    if site.text("reduction", "none") not in REDUCTIONS:
        yield f"reduction {site.text('reduction')!r}, ESP-DL has {', '.join(REDUCTIONS)}"
    indices, where = site.constant(1), site.shape_of(1)
    depth = where[-1] if where else 0
    if indices is None or not 1 <= depth <= len(site.shape):
        yield f"indices of shape {where} do not fit {site.shape}"
        return
    expected = (*where[:-1], *site.shape[depth:])
    if site.shape_of(2) != expected:
        yield f"updates of shape {site.shape_of(2)}, expected {expected}"
    places = indices.reshape(-1, depth)
    if ((places < 0) | (places >= site.shape[:depth])).any():
        yield f"indices outside {site.shape[:depth]}; the chip writes outside the output"


def reverse_sequence(site: Site) -> Iterator[str]:
    """Rows of the first two axes."""
    batch, time = site.integer("batch_axis", 1), site.integer("time_axis", 0)
    if sorted((batch, time)) != [0, 1] or len(site.shape) < 2:
        yield f"batch_axis {batch} and time_axis {time}, the chip takes the first two axes"
        return
    lengths = site.constant_integers(1) or ()
    if len(lengths) != site.shape[batch] or any(
        not 0 <= length <= site.shape[time] for length in lengths
    ):
        yield f"sequence lengths {lengths} do not fit {site.shape}"


def depth_to_space(site: Site) -> Iterator[str]:
    """The DCR mode confuses block size and output channels."""
    block = site.integer("blocksize")
    channels = site.shape[3] // block**2
    mode = site.text("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        yield f"mode {mode!r}, ESP-DL has DCR and CRD"
    elif mode == "DCR" and channels != block:
        yield (
            f"DCR with blocksize {block} and {channels} output channels: the chip takes one for "
            "the other and writes elsewhere; CRD (torch.nn.PixelShuffle) works"
        )


def reduce(site: Site) -> Iterator[str]:
    """Reduction over any axes, in at most four loops."""
    axes = reduced_axes(site)
    if not axes:
        yield "no axis is reduced (noop_with_empty_axes); the chip reduces all of them"
        return
    flags = [i in axes for i in range(len(site.shape))]
    loops = sum(1 for i, flag in enumerate(flags) if i == 0 or flag != flags[i - 1])
    if loops > MAX_LOOPS:
        yield f"{loops} alternations of reduced and kept axes, the chip computes up to {MAX_LOOPS}"


def requantize(site: Site) -> Iterator[str]:
    """QuantizeLinear, DequantizeLinear and RequantizeLinear: the tensors' own exponents count."""
    taken, made = site.info(0), site.output()
    both_float = taken.dtype == made.dtype == "float32"
    if both_float and taken.exponents != made.exponents:
        yield "float to float with different exponents, the chip leaves the output as it was"
