"""Speech enhancement: strided encoder, ConvTranspose decoder, skips, and a mask on the input."""

from __future__ import annotations

from typing import Any

from espdl_hil import StreamingModel

BINS = 16


def build() -> Any:
    """Return the network; its output has the input's shape."""
    from _blocks import CausalConv1d, settle
    from torch import Tensor, nn

    class Up(nn.Module):
        """Doubles the frames; of the overlap, what lies in the future is cut off."""

        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.conv = nn.ConvTranspose1d(inputs, outputs, 4, stride=2)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)[:, :, :-2]

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv1d(BINS, 16, 1)
            self.down1 = CausalConv1d(16, 24, 4, stride=2)
            self.down2 = CausalConv1d(24, 32, 4, stride=2)
            self.middle = CausalConv1d(32, 32, 3)
            self.up2 = Up(32, 24)
            self.up1 = Up(24, 16)
            self.mask = nn.Conv1d(16, 16, 1)
            self.head = nn.Conv1d(16, BINS, 1)
            self.relu, self.sigmoid = nn.ReLU(), nn.Sigmoid()

        def forward(self, x: Tensor) -> Tensor:
            x0 = self.stem(x)
            x1 = self.relu(self.down1(x0))
            x2 = self.relu(self.down2(x1))
            y2 = self.relu(self.middle(x2))
            y1 = self.relu(self.up2(y2) + x1)
            y0 = self.relu(self.up1(y1) + x0)
            return self.head(x0 * self.sigmoid(self.mask(y0)))

    return settle(Network())


MODEL = StreamingModel(
    name="speech_unet",
    build=build,
    input_shape=(1, BINS, 32),
    frame_axis=2,
    chunk_frames=(4, 8),
    bits=(8, 16),
)
