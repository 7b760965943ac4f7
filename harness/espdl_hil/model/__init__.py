"""Streaming models: what an author declares, and the files that hold the declarations.

Import from here; the modules inside are free to move.
"""

from espdl_hil.model.declaration import INPUT, Shape, Source, StreamingModel
from espdl_hil.model.files import describe_error, importing_from, load_model, load_models, raised_at
from espdl_hil.model.quantization import Quantization

__all__ = [
    "INPUT",
    "Quantization",
    "Shape",
    "Source",
    "StreamingModel",
    "describe_error",
    "importing_from",
    "load_model",
    "load_models",
    "raised_at",
]
