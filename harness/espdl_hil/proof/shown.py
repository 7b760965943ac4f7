"""Does the stimulus show what is carried from chunk to chunk? Computed on the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espdl_hil.compare import TAIL
from espdl_hil.diagnosis.replay import agree
from espdl_hil.streaming.findings import find
from espdl_hil.streaming.rules import NOT_SHOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from espdl_hil.compare import Tensors
    from espdl_hil.diagnosis.replay import HostRun
    from espdl_hil.streaming import Finding, StreamingPlan


def not_shown(
    plan: StreamingPlan, chunks: Sequence[Tensors], stream: Sequence[Tensors], host: HostRun
) -> tuple[Finding, ...]:
    """Find a stream that would be as right if nothing were carried to the next chunk.

    Args:
        plan: How the streaming file relates to the offline one.
        chunks: The inputs of each step.
        stream: The outputs of each step.
        host: Runs the streaming file.

    Returns:
        One finding, or none; a network without state has none.
    """
    reason = _reason(plan, chunks, stream, host) if plan.state_bytes else ""
    return (find(NOT_SHOWN, "", reason),) if reason else ()


def _reason(
    plan: StreamingPlan, chunks: Sequence[Tensors], stream: Sequence[Tensors], host: HostRun
) -> str:
    if len(chunks) == 1:
        return "the stimulus is one chunk, so nothing is carried to another"
    if all(agree(chunks[0], chunk) for chunk in chunks):
        return "the chunks of the stimulus are alike, so it does not matter which comes when"
    ends = [end for end in plan.alignments if not end.state_input]
    if all(end.kind != TAIL and end.offline_frames <= end.warmup_frames for end in ends):
        return (
            f"all frames lie in the warm-up of {plan.warmup_frames} frames, where the stream need "
            "not equal the offline run"
        )
    pairs = zip(chunks, stream, strict=True)
    if all(agree(host.run_cold([chunk])[0], outputs) for chunk, outputs in pairs):
        return "each chunk gives the same from a reset, so what is carried to it does not matter"
    return ""
