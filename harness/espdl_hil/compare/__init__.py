"""Tolerance, alignment and verdict. Knows tensors, not where they come from."""

from espdl_hil.compare.alignment import TAIL, cut_offline, describe_alignment
from espdl_hil.compare.difference import (
    Array,
    Difference,
    Fidelity,
    FirstDifference,
    NotComparableError,
    Tensors,
    compare,
    relative_difference,
)
from espdl_hil.compare.tolerance import EXACT, Tolerance, parse_tolerance
from espdl_hil.compare.verdict import ChunkVerdict, Outcome, StreamVerdict, compare_streams

__all__ = [
    "EXACT",
    "TAIL",
    "Array",
    "ChunkVerdict",
    "Difference",
    "Fidelity",
    "FirstDifference",
    "NotComparableError",
    "Outcome",
    "StreamVerdict",
    "Tensors",
    "Tolerance",
    "compare",
    "compare_streams",
    "cut_offline",
    "describe_alignment",
    "parse_tolerance",
    "relative_difference",
]
