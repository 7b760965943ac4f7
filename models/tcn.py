"""Temporal convolutional network with a head on the last frames, as ESP-DL's tutorial has it."""

from __future__ import annotations

from typing import Any

from espdl_hil import StreamingModel

CHANNELS = 16
HIDDEN = 32
KERNEL = 3
DILATIONS = (1, 2, 1)
HEAD_FRAMES = 3


def build() -> Any:
    """Return the network: three separable blocks inside one residual, then pool and head."""
    from _blocks import CausalConv1d, causal_average, settle
    from torch import Tensor, nn

    def block(dilation: int) -> nn.Module:
        return nn.Sequential(
            CausalConv1d(HIDDEN, HIDDEN, KERNEL, dilation=dilation, groups=HIDDEN),
            nn.ReLU(),
            nn.Conv1d(HIDDEN, HIDDEN, 1),
            nn.BatchNorm1d(HIDDEN),
            nn.ReLU(),
            nn.SiLU(),
        )

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.expand = nn.Conv1d(CHANNELS, HIDDEN, 1)
            self.blocks = nn.Sequential(*(block(dilation) for dilation in DILATIONS))
            self.reduce = nn.Conv1d(HIDDEN, CHANNELS, 1)
            self.head = nn.Linear(CHANNELS * HEAD_FRAMES, CHANNELS)

        def forward(self, x: Tensor) -> Tensor:
            x = self.expand(x)
            x = causal_average(x + self.blocks(x), KERNEL)
            x = self.reduce(x)[:, :, -HEAD_FRAMES:]
            return self.head(x.flatten(1))

    return settle(Network())


MODEL = StreamingModel(
    name="tcn",
    build=build,
    input_shape=(1, CHANNELS, 24),
    frame_axis=2,
    chunk_frames=(3, 6),
    bits=(8, 16),
)
