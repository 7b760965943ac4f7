"""Float steps, and what multiplies their errors behind them: a gate, a softmax, a residual sum."""

from __future__ import annotations

from espdl_hil import StreamingModel


def build():
    import torch
    from torch import nn

    class Examples(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru, self.join = nn.GRU(8, 16, batch_first=True), nn.Linear(8, 16)
            self.linear, self.classes = nn.Linear(16, 4), nn.Linear(16, 24)

        def forward(self, x, h):
            y, h = self.gru(x, h)
            gate = torch.sigmoid(8 * self.linear(y))
            return gate, torch.softmax(self.classes(y), -1), self.join(x) + y, h

    return Examples()


MODEL = StreamingModel(
    name="examples",
    build=build,
    input_shape={"x": (1, 48, 8), "h": (1, 1, 16)},
    frame_axis={"x": 1},
    outputs=("gate", "classes", "sum", "h_out"),
    state={"h": "h_out"},
    chunk_frames=(4,),
    bits=(16,),
    targets=("esp32s3",),
)
