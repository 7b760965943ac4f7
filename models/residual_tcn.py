"""Dilated residual stack that keeps its length: one frame out for each frame in."""

from __future__ import annotations

from typing import Any

from espdl_hil import StreamingModel

CHANNELS = 16
DILATIONS = (1, 2, 4)


def build() -> Any:
    """Return the network."""
    from _blocks import CausalConv1d, settle
    from torch import Tensor, nn

    class Block(nn.Module):
        def __init__(self, dilation: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                CausalConv1d(CHANNELS, CHANNELS, 3, dilation=dilation),
                nn.BatchNorm1d(CHANNELS),
                nn.ReLU(),
                CausalConv1d(CHANNELS, CHANNELS, 3, dilation=dilation),
                nn.BatchNorm1d(CHANNELS),
            )
            self.activation = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.activation(x + self.body(x))

    return settle(
        nn.Sequential(
            nn.Conv1d(8, CHANNELS, 1),
            *(Block(dilation) for dilation in DILATIONS),
            nn.Conv1d(CHANNELS, 8, 1),
        )
    )


MODEL = StreamingModel(
    name="residual_tcn",
    build=build,
    input_shape=(1, 8, 24),
    frame_axis=2,
    chunk_frames=(1, 4),
    bits=(8, 16),
)
