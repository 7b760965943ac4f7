"""What the exporter's own execution gave for each tensor of a file. Knows arrays, not operators."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from espdl_hil.espdl import Array

RECORD = "reference.npz"


@dataclass(frozen=True)
class ReferenceRecord:
    """The reference's run of the stimulus through the offline file's network.

    Attributes:
        values: Tensor name to what the reference computed, in the file's type, layout and exponent.
            What the exporter alone has put into the file (a Transpose) is missing.
        rests: Tensor name to what rounding took away, float32, LSB: the real value of an element
            is ``value + rest``, also where the value saturates. Of the operators that a chip
            computes in float32 (see ``steps.py``); others are exact.
        cells: By the first output of an LSTM, its cell state before each frame, int16.
    """

    values: Mapping[str, Array]
    rests: Mapping[str, Array]
    cells: Mapping[str, Array]


def write_record(record: ReferenceRecord, path: Path) -> None:
    """Write a record, compressed."""
    flat = {
        f"{field.name}/{name}": array
        for field in fields(record)
        for name, array in getattr(record, field.name).items()
    }
    np.savez_compressed(path, **flat)


def read_record(path: Path) -> ReferenceRecord:
    """Read what ``write_record`` wrote."""
    groups: dict[str, dict[str, Array]] = {field.name: {} for field in fields(ReferenceRecord)}
    with np.load(path, allow_pickle=False) as file:
        for key in file.files:
            group, _, name = key.partition("/")
            groups[group][name] = file[key]
    return ReferenceRecord(**groups)
