"""GRU denoiser: a mask from a recurrent layer whose state goes in and out of the graph."""

from __future__ import annotations

from typing import Any

from espdl_hil import StreamingModel

BINS = 16
HIDDEN = 16


def build() -> Any:
    """Return the network."""
    from _blocks import settle
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

    return settle(Network())


MODEL = StreamingModel(
    name="gru_denoiser",
    build=build,
    input_shape={"x": (1, 24, BINS), "h0": (1, 1, HIDDEN)},
    frame_axis={"x": 1},
    outputs=("mask", "hn"),
    state={"h0": "hn"},
    chunk_frames=(1, 4),
    bits=(8, 16),
)
