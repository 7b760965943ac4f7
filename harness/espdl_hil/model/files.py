"""Loading of model files: each in a module of its own, every mistake one clear message.

A model file imports torch inside ``build``, so that collecting tests stays quick.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil.errors import ConfigError
from espdl_hil.model.declaration import StreamingModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType


def load_models(paths: Iterable[Path | str]) -> dict[str, StreamingModel]:
    """Load model files.

    Args:
        paths: Model files, and folders of them; in a folder, files whose name begins with
            ``_`` are helpers of the others.

    Returns:
        The models by name, in the order of *paths*.

    Raises:
        ConfigError: a path does not exist, a file does not run or has no valid ``MODEL``,
            or two models share a name.
    """
    models: dict[str, StreamingModel] = {}
    for path in _model_files(paths):
        model = load_model(path)
        if model.name in models:
            raise ConfigError(
                f"two models are named {model.name!r}: {models[model.name].source} and {path}",
                hint="give one of them another name",
            )
        models[model.name] = model
    return models


def load_model(path: Path | str) -> StreamingModel:
    """Load one model file.

    Args:
        path: A Python file that defines ``MODEL``.

    Returns:
        Its model, with ``source`` set.

    Raises:
        ConfigError: the file does not run, or has no valid ``MODEL``.
    """
    file = Path(path).resolve()
    module = _execute(file)
    model = getattr(module, "MODEL", None)
    if not isinstance(model, StreamingModel):
        found = "no MODEL" if model is None else f"MODEL is a {type(model).__name__}"
        raise ConfigError(
            f"{file}: {found}, expected MODEL = StreamingModel(...)",
            hint="a helper file beside the models has a name that begins with '_'",
        )
    return replace(model, source=file)


@contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Let imports find what lies in *folder*, and forget it afterwards.

    Two folders may each have a ``_blocks.py``; neither must see the other's.
    """
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            origin = getattr(sys.modules[name], "__file__", None)
            if origin and Path(origin).is_relative_to(folder):
                del sys.modules[name]


def _model_files(paths: Iterable[Path | str]) -> list[Path]:
    files: dict[Path, None] = {}  # an ordered set
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(file for file in path.glob("*.py") if not file.name.startswith("_"))
            if not found:
                raise ConfigError(f"{path}: no model files (*.py) in this folder")
            files.update(dict.fromkeys(file.resolve() for file in found))
        elif path.is_file():
            files[path.resolve()] = None
        else:
            raise ConfigError(f"{path}: no such model file or folder")
    return list(files)


def _execute(file: Path) -> ModuleType:
    """Run a model file in a module of its own.

    The module stays in ``sys.modules``: dataclasses look their own module up there.
    """
    name = f"harness_model_{file.stem}_{abs(hash(file)):x}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file}: not a Python file", hint="a model file is named *.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with importing_from(file.parent):
            spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ConfigError(f"{error.filename}:{error.lineno}: syntax error: {error.msg}") from None
    except ConfigError as error:
        raise ConfigError(f"{raised_at(error, file)}: {error.message}", hint=error.hint) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the file raises is its author's
        raise ConfigError(f"{raised_at(error, file)}: {describe_error(error)}") from None
    return module


def describe_error(error: BaseException) -> str:
    """Return the exception's type and message on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def raised_at(error: BaseException, file: Path) -> str:
    """Return ``file:line`` of the last line of a model file that an exception came through."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(file)
    ]
    return f"{file}:{lines[-1]}" if lines else str(file)
