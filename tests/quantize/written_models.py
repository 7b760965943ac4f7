"""Model files that tests of quantize write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espdl_hil.model import StreamingModel, load_model

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """
import os, signal
from espdl_hil import StreamingModel

def declare(build, **changes):
    fields = dict(name={name!r}, build=build, input_shape=(1, 4, 12), frame_axis=2,
                  chunk_frames=(3, 12), bits=(8, 16))
    return StreamingModel(**{{**fields, **changes}})
"""

GOOD = """
def build():
    import torch
    from torch import nn
    import torch.nn.functional as F

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(4, 4, 3)

        def forward(self, x):
            return x + self.conv(F.pad(x, (2, 0)))

    return nn.Sequential(nn.Conv1d(4, 4, 1), Network())

MODEL = declare(build)
"""

# Leaves one letter in made.txt each time that it is built.
COUNTED = """
import pathlib
def count():
    with open(pathlib.Path(__file__).parent / "made.txt", "a") as file:
        file.write("x")
""" + GOOD.replace("def build():", "def build():\n    count()")


def write(folder: Path, name: str, text: str) -> StreamingModel:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(HEAD.format(name=name) + text)
    return load_model(path)
