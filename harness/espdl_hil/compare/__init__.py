"""Tolerance, alignment and verdict. Knows tensors, not where they come from."""

from espdl_hil.compare.alignment import (
    AlignmentLike,
    cut_offline,
    describe_alignment,
    skipped_frames,
)
from espdl_hil.compare.difference import (
    Difference,
    Fidelity,
    FirstDifference,
    NotComparableError,
    Tensor,
    compare,
)
from espdl_hil.compare.tolerance import EXACT, Tolerance, parse_tolerance
from espdl_hil.compare.verdict import ChunkVerdict, Outcome, StreamVerdict, judge

__all__ = [
    "EXACT",
    "AlignmentLike",
    "ChunkVerdict",
    "Difference",
    "Fidelity",
    "FirstDifference",
    "NotComparableError",
    "Outcome",
    "StreamVerdict",
    "Tensor",
    "Tolerance",
    "compare",
    "cut_offline",
    "describe_alignment",
    "judge",
    "parse_tolerance",
    "skipped_frames",
]
