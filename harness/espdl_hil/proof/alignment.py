"""Which offline elements a chunk is compared with. Knows a plan's figures, not how it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.diagnosis.cause import counted
from espdl_hil.errors import HarnessError

if TYPE_CHECKING:
    from espdl_hil.compare import Array
    from espdl_hil.streaming import Alignment

TAIL = "tail"


def cut_offline(offline: Array, alignment: Alignment, chunks: int) -> list[Array]:
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


def describe_alignment(alignment: Alignment) -> str:
    """Say in one line what each chunk is compared with."""
    per_chunk = f"{alignment.output}: {counted(alignment.out_frames_per_chunk, 'frame')} a chunk"
    if alignment.kind == TAIL:
        return f"{per_chunk}, the last of the offline run of the prefix"
    parts = [per_chunk]
    if alignment.latency_frames:
        parts.append(f"{counted(alignment.latency_frames, 'frame')} late")
    if alignment.warmup_frames:
        parts.append(f"{counted(alignment.warmup_frames, 'frame')} of warm-up")
    return ", ".join(parts) + ", against one offline run"
