"""Depthwise-separable 2-D CNN for keyword spotting; time on the height, frequency on the width."""

from __future__ import annotations

from typing import Any

from espdl_hil import StreamingModel

FRAMES = 24
BINS = 10
CHANNELS = 24
WORDS = 12
WINDOW = 6  # frames that the classifier averages


def build() -> Any:
    """Return the network: a word score for every second frame."""
    import torch.nn.functional as F  # noqa: N812 - torch's own habit
    from _blocks import CausalConv2d, settle
    from torch import Tensor, nn

    def separable() -> nn.Module:
        return nn.Sequential(
            CausalConv2d(CHANNELS, CHANNELS, (3, 3), groups=CHANNELS),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU(),
            nn.Conv2d(CHANNELS, CHANNELS, 1),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU(),
        )

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(
                CausalConv2d(1, CHANNELS, (4, 3), stride=(2, 2)),
                nn.BatchNorm2d(CHANNELS),
                nn.ReLU(),
            )
            self.blocks = nn.Sequential(separable(), separable())
            self.classify = nn.Conv2d(CHANNELS, WORDS, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.blocks(self.stem(x))
            x = F.avg_pool2d(F.pad(x, (0, 0, WINDOW - 1, 0)), (WINDOW, BINS // 2), stride=1)
            return self.classify(x)

    return settle(Network())


MODEL = StreamingModel(
    name="ds_cnn",
    build=build,
    input_shape=(1, 1, FRAMES, BINS),
    frame_axis=2,
    chunk_frames=(2, 6),
    bits=(8, 16),
)
