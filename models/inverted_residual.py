"""Inverted residual: expand, causal depthwise, project, and the input added at the end."""

from __future__ import annotations

from typing import Any

from espdl_hil import StreamingModel

CHANNELS = 16
HIDDEN = 32


def build() -> Any:
    """Return the network."""
    from _blocks import CausalConv1d, settle
    from torch import Tensor, nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv1d(CHANNELS, CHANNELS, 1)
            self.body = nn.Sequential(
                nn.Conv1d(CHANNELS, HIDDEN, 1),
                nn.SiLU(),
                CausalConv1d(HIDDEN, HIDDEN, 3, dilation=2, groups=HIDDEN),
                nn.SiLU(),
                nn.Conv1d(HIDDEN, CHANNELS, 1),
            )

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return x + self.body(x)

    return settle(Network())


MODEL = StreamingModel(
    name="inverted_residual",
    build=build,
    input_shape=(1, CHANNELS, 24),
    frame_axis=2,
    chunk_frames=(3, 4),
    bits=(8, 16),
)
