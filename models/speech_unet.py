"""Speech enhancement: strided encoder, ConvTranspose decoder, skips, and a mask on the input.

Trained by ``_train.py`` on synthesized speech in noise: log bands in, those of the speech out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from espdl_hil import StreamingModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

FRAMES = 96
BINS = 16


def build() -> Any:
    """Return the network; its output has the input's shape."""
    from _blocks import CausalConv1d, trained
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

    return trained(Network(), __file__)


def stimulus(random: np.random.Generator) -> Any:
    """Return log mel bands of speech in noise."""
    from _signals import noisy_speech

    return noisy_speech(random, FRAMES)[0][None]


def metric(outputs: Mapping[str, NDArray[np.float64]], random: np.random.Generator) -> float:
    """Return by how many dB the output is nearer to the speech than the input is."""
    from _signals import improvement_db, noisy_speech

    return improvement_db(outputs["output"][0], *noisy_speech(random, FRAMES))


MODEL = StreamingModel(
    name="speech_unet",
    build=build,
    input_shape=(1, BINS, FRAMES),
    frame_axis=2,
    chunk_frames=(4, 8),
    bits=(8, 16),
    stimulus=stimulus,
    metric=metric,
)
