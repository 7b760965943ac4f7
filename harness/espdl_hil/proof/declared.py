"""Is an object the MODEL of its file? The quantize worker runs the file, and never sees the object.

A file that is loaded twice gives other functions each time, so what they are made of is compared.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path, PurePath
from types import FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.model import StreamingModel

# What the worker takes from the file, and not from the recipe (see ``Recipe.of``).
_OF_THE_FILE = (
    *("name", "build", "input_shape", "frame_axis", "outputs", "state", "onnx", "offline"),
    *("calibration", "stimulus", "streaming", "ragged"),
)
_PLAIN = (int, float, complex, str, bytes, type(None), PurePath)


def find_differences(model: StreamingModel, declared: StreamingModel) -> Iterator[str]:
    """Name the fields of which the worker would not run what *model* has.

    Args:
        model: What is to be proven.
        declared: The MODEL of its file.
    """
    for name in _OF_THE_FILE:
        given = getattr(model, name)
        in_the_recipe = name == "streaming" and isinstance(given, str)
        if in_the_recipe:
            continue
        if _parts(given, {}) != _parts(getattr(declared, name), {}):
            yield name


def _parts(value: Any, seen: dict[int, tuple[int, Any]]) -> Any:
    """What can be compared of a value: equal for equal values of two loads of one file.

    Args:
        value: Anything.
        seen: The number of each object that it has met, by its id, and that object, so that the
            id stays its own: objects may refer to each other in a circle.
    """
    if isinstance(value, _PLAIN):
        return value
    if id(value) in seen:
        return seen[id(value)][0]
    seen[id(value)] = (len(seen), value)
    inner: list[Any]
    if isinstance(value, FunctionType):
        code = value.__code__  # two are equal if they are the same text on the same lines
        cells = [_content(cell) for cell in value.__closure__ or ()]
        inner = [Path(code.co_filename).resolve(), value.__defaults__, value.__kwdefaults__, cells]
        return code, _parts(inner, seen)
    if isinstance(value, MethodType):
        inner = [value.__func__, value.__self__]
    elif isinstance(value, functools.partial):
        inner = [value.func, value.args, value.keywords]
    elif isinstance(value, ModuleType):
        inner = [value.__name__]
    elif isinstance(value, type):
        inner = [value.__qualname__, *(v for v in vars(value).values() if _is_code(v))]
    elif isinstance(value, Mapping):
        return {name: _parts(entry, seen) for name, entry in value.items()}
    elif hasattr(value, "__array__"):
        array = np.asarray(value.detach() if hasattr(value, "detach") else value)  # of torch
        inner = [array.shape, str(array.dtype), array.tobytes()]
    elif isinstance(value, list | tuple):
        inner = [*value]
    elif hasattr(value, "__dict__"):  # it can be called, or belongs to a closure
        inner = [type(value), vars(value)]
    else:
        equal: Any = type(value).__eq__
        return type(value).__name__ if equal is object.__eq__ else value
    return type(value).__name__, [_parts(entry, seen) for entry in inner]


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None


def _is_code(value: Any) -> bool:
    return isinstance(value, FunctionType | classmethod | staticmethod)
