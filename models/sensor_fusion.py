"""Two sensors at different rates, brought to one rate, joined, and classified."""

from __future__ import annotations

from typing import Any

from espdl_hil import Quantization, StreamingModel

MICROPHONE = 8
MOTION = 6
CHANNELS = 16
ACTIVITIES = 5


def build() -> Any:
    """Return the network: the microphone gives two frames for each frame of the motion sensor."""
    import torch
    from _blocks import CausalConv1d, settle
    from torch import Tensor, nn

    def branch(inputs: int, stride: int) -> nn.Module:
        return nn.Sequential(
            CausalConv1d(inputs, CHANNELS, 5, stride=stride), nn.BatchNorm1d(CHANNELS), nn.ReLU()
        )

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hear = branch(MICROPHONE, 2)
            self.feel = branch(MOTION, 1)
            self.join = nn.Sequential(
                CausalConv1d(2 * CHANNELS, CHANNELS, 3),
                nn.ReLU(),
                nn.Conv1d(CHANNELS, ACTIVITIES, 1),
            )

        def forward(self, microphone: Tensor, motion: Tensor) -> Tensor:
            return self.join(torch.cat([self.hear(microphone), self.feel(motion)], dim=1))

    return settle(Network())


MODEL = StreamingModel(
    name="sensor_fusion",
    build=build,
    input_shape={"microphone": (1, MICROPHONE, 24), "motion": (1, MOTION, 12)},
    frame_axis={"microphone": 2, "motion": 2},
    chunk_frames=(4, 6),
    bits=(8, 16),
    quantization=Quantization(batches=32),  # eight do not show how large its outputs get
)
