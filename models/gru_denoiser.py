"""GRU denoiser: a mask from a recurrent layer whose state goes in and out of the graph.

Trained by ``_train.py`` on synthesized speech in noise.
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
HIDDEN = 16


def build() -> Any:
    """Return the network."""
    from _blocks import trained
    from torch import Tensor, nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(BINS, HIDDEN)
            self.gru = nn.GRU(HIDDEN, HIDDEN, batch_first=True)
            self.mask = nn.Linear(HIDDEN, BINS)
            self.sigmoid = nn.Sigmoid()

        def forward(self, x: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
            y, hn = self.gru(self.embed(x), h0)
            return self.sigmoid(self.mask(y)), hn

    return trained(Network(), __file__)


def stimulus(random: np.random.Generator) -> Any:
    """Return log mel bands of speech in noise."""
    from _signals import noisy_speech

    return {"x": noisy_speech(random, FRAMES)[0].T[None]}


def metric(outputs: Mapping[str, NDArray[np.float64]], random: np.random.Generator) -> float:
    """Return by how many dB the masked bands are nearer to the clean ones than the noisy are."""
    from _signals import improvement_db, noisy_speech

    _, mixed, clean = noisy_speech(random, FRAMES)
    return improvement_db(outputs["mask"][0].T * mixed, mixed, clean)


MODEL = StreamingModel(
    name="gru_denoiser",
    build=build,
    input_shape={"x": (1, FRAMES, BINS), "h0": (1, 1, HIDDEN)},
    frame_axis={"x": 1},
    outputs=("mask", "hn"),
    state={"h0": "hn"},
    chunk_frames=(1, 4),
    bits=(8, 16),
    stimulus=stimulus,
    metric=metric,
)
