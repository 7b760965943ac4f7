"""ConvNeXt-like block: causal depthwise, LayerNorm over the channels, two linear layers."""

from __future__ import annotations

from typing import Any

from espdl_hil import StreamingModel

CHANNELS = 16


def build() -> Any:
    """Return the network."""
    from _blocks import CausalConv1d, settle
    from torch import Tensor, nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv1d(8, CHANNELS, 1)
            self.depthwise = CausalConv1d(CHANNELS, CHANNELS, 5, groups=CHANNELS)
            self.norm = nn.LayerNorm(CHANNELS)
            self.expand = nn.Linear(CHANNELS, 2 * CHANNELS)
            self.reduce = nn.Linear(2 * CHANNELS, CHANNELS)
            self.activation = nn.SiLU()

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            y = self.norm(self.depthwise(x).transpose(1, 2))  # frame by frame
            y = self.reduce(self.activation(self.expand(y)))
            return x + y.transpose(1, 2)

    return settle(Network())


MODEL = StreamingModel(
    name="layer_norm",
    build=build,
    input_shape=(1, 8, 24),
    frame_axis=2,
    chunk_frames=(2, 6),
    bits=(8, 16),
)
