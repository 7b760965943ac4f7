"""LSTM tagger: hidden and cell state go in and out of the graph."""

from __future__ import annotations

from typing import Any

from espdl_hil import StreamingModel

FEATURES = 12
HIDDEN = 16
TAGS = 8


def build() -> Any:
    """Return the network."""
    from _blocks import settle
    from torch import Tensor, nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(FEATURES, HIDDEN, batch_first=True)
            self.tag = nn.Linear(HIDDEN, TAGS)

        def forward(self, x: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            y, (hn, cn) = self.lstm(x, (h0, c0))
            return self.tag(y), hn, cn

    return settle(Network())


MODEL = StreamingModel(
    name="lstm",
    build=build,
    input_shape={"x": (1, 24, FEATURES), "h0": (1, 1, HIDDEN), "c0": (1, 1, HIDDEN)},
    frame_axis={"x": 1},
    outputs=("tags", "hn", "cn"),
    state={"h0": "hn", "c0": "cn"},
    chunk_frames=(1, 6),
    bits=(8, 16),
)
