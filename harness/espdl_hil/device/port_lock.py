"""One process per port: a lock file in the user's runtime directory, freed by the kernel."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import re
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from espdl_hil.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

APP_NAME = "espdl-hil"
POLL_S = 0.02


def lock_directory() -> Path:
    """Directory of the lock files, the same for all processes of a user, made when it is absent.

    ``ESPDL_HIL_RUNTIME_DIR`` overrides it.

    Raises:
        ConfigError: it cannot be made, or another user could put files there, which a lock of
            ours would overwrite.
    """
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    base = user_cache_path(APP_NAME) / f"run-{platform.node()}"  # homes may be shared
    for candidate in (f"/run/user/{user}", os.environ.get("XDG_RUNTIME_DIR")):
        if candidate and Path(candidate).is_dir():
            base = Path(candidate) / APP_NAME
    if override := os.environ.get("ESPDL_HIL_RUNTIME_DIR"):
        base = Path(override).resolve()
    for folder in (base, base / "ports"):
        with _using(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _require_ours(folder, by_administrator=bool(override))
    return base / "ports"


def _require_ours(folder: Path, *, by_administrator: bool) -> None:
    if not hasattr(os, "getuid"):
        return
    found = folder.lstat()
    writable = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(found.st_mode):
        reason = "it is a link"
    elif found.st_uid != os.getuid() and not (by_administrator and found.st_uid == 0):
        reason = f"it belongs to user {found.st_uid}"
    elif writable and not (by_administrator and found.st_uid == 0):
        reason = f"others may write there (mode {stat.S_IMODE(found.st_mode):o})"
    else:
        return
    raise PermissionError(errno.EPERM, reason)


@contextlib.contextmanager
def _using(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into advice."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"port locks cannot be kept in {path}: {error.strerror or error}",
            hint="remove it, or set ESPDL_HIL_RUNTIME_DIR to a folder that only you can write",
        ) from None


class PortLock:
    """The right to use one port, until :meth:`release` or the end of the process.

    A process that is killed leaves the lock *file*, never the lock.

    Args:
        port: Device path or pyserial URL; links to one device share one lock.

    Raises:
        ConfigError: the lock cannot be kept safely; see :func:`lock_directory`.
    """

    def __init__(self, port: str) -> None:
        self.port = port
        name = _identity(port)
        directory = lock_directory()
        readable = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[-40:]
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        self._lock = FileLock(directory / f"{readable}-{digest}.lock", thread_local=False)
        self._guard = FileLock(directory / "guard", thread_local=False)
        self._owner = directory / f"{readable}-{digest}.owner"

    def try_acquire(self, timeout_s: float = 0.0) -> bool:
        """Take the port; say whether that was possible within *timeout_s*."""
        end_s = time.monotonic() + timeout_s
        with _using(Path(self._lock.lock_file)):
            while not self._take():
                if time.monotonic() >= end_s:
                    return False
                time.sleep(POLL_S)
        with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
            self._owner.unlink(missing_ok=True)
            with self._owner.open("x", encoding="ascii") as file:  # follows no link
                file.write(str(os.getpid()))
        return True

    def acquire(self, timeout_s: float = 0.0) -> Self:
        """Take the port.

        Raises:
            ConfigError: Another process has it, named by its process id.
        """
        if not self.try_acquire(timeout_s):
            raise ConfigError(
                f"port {self.port} is in use by another process of this harness ({self.owner()})",
                hint="wait for it to end, or name another port with --port",
            )
        return self

    def owner(self) -> str:
        """Who holds the port, as far as it is known."""
        try:
            return f"pid {int(self._owner.read_text(encoding='ascii'))}"
        except (OSError, ValueError):
            return "pid unknown"

    def release(self) -> None:
        """Give the port back; releasing twice does nothing."""
        if self._lock.is_locked:
            with contextlib.suppress(OSError), self._guard:  # Windows removes no open file
                self._owner.unlink(missing_ok=True)
                Path(self._lock.lock_file).unlink(missing_ok=True)
                self._lock.release()
            self._lock.release()

    def _take(self) -> bool:
        """Try once. Files are locked and removed under the guard alone: what is locked is there."""
        with self._guard:
            for path in self._owner.parent.glob("*.lock"):
                lock = FileLock(path, thread_local=False)
                with contextlib.suppress(OSError):  # in use, or a link
                    lock.acquire(timeout=0)
                    path.unlink()
                    path.with_suffix(".owner").unlink(missing_ok=True)
                    lock.release()
            with contextlib.suppress(Timeout):
                self._lock.acquire(timeout=0)
        return self._lock.is_locked

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def _identity(port: str) -> str:
    """The name that all spellings of a port share."""
    if "://" in port:
        scheme, _, rest = port.partition("://")
        return f"{scheme.lower()}://{rest.partition('?')[0].rstrip('/').lower()}"
    return os.path.realpath(port)
