"""Which files a model file reads while it is built. Knows paths and hashes, not models."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espdl_hil.quantize.recipe import hash_file

if TYPE_CHECKING:
    from collections.abc import Iterator

# Installed code is covered by the recipe's versions, and so is the harness itself.
_INSTALLED = tuple(
    Path(sysconfig.get_path(name)).resolve()
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_HARNESS = Path(__file__).resolve().parent.parent
_SYSTEM = (Path("/proc"), Path("/sys"), Path("/dev"))


class Dependencies:
    """Records the files that are opened for reading inside ``recording``.

    An audit hook cannot be removed: use it in a process that ends soon.

    Args:
        ignore: Files and folders that do not count, such as the model file itself.
    """

    def __init__(self, *ignore: Path) -> None:
        self._ignored = (*_INSTALLED, _HARNESS, *_SYSTEM, *ignore)
        self._opened: set[str] = set()
        self._active = False
        sys.addaudithook(self._hear)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what the body opens, and so what it imports."""
        self._active = True
        try:
            yield
        finally:
            self._active = False

    def hashes(self, folder: Path) -> dict[str, str]:
        """Return path relative to *folder*, to SHA-256, of each file recorded."""
        found = {_source_of(Path(name)).resolve() for name in self._opened}
        return {
            os.path.relpath(path, folder): hash_file(path)
            for path in sorted(found)
            if path.is_file() and not self._is_ignored(path)
        }

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._active or event != "open":
            return
        name, _, flags = arguments
        if isinstance(name, str | os.PathLike) and flags & os.O_ACCMODE == os.O_RDONLY:
            self._opened.add(os.path.abspath(os.fspath(name)))  # noqa: PTH100 - no Path in a hook

    def _is_ignored(self, path: Path) -> bool:
        return any(path.is_relative_to(folder) for folder in self._ignored)


def _source_of(path: Path) -> Path:
    """Return the source of a compiled module: imports open the compiled file."""
    return Path(importlib.util.source_from_cache(path)) if path.suffix == ".pyc" else path
