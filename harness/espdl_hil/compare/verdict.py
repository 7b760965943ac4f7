"""The verdict on a stream: every chunk compared, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from espdl_hil.compare.difference import (
    Difference,
    FirstDifference,
    NotComparableError,
    compare,
    require_alike,
    summarize,
)
from espdl_hil.compare.tolerance import EXACT, Tolerance

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from espdl_hil.compare.difference import Array, Tensors

_Number = TypeVar("_Number", int, float)


class Outcome(StrEnum):
    """What became of a row: the numbers differ, or they could not be had, or all is well."""

    PASSED = "passed"
    DEVIATES = "deviates"  # of a row: every node that differs is known of the emulator
    FAILED = "failed"
    ERROR = "error"


@dataclass(frozen=True)
class ChunkVerdict:
    """The comparison of one chunk, over all outputs.

    Attributes:
        chunk: Number of the chunk, from 0.
        frames: Output frames compared, of the output that has most.
        elements: Elements compared.
        differing: Elements that are not the same.
        max_lsb: Largest difference in steps; None if only float outputs were compared.
        outcome: ``error`` if something was to be compared and could not be.
        error: Why it could not be; empty otherwise.
    """

    chunk: int
    frames: int
    elements: int
    differing: int
    max_lsb: int | None
    outcome: Outcome
    error: str = ""


@dataclass(frozen=True)
class StreamVerdict:
    """The comparison of a whole stream.

    Attributes:
        chunks: One verdict a chunk, in order.
        frames: Output frames compared.
        elements: Elements compared.
        differing: Elements that are not the same.
        max_lsb: Largest difference in steps; None if only float outputs were compared.
        max_relative: Largest relative difference of float outputs; None without any.
        first: The first element out of tolerance, else the first that differs.
        skipped_frames: Leading frames without a counterpart, of the output that has most.
    """

    chunks: tuple[ChunkVerdict, ...]
    frames: int
    elements: int
    differing: int
    max_lsb: int | None
    max_relative: float | None
    first: FirstDifference | None
    skipped_frames: int = 0

    @property
    def outcome(self) -> Outcome:
        """``passed`` only if all that had to be compared was, and there was something."""
        outcomes = {chunk.outcome for chunk in self.chunks}
        if Outcome.FAILED in outcomes:
            return Outcome.FAILED
        if Outcome.ERROR in outcomes or not self.elements:
            return Outcome.ERROR
        return Outcome.PASSED

    @property
    def errors(self) -> tuple[str, ...]:
        """What could not be compared, and why."""
        found = tuple(chunk.error for chunk in self.chunks if chunk.error)
        return found if found or self.elements else ("not compared: no elements",)

    def __str__(self) -> str:
        text = summarize(self.elements, self.differing, self.max_lsb, self.max_relative, self.first)
        if self.first is not None and len(self.chunks) > 1:
            text += f" (chunk {self.first.chunk} of {len(self.chunks)})"
        return "; ".join([text, *self.errors]) if self.elements else "; ".join(self.errors)


def compare_streams(
    expected: Sequence[Tensors],
    observed: Sequence[Tensors],
    tolerance: Tolerance = EXACT,
    *,
    frame_axes: Mapping[str, int | None],
    skip_frames: Mapping[str, int] | None = None,
    silent_chunks: Collection[int] = (),
    rooms: Sequence[Tensors] = (),
) -> StreamVerdict:
    """Compare a stream chunk by chunk.

    Args:
        expected: For each chunk, what every graph output should be, in the file's layout.
        observed: For each chunk, what the device gave.
        tolerance: What counts as equal.
        frame_axes: The time axis of every output that is to be compared; None if it has none.
        skip_frames: Leading stream frames of an output that have no counterpart: its latency,
            and its warm-up unless *expected* holds the predicted values there.
        silent_chunks: Chunks that lie wholly in skipped frames by design. Any other chunk
            without a compared element is an error: nothing passes unseen.
        rooms: For each chunk, by output, what single elements are allowed beside *tolerance*; see
            ``compare``. Only where no frame is skipped.

    Returns:
        The verdict. What cannot be compared (a missing chunk or output, another shape or type)
        makes its chunk an ``error`` and leaves the others judged.
    """
    skip = dict(skip_frames or {})
    frames_seen = dict.fromkeys(frame_axes, 0)
    rows: list[ChunkVerdict] = []
    found: list[Difference] = []
    for chunk in range(max(len(expected), len(observed))):
        of_chunk: list[Difference] = []
        errors: list[str] = []
        frames = 0
        for name, axis in frame_axes.items():
            try:
                pair = _pick(expected, observed, chunk, name)
            except NotComparableError as error:
                errors.append(error.message)
                continue
            length = _frames(pair[0], axis)
            drop = min(max(skip.get(name, 0) - frames_seen[name], 0), length)
            difference = compare(
                _drop(pair[0], axis, drop),
                _drop(pair[1], axis, drop),
                tolerance,
                frame_axis=axis,
                chunk=chunk,
                first_frame=frames_seen[name] + drop,
                output=name if len(frame_axes) > 1 else "",
                room=rooms[chunk].get(name) if rooms else None,
            )
            frames_seen[name] += length
            frames = max(frames, length - drop)
            of_chunk.append(difference)
        if not any(d.compared for d in of_chunk) and not errors and chunk not in silent_chunks:
            errors.append(f"chunk {chunk}: not compared: no elements")
        rows.append(_close_chunk(chunk, frames, of_chunk, errors))
        found += of_chunk
    return StreamVerdict(
        chunks=tuple(rows),
        frames=sum(row.frames for row in rows),
        elements=sum(row.elements for row in rows),
        differing=sum(row.differing for row in rows),
        max_lsb=_largest(d.max_lsb for d in found),
        max_relative=_largest(d.max_relative for d in found),
        first=_first(found),
        skipped_frames=max(skip.values(), default=0),
    )


def _pick(
    expected: Sequence[Tensors], observed: Sequence[Tensors], chunk: int, name: str
) -> tuple[Array, Array]:
    pair = []
    for side, chunks in (("expected", expected), ("observed", observed)):
        if chunk >= len(chunks):
            raise NotComparableError(f"chunk {chunk}: {side} stream ends after {len(chunks)}")
        if name not in chunks[chunk]:
            raise NotComparableError(f"chunk {chunk}: {side} has no output {name}")
        pair.append(chunks[chunk][name])
    require_alike(pair[0], pair[1], f"chunk {chunk} of {name}")
    return pair[0], pair[1]


def _frames(tensor: Array, axis: int | None) -> int:
    return 1 if axis is None else int(tensor.shape[axis])


def _drop(tensor: Array, axis: int | None, frames: int) -> Array:
    """*tensor* without its leading frames; a tensor without a time axis is one frame."""
    if axis is None:
        return tensor.reshape(-1)[:0] if frames else tensor
    return tensor[(slice(None),) * (axis % tensor.ndim) + (slice(frames, None),)]


def _close_chunk(
    chunk: int, frames: int, found: Sequence[Difference], errors: Sequence[str]
) -> ChunkVerdict:
    outcome = Outcome.ERROR if errors else Outcome.PASSED
    if any(d.beyond for d in found):
        outcome = Outcome.FAILED
    return ChunkVerdict(
        chunk=chunk,
        frames=frames,
        elements=sum(d.elements for d in found),
        differing=sum(d.differing for d in found),
        max_lsb=_largest(d.max_lsb for d in found),
        outcome=outcome,
        error="; ".join(errors),
    )


def _first(found: Sequence[Difference]) -> FirstDifference | None:
    """The first difference out of tolerance, else the first at all."""
    beyond = (d.first for d in found if d.beyond)
    return next(beyond, None) or next((d.first for d in found if d.first), None)


def _largest(values: Iterable[_Number | None]) -> _Number | None:
    return max((value for value in values if value is not None), default=None)
