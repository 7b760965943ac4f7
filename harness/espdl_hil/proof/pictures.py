"""What the report draws of a comparison: differences by chunk and channel, waves, a histogram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.report import pack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from espdl_hil.compare import Array
    from espdl_hil.proof.comparison import Comparison
    from espdl_hil.proof.expected import Expected

    Picture = dict[str, Any]

MAX_OUTPUTS = 4  # drawn of one comparison; those in which most differs
MAX_COLUMNS, MAX_CHANNELS = 512, 64  # of a heat map; a cell shows the worst of what it covers
MAX_WAVES, MAX_FRAMES = 3, 512  # channels that are drawn, and how much of each
MAX_BROKEN = 100  # chunks that could not be compared, by number
MAX_BINS = 41  # of a histogram


@dataclass(frozen=True)
class _Frames:
    """One output of a run, all chunks, as (frames, others, channels).

    Attributes:
        expected: What it should be.
        observed: What it is; as expected in a chunk that could not be compared.
        starts: The first frame of each column of the heat map.
        broken: Chunks that could not be compared.
        skip: Leading frames without a counterpart.
    """

    expected: Array
    observed: Array
    starts: NDArray[np.intp]
    broken: list[int]
    skip: int

    @property
    def difference(self) -> Array:
        """Observed less expected, zero where nothing is compared."""
        is_float = self.expected.dtype.kind == "f"
        with np.errstate(all="ignore"):
            found: Array = np.subtract(
                self.observed, self.expected, dtype=np.float32 if is_float else np.int32
            )
        found[: self.skip] = 0
        if is_float:  # what is not finite on one side alone is drawn as the largest by far
            same = (self.observed == self.expected) | (
                np.isnan(self.observed) & np.isnan(self.expected)
            )
            lost = ~np.isfinite(found)
            found[lost] = np.where(same[lost], 0, 10 * np.abs(found[~lost]).max(initial=0.1))
        return found


def draw(comparison: Comparison, expected: Expected) -> list[Picture]:
    """Draw at most ``MAX_OUTPUTS`` outputs of a comparison, the worst first.

    A picture is as ``docs/results.md`` describes it.
    """
    aligned = comparison.against == "offline"
    skips = expected.skip_frames if aligned else {}
    axes = expected.frame_axes if aligned else expected.axes(comparison.expected[0])
    states = {a.output for a in expected.plan.alignments if a.state_input}
    pictures = []
    for name, axis in axes.items():
        frames = _stack(comparison, name, axis, skips.get(name, 0))
        if frames is not None:
            pictures.append(_picture(comparison, expected, name, frames))
    pictures.sort(key=lambda p: (-p["differing"], p["output"] in states))
    return pictures[:MAX_OUTPUTS]


def _stack(comparison: Comparison, name: str, axis: int | None, skip: int) -> _Frames | None:
    wanted, seen, starts, broken, at = [], [], [], [], 0
    for number, chunk in enumerate(comparison.expected):
        if name not in chunk:
            broken.append(number)
            continue
        right = _by_frame(chunk[name], axis)
        given = comparison.observed[number] if number < len(comparison.observed) else {}
        found = given.get(name)
        if found is None or found.shape != chunk[name].shape or found.dtype != chunk[name].dtype:
            broken.append(number)
            found = chunk[name]
        wanted.append(right)
        seen.append(_by_frame(found, axis))
        starts.append(at)
        at += len(right)
    if not at or not wanted[0].size:
        return None
    if not comparison.streaming:
        starts = list(range(at))  # a whole run has no chunks: a column a frame
    return _Frames(
        np.concatenate(wanted), np.concatenate(seen), np.array(starts), broken[:MAX_BROKEN], skip
    )


def _by_frame(tensor: Array, axis: int | None) -> Array:
    """*tensor* as (frames, others, channels); one without a time axis is one frame."""
    moved: Array = tensor[np.newaxis] if axis is None else np.moveaxis(tensor, axis, 0)
    channels = moved.shape[-1] if moved.ndim > 1 else 1
    return moved.reshape(len(moved), -1, channels)


def _picture(comparison: Comparison, expected: Expected, name: str, frames: _Frames) -> Picture:
    difference = frames.difference
    size = np.abs(difference)
    first = _first(size)
    alignment = next((a for a in expected.plan.alignments if a.output == name), None)
    is_float = difference.dtype.kind == "f"
    cells = np.maximum.reduceat(size.max(axis=1), frames.starts, axis=0)
    column, channel = (int(i) for i in np.unravel_index(np.argmax(cells), cells.shape))
    heat, bins = _pooled(cells)
    return {
        "output": name,
        "against": comparison.against,
        "columns": "chunk" if comparison.streaming else "frame",
        "unit": "" if is_float else "LSB",
        "frames": len(difference),
        "chunk_frames": alignment.out_frames_per_chunk if alignment and comparison.streaming else 0,
        "skipped_frames": frames.skip,
        "warmup_frames": alignment.warmup_frames if alignment and comparison.streaming else 0,
        "broken": frames.broken,
        "differing": int(np.count_nonzero(size)),
        "elements": int(size[frames.skip :].size),
        "first": first and _place(frames, *first),
        "worst": {"column": column, "channel": channel, "size": size.max().item()}
        if size.any()
        else None,
        "heat": pack(heat.astype(np.float32 if is_float else np.uint16)),
        "shape": list(cells.shape),
        "bin": bins,
        "waves": _waves(frames, difference, first, channel),
        "histogram": _histogram(difference[frames.skip :]),
    }


def _first(size: Array) -> tuple[int, int, int] | None:
    """Frame, other and channel of the first difference."""
    if not size.any():
        return None
    frame, other, channel = (int(i) for i in np.unravel_index(np.argmax(size > 0), size.shape))
    return frame, other, channel


def _place(frames: _Frames, frame: int, other: int, channel: int) -> Picture:
    column = int(np.searchsorted(frames.starts, frame, "right")) - 1
    values = (array[frame, other, channel].item() for array in (frames.expected, frames.observed))
    expected, observed = (v if np.isfinite(v) else str(v) for v in values)
    return {
        "column": column,
        "frame": frame,
        "channel": channel,
        "expected": expected,
        "observed": observed,
    }


def _pooled(cells: Array) -> tuple[Array, list[int]]:
    """A heat map of at most MAX_COLUMNS by MAX_CHANNELS cells, and what one of them covers."""
    bins = []
    for axis, most in enumerate((MAX_COLUMNS, MAX_CHANNELS)):
        step = -(-cells.shape[axis] // most)
        cells = np.maximum.reduceat(cells, np.arange(0, cells.shape[axis], step), axis=axis)
        bins.append(step)
    return np.minimum(cells, 65535), bins


def _waves(
    frames: _Frames, difference: Array, first: tuple[int, int, int] | None, worst: int
) -> list[Picture]:
    """The channels that tell most: of the first difference, of the largest, of the most signal."""
    size = np.abs(difference)
    with np.errstate(all="ignore"):
        energy = np.nan_to_num(frames.expected.astype(np.float64).std(axis=0))  # (others, channels)
    lively = np.lexsort((-energy.max(axis=0), -size.max(axis=(0, 1))))  # differs most, moves most
    told = [*([first[2], worst] if first else []), *map(int, lively[:MAX_WAVES])]
    if first:
        told = [channel for channel in told if size[:, :, channel].any()]
    start = max(0, min((first[0] if first else 0) - MAX_FRAMES // 3, len(size) - MAX_FRAMES))
    window = slice(start, start + MAX_FRAMES)
    found = []
    for channel in list(dict.fromkeys(told))[:MAX_WAVES]:
        of_channel = size[:, :, channel].max(axis=0)
        other = int(np.argmax(of_channel if of_channel.any() else energy[:, channel]))
        if first and channel == first[2]:
            other = first[1]
        found.append(
            {
                "channel": channel,
                "other": other,
                "first_frame": start,
                "expected": pack(_small(frames.expected[window, other, channel])),
                "difference": pack(_small(difference[window, other, channel])),
            }
        )
    return found


def _small(values: Array) -> Array:
    """The same values in a type that the report takes."""
    if values.dtype.kind == "f":
        finite: NDArray[np.float32] = np.nan_to_num(values).astype(np.float32)
        return finite
    narrow = np.abs(values.astype(np.int64)).max() < 128
    return values.astype(np.int8 if narrow else np.int32)


def _histogram(difference: Array) -> Picture | None:
    """How often each difference occurs, but that of equal elements; None where nothing differs."""
    off = difference[difference != 0]
    if not off.size:
        return None
    if off.dtype.kind == "f":
        counts, edges = np.histogram(off, MAX_BINS)
        first, step = float(edges[0]), float(edges[1] - edges[0])
    else:
        first, high = off.min().item(), off.max().item()
        step = -(-(high - first + 1) // MAX_BINS)
        counts = np.bincount((off - first) // step)
    return {"first": first, "step": step, "counts": [*map(int, counts)]}
