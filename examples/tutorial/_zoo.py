"""Models of the zoo as esp-ppq's own ``auto_streaming`` converts them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espdl_hil.model import importing_from, load_model

if TYPE_CHECKING:
    from espdl_hil import StreamingModel

ZOO = Path(__file__).resolve().parents[2] / "models"


def auto(name: str) -> StreamingModel:
    """Return a model of the zoo, one chunk size at int8, converted by the exporter alone."""
    model = load_model(ZOO / f"{name}.py")

    def build() -> Any:
        with importing_from(ZOO):
            return model.build()

    return replace(
        model, name=f"{name}_auto", build=build, chunk_frames=(3,), bits=(8,), streaming="auto"
    )
