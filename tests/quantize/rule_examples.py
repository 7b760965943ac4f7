"""Model files of the examples that stand with the rules."""

from __future__ import annotations

import re

_LAYER = re.compile(r"(\w+) = nn\.")

HEAD = """
from espdl_hil import StreamingModel

def declare(build, **changes):
    fields = dict(name={name!r}, build=build, input_shape=(1, 4, 24), frame_axis=2,
                  chunk_frames=(4,))
    return StreamingModel(**{{**fields, **changes}})


def build():
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
{layers}

        def forward(self, x{more}):
{body}

    return Network()

MODEL = declare(build, {declared})
"""


def model_text(form: str, name: str) -> str:
    """The model file of one form of an example."""
    body, _, declared = form.partition("StreamingModel(")
    layers, steps = [], []
    for line in body.strip().splitlines():
        found = _LAYER.match(line)
        if found and not steps:
            layers.append(line.replace(f"{found[1]} =", f"self.{found[1]} =", 1))
        else:
            steps.append(line)
    names = [layer.partition(" =")[0].removeprefix("self.") for layer in layers]
    steps = [f"{layer} = self.{layer}" for layer in names] + steps
    return HEAD.format(
        name=name,
        layers="\n".join(f"            {layer}" for layer in layers) or "            pass",
        body="\n".join(f"            {step}" for step in steps),
        more="".join(f", {name}" for name in "hc" if f'"{name}":' in declared),
        declared=declared.removesuffix(")"),
    )
