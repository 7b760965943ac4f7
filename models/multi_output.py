"""One trunk, three heads: a mask each frame, a voice flag each frame, a word every fourth."""

from __future__ import annotations

from typing import Any

from espdl_hil import StreamingModel

BINS = 12
CHANNELS = 16
WORDS = 6


def build() -> Any:
    """Return the network."""
    from _blocks import CausalConv1d, settle
    from torch import Tensor, nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Sequential(
                CausalConv1d(BINS, CHANNELS, 3),
                nn.BatchNorm1d(CHANNELS),
                nn.ReLU(),
                CausalConv1d(CHANNELS, CHANNELS, 3, dilation=2),
                nn.ReLU(),
            )
            self.mask = nn.Sequential(nn.Conv1d(CHANNELS, BINS, 1), nn.Sigmoid())
            self.voice = CausalConv1d(CHANNELS, 1, 4)
            self.word = nn.Sequential(
                CausalConv1d(CHANNELS, CHANNELS, 4, stride=4),
                nn.ReLU(),
                nn.Conv1d(CHANNELS, WORDS, 1),
            )

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            x = self.trunk(x)
            return self.mask(x), self.voice(x), self.word(x)

    return settle(Network())


MODEL = StreamingModel(
    name="multi_output",
    build=build,
    input_shape=(1, BINS, 24),
    frame_axis=2,
    outputs=("mask", "voice", "word"),
    chunk_frames=(4, 8),
    bits=(8, 16),
)
