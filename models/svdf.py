"""SVDF-like keyword spotter: rank-1 filters, first over features, then over a memory in time.

Trained by ``_train.py`` on three synthesized words among others, in noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from espdl_hil import StreamingModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

FRAMES = 96
FEATURES = 16
UNITS = 16
RANK = 2
MEMORY = 8  # frames
WORDS = 4  # three, and none of them


def build() -> Any:
    """Return the network."""
    from _blocks import CausalConv1d, trained
    from torch import nn

    def layer(inputs: int) -> list[nn.Module]:
        filters = UNITS * RANK
        return [
            nn.Conv1d(inputs, filters, 1, bias=False),  # over the features
            CausalConv1d(filters, filters, MEMORY, groups=filters),  # over the memory
            nn.Conv1d(filters, UNITS, 1),  # adds up the ranks
            nn.ReLU(),
        ]

    layers = [*layer(FEATURES), *layer(UNITS), nn.Conv1d(UNITS, WORDS, 1)]
    return trained(nn.Sequential(*layers), __file__)


def stimulus(random: np.random.Generator) -> Any:
    """Return log mel bands of words in noise."""
    from _signals import keywords

    return keywords(random, FRAMES)[0][None]


def metric(outputs: Mapping[str, NDArray[np.float64]], random: np.random.Generator) -> float:
    """Return the share of frames with the right word, each word counting alike."""
    from _signals import balanced_accuracy, keywords

    return balanced_accuracy(outputs["output"][0], keywords(random, FRAMES)[1])


MODEL = StreamingModel(
    name="svdf",
    build=build,
    input_shape=(1, FEATURES, FRAMES),
    frame_axis=2,
    chunk_frames=(1, 3),
    bits=(8, 16),
    stimulus=stimulus,
    metric=metric,
)
