"""SVDF-like keyword spotter: rank-1 filters, first over features, then over a memory in time."""

from __future__ import annotations

from typing import Any

from espdl_hil import StreamingModel

FEATURES = 16
UNITS = 16
RANK = 2
MEMORY = 8  # frames
WORDS = 4


def build() -> Any:
    """Return the network."""
    from _blocks import CausalConv1d, settle
    from torch import nn

    def layer(inputs: int) -> list[nn.Module]:
        filters = UNITS * RANK
        return [
            nn.Conv1d(inputs, filters, 1, bias=False),  # over the features
            CausalConv1d(filters, filters, MEMORY, groups=filters),  # over the memory
            nn.Conv1d(filters, UNITS, 1),  # adds up the ranks
            nn.ReLU(),
        ]

    return settle(nn.Sequential(*layer(FEATURES), *layer(UNITS), nn.Conv1d(UNITS, WORDS, 1)))


MODEL = StreamingModel(
    name="svdf",
    build=build,
    input_shape=(1, FEATURES, 24),
    frame_axis=2,
    chunk_frames=(1, 3),
    bits=(8, 16),
)
