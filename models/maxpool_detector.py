"""Event detector: strided convolutions with causal max pools between them."""

from __future__ import annotations

from typing import Any

from espdl_hil import StreamingModel

AXES = 6
CHANNELS = 16


def build() -> Any:
    """Return the network: two scores for every fourth frame."""
    import torch.nn.functional as F  # noqa: N812 - torch's own habit
    from _blocks import CausalConv1d, settle
    from torch import Tensor, nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.detect = nn.Sequential(
                CausalConv1d(AXES, CHANNELS, 5), nn.BatchNorm1d(CHANNELS), nn.ReLU()
            )
            self.refine = nn.Sequential(
                CausalConv1d(CHANNELS, CHANNELS, 3), nn.BatchNorm1d(CHANNELS), nn.ReLU()
            )
            self.score = nn.Conv1d(CHANNELS, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.max_pool1d(self.detect(x), 2, stride=2)
            x = self.refine(x)
            x = F.max_pool1d(F.pad(x, (2, 0)), 3, stride=2)  # after ReLU, zeros are neutral
            return self.score(x)

    return settle(Network())


MODEL = StreamingModel(
    name="maxpool_detector",
    build=build,
    input_shape=(1, AXES, 32),
    frame_axis=2,
    chunk_frames=(4, 8),
    bits=(8, 16),
)
