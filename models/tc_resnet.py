"""TC-ResNet: frequency bins as channels, long 1-D kernels, residual blocks of stride 2."""

from __future__ import annotations

import itertools
from typing import Any

from espdl_hil import StreamingModel

BINS = 20
CHANNELS = (16, 24, 24, 32)
KERNEL = 9
WORDS = 12


def build() -> Any:
    """Return the network: a word score for every eighth frame."""
    from _blocks import CausalConv1d, causal_average, settle
    from torch import Tensor, nn

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                CausalConv1d(inputs, outputs, KERNEL, stride=2),
                nn.BatchNorm1d(outputs),
                nn.ReLU(),
                CausalConv1d(outputs, outputs, KERNEL),
                nn.BatchNorm1d(outputs),
            )
            self.shortcut = nn.Sequential(
                nn.Conv1d(inputs, outputs, 1, stride=2), nn.BatchNorm1d(outputs), nn.ReLU()
            )
            self.activation = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.activation(self.body(x) + self.shortcut(x))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = CausalConv1d(BINS, CHANNELS[0], 3)
            self.blocks = nn.Sequential(*(Block(a, b) for a, b in itertools.pairwise(CHANNELS)))
            self.classify = nn.Conv1d(CHANNELS[-1], WORDS, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.classify(causal_average(self.blocks(self.stem(x)), 2))

    return settle(Network())


MODEL = StreamingModel(
    name="tc_resnet",
    build=build,
    input_shape=(1, BINS, 48),
    frame_axis=2,
    chunk_frames=(8, 16),
    bits=(8, 16),
)
