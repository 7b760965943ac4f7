"""Tolerance, alignment, verdict and diagnosis. Knows tensors, not where they come from."""

from harness.compare.alignment import (
    AlignmentLike,
    cut_offline,
    describe_alignment,
    skipped_frames,
)
from harness.compare.diagnose import diagnose
from harness.compare.diagnosis import Cause, Diagnosis
from harness.compare.difference import (
    Difference,
    Fidelity,
    FirstDifference,
    NotComparableError,
    Tensor,
    compare,
)
from harness.compare.tolerance import EXACT, Tolerance, parse_tolerance
from harness.compare.verdict import ChunkVerdict, Outcome, StreamVerdict, judge

__all__ = [
    "EXACT",
    "AlignmentLike",
    "Cause",
    "ChunkVerdict",
    "Diagnosis",
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
    "diagnose",
    "judge",
    "parse_tolerance",
    "skipped_frames",
]
