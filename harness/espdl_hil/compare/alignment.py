"""Which offline elements a chunk is compared with. Knows a plan's figures, not the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from espdl_hil.errors import HarnessError

if TYPE_CHECKING:
    from espdl_hil.compare.difference import Array


class AlignmentLike(Protocol):
    """What a streaming plan says of one output; any object with these fields will do.

    Attributes:
        output: Name of the graph output.
        kind: ``tail`` if each chunk is compared with the offline run of its prefix; every other
            kind is compared with a slice of one offline run.
        frame_axis: The time axis in the file's layout.
        out_frames_per_chunk: Frames that each chunk yields.
        latency_frames: Output frames by which the stream lags the offline model.
        warmup_frames: Leading offline frames that a cold cache may change.
    """

    @property
    def output(self) -> str: ...  # noqa: D102 - the class docstring says it
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def frame_axis(self) -> int: ...  # noqa: D102
    @property
    def out_frames_per_chunk(self) -> int: ...  # noqa: D102
    @property
    def latency_frames(self) -> int: ...  # noqa: D102
    @property
    def warmup_frames(self) -> int: ...  # noqa: D102


TAIL = "tail"


def cut_offline(offline: Array, alignment: AlignmentLike, chunks: int) -> list[Array]:
    """Cut an offline output into what each chunk should yield.

    ::

        offline      a b c d e f          latency 1, 2 frames a chunk
        stream       0 a | b c | d e      the leading 0 is not compared

    Args:
        offline: Output of the offline model over the whole stimulus.
        alignment: How the stream's output lies against it; not of kind ``tail``.
        chunks: Chunks of the stream.

    Returns:
        One tensor a chunk. The first ``latency_frames`` frames of the stream are zero: they
        have no counterpart.

    Raises:
        HarnessError: the offline output is too short for that many chunks.
    """
    axis, per_chunk = alignment.frame_axis, alignment.out_frames_per_chunk
    needed = chunks * per_chunk - alignment.latency_frames
    if offline.shape[axis] < needed:
        raise HarnessError(
            f"output {alignment.output}: {chunks} chunks of {per_chunk} frames need {needed} "
            f"offline frames, the offline model gives {offline.shape[axis]}"
        )
    lead = list(offline.shape)
    lead[axis] = alignment.latency_frames
    stream = np.concatenate([np.zeros(lead, offline.dtype), offline], axis=axis)
    ends = range(per_chunk, chunks * per_chunk + 1, per_chunk)
    return np.split(stream, list(ends), axis=axis)[:chunks]


def describe_alignment(alignment: AlignmentLike) -> str:
    """Say in one line what each chunk is compared with."""
    per_chunk = f"{alignment.output}: {_frames(alignment.out_frames_per_chunk)} a chunk"
    if alignment.kind == TAIL:
        return f"{per_chunk}, the last of the offline run of the prefix"
    parts = [per_chunk]
    if alignment.latency_frames:
        parts.append(f"{_frames(alignment.latency_frames)} late")
    if alignment.warmup_frames:
        parts.append(f"{_frames(alignment.warmup_frames)} of warm-up")
    return ", ".join(parts) + ", against one offline run"


def _frames(count: int) -> str:
    return f"{count} frame" if count == 1 else f"{count} frames"
