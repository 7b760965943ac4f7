"""Temporary folders that the next run removes when this one is killed."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "espdl-hil-"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder, gone at the end of the block; those of killed processes go now.

    Raises:
        OSError: there is no room for it.
    """
    _remove_orphans(Path(tempfile.gettempdir()))
    space = _process_space()
    with tempfile.TemporaryDirectory(
        prefix=f"{_PREFIX}{space}-{os.getpid()}-", ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def _remove_orphans(parent: Path) -> None:
    """Remove what was named by a process of this host and user that is no more."""
    if not hasattr(os, "getuid"):
        return
    named = re.compile(rf"{_PREFIX}{_process_space()}-(\d+)-\w+")
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another run removes it
            match = named.fullmatch(folder.name)
            if match and folder.lstat().st_uid == os.getuid() and not _lives(int(match.group(1))):
                shutil.rmtree(folder, ignore_errors=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _process_space() -> str:
    """What process ids are unique in: containers may share a temporary folder."""
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return "0"
