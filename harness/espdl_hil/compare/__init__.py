"""Tolerance, alignment and verdict. Knows tensors, not where they come from."""

from espdl_hil.compare.alignment import (
    AlignmentLike,
    cut_offline,
    describe_alignment,
    skipped_frames,
)
from espdl_hil.compare.difference import (
    Array,
    Difference,
    Fidelity,
    FirstDifference,
    NotComparableError,
    compare,
    relative_difference,
)
from espdl_hil.compare.tolerance import EXACT, Tolerance, parse_tolerance
from espdl_hil.compare.verdict import ChunkVerdict, Outcome, StreamVerdict, compare_streams

__all__ = [
    "EXACT",
    "AlignmentLike",
    "Array",
    "ChunkVerdict",
    "Difference",
    "Fidelity",
    "FirstDifference",
    "NotComparableError",
    "Outcome",
    "StreamVerdict",
    "Tolerance",
    "compare",
    "compare_streams",
    "cut_offline",
    "describe_alignment",
    "parse_tolerance",
    "relative_difference",
    "skipped_frames",
]
