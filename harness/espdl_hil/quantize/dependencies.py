"""Which files a model file reads while it is built. Knows paths and hashes, not models."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
import sysconfig
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espdl_hil.quantize.recipe import hash_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# Installed code is covered by the recipe's versions, and so is the harness itself.
_INSTALLED = tuple(
    Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_HARNESS = Path(__file__).parent.parent
_SYSTEM = (Path("/proc"), Path("/sys"), Path("/dev"))
_LISTS = ("os.listdir", "os.scandir")  # glob.glob and pathlib call them
_LOOKS = ("stat", "lstat", "access")  # of os, as path.exists() and others call them
_ABLE = (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks)
_IMPORTS = ("<frozen importlib", os.path.dirname(importlib.__file__))  # noqa: PTH120
_stat = os.stat  # as it is while nothing is recorded
_recording: list[Dependencies] = []


class Dependencies:
    """Records what is looked for inside ``recording``: files, folders, and what is not there.

    Seen are files that are opened for reading, folders that are listed, modules that cannot be
    imported and, below the model file's folder, what ``os.stat`` is asked for. Not seen is what
    code that is not Python opens without asking Python before.

    Args:
        ignore: Files and folders that do not count, such as the model file itself.
    """

    def __init__(self, *ignore: Path) -> None:
        ignored = (*_INSTALLED, _HARNESS, *_SYSTEM, *ignore)
        self._ignored = {*ignored, *(path.resolve() for path in ignored)}
        self._opened: set[str] = set()
        self._listed: set[str] = set()
        self._looked_at: set[str] = set()
        self._imported: set[str] = set()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what the body looks for, and so what it imports."""
        _install_hook()
        kept = {name: getattr(os, name) for name in _LOOKS}
        noting = {name: self._noting(function) for name, function in kept.items()}
        for name, function in noting.items():
            setattr(os, name, function)
        _recording.append(self)
        try:
            yield
        finally:
            _recording.remove(self)
            for name, function in kept.items():
                setattr(os, name, function)
            for able in _ABLE:
                able.difference_update(noting.values())

    def hashes(self, folder: Path) -> dict[str, str]:
        """Return path relative to *folder*, to ``hash_path``, of all that was recorded.

        Args:
            folder: The model file's, resolved. A link in it counts wherever it leads.
        """
        looked_at = (path for path in _spelled(self._looked_at) if path.is_relative_to(folder))
        found = {
            *map(_source_of, _spelled(self._opened)),
            *_spelled(self._listed),
            *(path for path in looked_at if not _is_folder(path)),
        }
        for name in self._imported - set(sys.modules):
            forms = {folder / name, folder / f"{name}.py"}
            if not any(map(os.path.exists, forms)):  # else its files are among those opened
                found |= forms
        return {
            os.path.relpath(path, folder): hash_path(path)
            for path in sorted(found)
            if not self._is_ignored(path, folder)
        }

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take an audit event."""
        if event == "open":
            name, _, flags = arguments
            if _is_read(name, flags):
                _note(name, self._opened)
        elif event in _LISTS:
            # Importing lists each folder that it searches, whatever else lies there.
            if not sys._getframe(2).f_code.co_filename.startswith(_IMPORTS):  # noqa: SLF001
                _note("." if arguments[0] is None else arguments[0], self._listed)
        elif event == "import":
            self._imported.add(arguments[0].partition(".")[0])

    def _noting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of ``os`` that notes the path which it is given."""

        @functools.wraps(function)
        def noting(path: Any, *arguments: Any, **options: Any) -> Any:
            _note(path, self._looked_at)
            return function(path, *arguments, **options)

        for able in _ABLE:
            if function in able:
                able.add(noting)
        return noting

    def _is_ignored(self, path: Path, folder: Path) -> bool:
        """Whether a path, or what it leads to unless it is a link of the author's, is ignored."""
        if path.is_relative_to(folder):  # which may itself be installed
            inside = (ignored for ignored in self._ignored if not folder.is_relative_to(ignored))
            return any(path.is_relative_to(ignored) for ignored in inside)
        return any(
            form.is_relative_to(ignored)
            for form in (path, Path(os.path.realpath(path)))  # resolve() raises in a circle
            for ignored in self._ignored
        )


@functools.cache
def _install_hook() -> None:
    """Hear of opens, listings and imports from now on: an audit hook cannot be removed."""

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        for dependencies in _recording:
            dependencies.hear(event, arguments)

    sys.addaudithook(hear)


def _is_read(name: Any, flags: int) -> bool:
    """Whether what a file holds may count: it is neither only written nor made by this open."""
    if flags & os.O_ACCMODE == os.O_WRONLY or flags & os.O_TRUNC:
        return False
    if flags & os.O_CREAT:
        try:
            _stat(name)
        except OSError:
            return False
    return True


def _note(name: Any, names: set[str]) -> None:
    if isinstance(name, str | bytes | os.PathLike):
        path = os.fsdecode(name)
        if "\0" not in path:
            names.add(os.path.join(os.getcwd(), path))  # noqa: PTH109, PTH118 - no Path in a hook


def _spelled(names: Iterable[str]) -> set[Path]:
    """Paths without ``..``, links kept; where the two do not go together, what they lead to."""
    paths = set()
    for name in names:
        path = os.path.abspath(name)  # noqa: PTH100 - Path has no such thing
        same = path == name or os.path.realpath(path) == os.path.realpath(name)
        paths.add(Path(path if same else os.path.realpath(name)))
    return paths


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # its name is too long
        return False


def _source_of(path: Path) -> Path:
    """Return the source of a compiled module: imports open the compiled file."""
    if path.suffix == ".pyc" and path.parent.name == "__pycache__":
        return Path(importlib.util.source_from_cache(path))
    return path
