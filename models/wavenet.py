"""WaveNet-like stack: gated dilated convolutions, residual and skip paths."""

from __future__ import annotations

from typing import Any

from espdl_hil import StreamingModel

BANDS = 8
CHANNELS = 16
SKIPS = 24
DILATIONS = (1, 2, 4, 8)


def build() -> Any:
    """Return the network."""
    from _blocks import CausalConv1d, settle
    from torch import Tensor, nn

    class Layer(nn.Module):
        def __init__(self, dilation: int) -> None:
            super().__init__()
            self.filter = CausalConv1d(CHANNELS, CHANNELS, 2, dilation=dilation)
            self.gate = CausalConv1d(CHANNELS, CHANNELS, 2, dilation=dilation)
            self.skip = nn.Conv1d(CHANNELS, SKIPS, 1)
            self.residual = nn.Conv1d(CHANNELS, CHANNELS, 1)
            self.tanh, self.sigmoid = nn.Tanh(), nn.Sigmoid()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            gated = self.tanh(self.filter(x)) * self.sigmoid(self.gate(x))
            return x + self.residual(gated), self.skip(gated)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv1d(BANDS, CHANNELS, 1)
            self.layers = nn.ModuleList(Layer(dilation) for dilation in DILATIONS)
            self.head = nn.Sequential(
                nn.ReLU(), nn.Conv1d(SKIPS, SKIPS, 1), nn.ReLU(), nn.Conv1d(SKIPS, BANDS, 1)
            )

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x, total = self.layers[0](x)
            for layer in self.layers[1:-1]:
                x, skip = layer(x)
                total = total + skip
            return self.head(total + self.layers[-1](x)[1])

    return settle(Network())


MODEL = StreamingModel(
    name="wavenet",
    build=build,
    input_shape=(1, BANDS, 32),
    frame_axis=2,
    chunk_frames=(2, 8),
    bits=(8, 16),
)
