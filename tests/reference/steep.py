"""A LayerNormalization of 65,536 elements, and a table of every 32nd value behind it."""

from __future__ import annotations

from espdl_hil import StreamingModel


def build():
    import torch
    from torch import nn

    class Steep(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Linear(8, 64), nn.LayerNorm(64)

        def forward(self, x):
            y = self.norm(self.first(x))
            return torch.tanh(y), torch.sigmoid(y)

    return Steep()


MODEL = StreamingModel(
    name="steep",
    build=build,
    input_shape=(1, 1024, 8),
    frame_axis=1,
    outputs=("a", "b"),
    chunk_frames=(4,),
    bits=(16, 8),
    targets=("esp32s3",),
    seed=1,
)
