"""Inverted residual whose hidden channels are gated frame by frame (squeeze and excite)."""

from __future__ import annotations

from typing import Any

from espdl_hil import StreamingModel

CHANNELS = 16
HIDDEN = 32
SQUEEZED = HIDDEN // 4


def build() -> Any:
    """Return the network."""
    from _blocks import CausalConv1d, settle
    from torch import Tensor, nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv1d(CHANNELS, CHANNELS, 1)
            self.spread = nn.Sequential(
                nn.Conv1d(CHANNELS, HIDDEN, 1),
                nn.SiLU(),
                CausalConv1d(HIDDEN, HIDDEN, 3, groups=HIDDEN),
                nn.SiLU(),
            )
            self.gate = nn.Sequential(
                nn.Conv1d(HIDDEN, SQUEEZED, 1),
                nn.SiLU(),
                nn.Conv1d(SQUEEZED, HIDDEN, 1),
                nn.Sigmoid(),
            )
            self.project = nn.Conv1d(HIDDEN, CHANNELS, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            hidden = self.spread(x)
            return x + self.project(hidden * self.gate(hidden))

    return settle(Network())


MODEL = StreamingModel(
    name="inverted_residual_se",
    build=build,
    input_shape=(1, CHANNELS, 24),
    frame_axis=2,
    chunk_frames=(3, 8),
    bits=(8, 16),
)
