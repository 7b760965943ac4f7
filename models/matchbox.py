"""MatchboxNet-like: separable convolutions of growing kernel, a pointwise residual a block."""

from __future__ import annotations

from typing import Any

from espdl_hil import StreamingModel

BINS = 20
CHANNELS = 24
WORDS = 12


def build() -> Any:
    """Return the network: a word score for each frame."""
    from _blocks import CausalConv1d, settle
    from torch import Tensor, nn

    def separable(kernel: int, dilation: int = 1) -> list[nn.Module]:
        return [
            CausalConv1d(CHANNELS, CHANNELS, kernel, dilation=dilation, groups=CHANNELS),
            nn.Conv1d(CHANNELS, CHANNELS, 1),
            nn.BatchNorm1d(CHANNELS),
        ]

    class Block(nn.Module):
        def __init__(self, kernel: int) -> None:
            super().__init__()
            self.body = nn.Sequential(*separable(kernel), nn.ReLU(), *separable(kernel))
            self.residual = nn.Sequential(
                nn.Conv1d(CHANNELS, CHANNELS, 1), nn.BatchNorm1d(CHANNELS)
            )
            self.activation = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.activation(self.body(x) + self.residual(x))

    return settle(
        nn.Sequential(
            CausalConv1d(BINS, BINS, 5, groups=BINS),
            nn.Conv1d(BINS, CHANNELS, 1),
            nn.BatchNorm1d(CHANNELS),
            nn.ReLU(),
            Block(5),
            Block(7),
            *separable(5, dilation=2),
            nn.ReLU(),
            nn.Conv1d(CHANNELS, WORDS, 1),
        )
    )


MODEL = StreamingModel(
    name="matchbox",
    build=build,
    input_shape=(1, BINS, 32),
    frame_axis=2,
    chunk_frames=(4, 8),
    bits=(8, 16),
)
