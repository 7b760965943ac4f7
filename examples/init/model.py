"""A causal network that streams: copy it, rename it, put your own layers in."""

from __future__ import annotations

from typing import Any

from espdl_hil import StreamingModel

CHANNELS = 8


def build() -> Any:
    """Return the network. Torch is imported here, so that pytest starts without it."""
    import torch.nn.functional as F  # noqa: N812 - torch's own habit
    from torch import Tensor, nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv1d(CHANNELS, 16, 1)
            self.context = nn.Conv1d(16, 16, 3)
            self.head = nn.Conv1d(16, 4, 1)

        def forward(self, x: Tensor) -> Tensor:  # (1, CHANNELS, frames)
            x = F.relu(self.stem(x))
            # Pads the past only (left, right): a chunk must not need frames that come later.
            x = x + F.relu(self.context(F.pad(x, (2, 0))))
            return self.head(x)

    # Trained weights are loaded here, by a path relative to __file__.
    return Network()


MODEL = StreamingModel(
    name="mine",  # part of test ids: pytest -k mine
    build=build,
    input_shape=(1, CHANNELS, 24),  # the whole sequence as forward() takes it, batch 1
    frame_axis=2,  # which of these axes is time
    chunk_frames=(2, 6),  # frames that the device gets in one step; one test each
    bits=(8,),  # (8, 16): both quantization widths
    targets=("esp32s3", "esp32p4"),
    # The test signal is seeded noise. A recording is better: stimulus=a function that returns it.
)
