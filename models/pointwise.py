"""Two pointwise layers: no context in time, hence no cache at all."""

from __future__ import annotations

from typing import Any

from espdl_hil import StreamingModel


def build() -> Any:
    """Return the network."""
    from _blocks import settle
    from torch import nn

    return settle(nn.Sequential(nn.Conv1d(16, 32, 1), nn.ReLU(), nn.Conv1d(32, 16, 1)))


MODEL = StreamingModel(
    name="pointwise",
    build=build,
    input_shape=(1, 16, 24),
    frame_axis=2,
    chunk_frames=(1, 3),
    bits=(8, 16),
)
