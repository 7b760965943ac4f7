"""Inception-like: branches of unequal kernels on one tensor, joined over the channels."""

from __future__ import annotations

from typing import Any

from espdl_hil import StreamingModel

CHANNELS = 16
BRANCH = 8
KERNELS = (1, 3, 5)


def build() -> Any:
    """Return the network."""
    import torch
    from _blocks import CausalConv1d, settle
    from torch import Tensor, nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv1d(8, CHANNELS, 1)
            self.branches = nn.ModuleList(
                CausalConv1d(CHANNELS, BRANCH, kernel) for kernel in KERNELS
            )
            self.wide = CausalConv1d(CHANNELS, BRANCH, 3, dilation=3)
            self.relu = nn.ReLU()
            self.join = nn.Conv1d(BRANCH * (len(KERNELS) + 1), 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.relu(self.stem(x))
            found = [branch(x) for branch in self.branches]
            return self.join(self.relu(torch.cat([*found, self.wide(x)], dim=1)))

    return settle(Network())


MODEL = StreamingModel(
    name="multi_branch",
    build=build,
    input_shape=(1, 8, 24),
    frame_axis=2,
    chunk_frames=(2, 4),
    bits=(8, 16),
)
