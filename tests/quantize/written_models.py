"""Model files that tests of quantize write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espdl_hil.model import StreamingModel, load_model
from espdl_hil.quantize import Recipe, Store, prepare

if TYPE_CHECKING:
    from pathlib import Path

    from espdl_hil.errors import HarnessError
    from espdl_hil.quantize import Artifacts

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


def network(forward: list[str], *, name: str = "{name}", declared: str = "", **layers: str) -> str:
    """The text of a model whose module has these layers and runs these lines on ``x``.

    Args:
        forward: Lines of ``forward``.
        name: Of the model; as it is, what ``write`` takes.
        declared: More arguments of ``declare``, such as ``", frame_axis=1"``.
        layers: Attribute to expression.
    """
    made = "\n".join(f"            self.{layer} = {text}" for layer, text in layers.items())
    body = "\n".join(f"            {line}" for line in forward)
    head = HEAD.format(name=name) if name != "{name}" else ""
    inputs = "x, h, c" if "'c'" in declared else "x, h" if "'h'" in declared else "x"
    return f"""{head}
def build():
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
{made or "            pass"}

        def forward(self, {inputs}):
{body}

    return Network()

MODEL = declare(build{declared})
"""


def prepared(
    folder: Path,
    texts: dict[str, str],
    targets: tuple[str, ...] = ("esp32s3",),
    bits: tuple[int, ...] = (8,),
) -> dict[str, Artifacts | HarnessError]:
    """Write models and make their recipes; by label, such as ``name int8 esp32s3``."""
    models = [write(folder / "models", name, text) for name, text in texts.items()]
    recipes = [Recipe.of(model, t, b) for model in models for t in targets for b in bits]
    found = prepare(recipes, Store(folder / "store"), jobs=2)
    return {recipe.label: found[recipe.key] for recipe in recipes}
