"""Motion classifier: convolutions with causal, strided max pools between them.

Trained by ``_train.py`` on generated accelerometer and gyroscope data of four activities.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from espdl_hil import StreamingModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

FRAMES = 128
AXES = 6
ACTIVITIES = 4
CHANNELS = 16


def build() -> Any:
    """Return the network: a score of each activity for every fourth frame."""
    import torch.nn.functional as F  # noqa: N812 - torch's own habit
    from _blocks import CausalConv1d, trained
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
            self.score = nn.Conv1d(CHANNELS, ACTIVITIES, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.max_pool1d(self.detect(x), 2, stride=2)
            x = self.refine(x)
            x = F.max_pool1d(F.pad(x, (2, 0)), 3, stride=2)  # after ReLU, zeros are neutral
            return self.score(x)

    return trained(Network(), __file__)


def stimulus(random: np.random.Generator) -> Any:
    """Return six axes of changing activities."""
    from _signals import motion

    return motion(random, FRAMES)[0][None]


def metric(outputs: Mapping[str, NDArray[np.float64]], random: np.random.Generator) -> float:
    """Return the share of answers that name the right activity, each counting alike."""
    from _signals import balanced_accuracy, motion

    return balanced_accuracy(outputs["output"][0], motion(random, FRAMES)[1])


MODEL = StreamingModel(
    name="maxpool_detector",
    build=build,
    input_shape=(1, AXES, FRAMES),
    frame_axis=2,
    chunk_frames=(4, 8),
    bits=(8, 16),
    stimulus=stimulus,
    metric=metric,
)
