"""BC-ResNet-like: a frequency path in 2-D, a temporal path in 1-D, broadcast back and added."""

from __future__ import annotations

from typing import Any

from espdl_hil import StreamingModel

FRAMES = 24
BINS = 8
CHANNELS = 16
WORDS = 12


def build() -> Any:
    """Return the network: a word score for each frame."""
    import torch.nn.functional as F  # noqa: N812 - torch's own habit
    from _blocks import CausalConv2d, settle
    from torch import Tensor, nn

    class Block(nn.Module):
        def __init__(self, dilation: int) -> None:
            super().__init__()
            self.frequency = nn.Sequential(
                CausalConv2d(CHANNELS, CHANNELS, (1, 3), groups=CHANNELS),
                nn.BatchNorm2d(CHANNELS),
            )
            self.time = nn.Sequential(
                CausalConv2d(CHANNELS, CHANNELS, (3, 1), dilation=dilation, groups=CHANNELS),
                nn.BatchNorm2d(CHANNELS),
                nn.SiLU(),
                nn.Conv2d(CHANNELS, CHANNELS, 1),
            )
            self.activation = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            wide = self.frequency(x)
            narrow = self.time(F.avg_pool2d(wide, (1, BINS)))
            return self.activation(x + wide + narrow)  # narrow is broadcast over the bins

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(
                CausalConv2d(1, CHANNELS, (3, 3)), nn.BatchNorm2d(CHANNELS), nn.ReLU()
            )
            self.blocks = nn.Sequential(Block(1), Block(2))
            self.squeeze = nn.Conv2d(CHANNELS, CHANNELS, (1, BINS), groups=CHANNELS)
            self.classify = nn.Conv2d(CHANNELS, WORDS, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.classify(self.squeeze(self.blocks(self.stem(x))))

    return settle(Network())


MODEL = StreamingModel(
    name="bc_resnet",
    build=build,
    input_shape=(1, 1, FRAMES, BINS),
    frame_axis=2,
    chunk_frames=(2, 6),
    bits=(8, 16),
)
