"""Tolerance and verdict. Knows tensors, not where they come from."""

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
    "parse_tolerance",
    "relative_difference",
]
