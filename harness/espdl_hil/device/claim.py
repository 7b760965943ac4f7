"""One process per board: claims in a common folder, first come first served, freed by the kernel.

A claim is a file that its process keeps locked (``flock``) for as long as it lives. It says which
boards would do, and, once there are some, which it holds. Claims are numbered as they come: one
gets its boards, all at once, when no other holds them and none that came before could use them.
Files are made, read, changed and removed under one lock, the guard. A process that is killed
leaves a file without a lock, which counts for nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import json
import os
import platform
import re
import stat
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from platformdirs import user_cache_path

from espdl_hil.errors import BusyError, ConfigError, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

APP_NAME: Final = "espdl-hil"
LAB_FOLDER: Final = Path("/var/lib/espdl-hil")  # an administrator's, for all users of a host
RUNTIME_VARIABLE: Final = "ESPDL_HIL_RUNTIME_DIR"
LOCK_WAIT_S: Final = 1.0  # without --hil-wait: another process may be just ending
FIRST_POLL_S: Final = 0.02
POLL_S: Final = 0.25  # of those who wait long: what a killed holder had is free that soon
GUARD_S: Final = 10.0  # holders of the guard take milliseconds
TOLD_EVERY_S: Final = 30.0
MAX_CLAIM_BYTES: Final = 1 << 16  # of a file that another user wrote
READABLE: Final = 0o644  # others must see that a claim is alive, whatever the umask


def lock_directory() -> Path:
    """Folder of claims and of what boards have gone through, made when it is absent.

    ``ports`` in ``ESPDL_HIL_RUNTIME_DIR``; else in ``/var/lib/espdl-hil`` if an administrator
    made it, so that all users of the host share it; else in a folder of this user alone.

    Raises:
        ConfigError: it cannot be made, or another user could put files there.
    """
    user = os.getuid()
    base = user_cache_path(APP_NAME) / f"run-{platform.node()}"  # homes may be shared
    for candidate in (f"/run/user/{user}", os.environ.get("XDG_RUNTIME_DIR")):
        if candidate and Path(candidate).is_dir():
            base = Path(candidate) / APP_NAME
    override = os.environ.get(RUNTIME_VARIABLE)
    if override:
        base = Path(override).resolve()
    elif (LAB_FOLDER / "ports").is_dir():
        base, override = LAB_FOLDER, str(LAB_FOLDER)
    for folder in (base, base / "ports"):
        with _using(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _require_ours(folder, by_administrator=bool(override))
    return base / "ports"


def _require_ours(folder: Path, *, by_administrator: bool) -> None:
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
            hint=f"remove it, or set {RUNTIME_VARIABLE} to a folder that only you can write",
        ) from None


@contextlib.contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Be the only process that changes anything in *folder*.

    Raises:
        ConfigError: another process keeps it for itself.
    """
    path = folder / "guard"
    with _using(path):
        try:  # kernels refuse O_CREAT on another's file in a sticky folder
            guard = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            guard = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, READABLE)
    try:
        with contextlib.suppress(OSError):  # another user's
            os.fchmod(guard, READABLE)
        end_s = time.monotonic() + GUARD_S
        while not _lock(guard, fcntl.LOCK_EX):
            if time.monotonic() > end_s:
                raise ConfigError(
                    f"another process has kept {path} locked for {GUARD_S:g} s",
                    hint="it may be stopped: see who it is with `fuser`, and let it go on or end",
                )
            time.sleep(0.002)
        yield
    finally:
        os.close(guard)


def _lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass(frozen=True)
class Candidate:
    """A board as claims know it: by port and MAC. Two that share a name are one board."""

    label: str
    names: frozenset[str]

    @classmethod
    def of_port(cls, port: str) -> Candidate:
        """The board behind a device path or pyserial URL; links to one device are one board."""
        if "://" in port:
            scheme, _, rest = port.partition("://")
            name = f"{scheme.lower()}://{rest.partition('?')[0].rstrip('/').lower()}"
        else:
            name = os.path.realpath(port)
        return cls(port, frozenset({name}))


@dataclass(frozen=True)
class ClaimFile:
    """What the file of a live claim says.

    Attributes:
        number: Its place in the order of arrival.
        pid: Of its process.
        user: Of its process.
        since: When it got its boards, or came; seconds since 1970.
        wants: Names of each board that would do.
        holds: Names of its boards; none while it waits.
    """

    number: int
    pid: int
    user: str
    since: float
    wants: frozenset[str]
    holds: frozenset[str]

    def __str__(self) -> str:
        age_s = max(0.0, time.time() - self.since)
        return f"pid {self.pid}, user {printable(self.user)}, since {age_s:.0f} s"


def live_claims(folder: Path) -> list[ClaimFile]:
    """Every claim whose process is alive, in order of arrival. Removes the files of the others.

    Call it under :func:`guarded`.
    """
    found = []
    for path in folder.glob("*.claim"):
        with contextlib.suppress(OSError):  # gone, or a link
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if _lock(file, fcntl.LOCK_SH):
                    path.unlink()
                elif (entry := _parse(path, os.read(file, MAX_CLAIM_BYTES))) is not None:
                    found.append(entry)
            finally:
                os.close(file)
    return sorted(found, key=lambda entry: entry.number)


def _parse(path: Path, data: bytes) -> ClaimFile | None:
    """Read a claim; None for what no claim would say."""
    try:
        said = json.loads(data)
        return ClaimFile(
            number=int(path.stem),
            pid=int(said["pid"]),
            user=str(said["user"]),
            since=float(said["since"]),
            wants=frozenset(map(str, said["wants"])),
            holds=frozenset(map(str, said["holds"])),
        )
    except (ValueError, KeyError, TypeError):
        return None


class Claim:
    """The right to use some boards, until :meth:`release` or the end of the process.

    Args:
        slots: For each board that is needed, those that would do, best first.

    Raises:
        ConfigError: claims cannot be kept safely; see :func:`lock_directory`.
    """

    def __init__(self, slots: Sequence[Sequence[Candidate]]) -> None:
        self.held: tuple[Candidate, ...] = ()
        self._slots = slots
        self._text = " and ".join(" or ".join(board.label for board in slot) for slot in slots)
        self._wants = _names(candidate for slot in slots for candidate in slot)
        self._folder = lock_directory()
        self._file: int | None = None
        self._path = self._folder
        self._standing = ""
        _claims.add(self)

    @property
    def port(self) -> str:
        """Label of the first board held."""
        return self.held[0].label

    def acquire(self, wait_s: float = 0.0, on_wait: Callable[[str], object] | None = None) -> Self:
        """Take the boards.

        Args:
            wait_s: How long to stand in the queue.
            on_wait: Told who is waited for: at first, when that changes, and twice a minute.

        Raises:
            BusyError: Others have them, named by process and user.
        """
        end_s = time.monotonic() + wait_s
        pause_s, told, told_s = FIRST_POLL_S, "", 0.0
        while not self._take():
            now_s = time.monotonic()
            if now_s >= end_s:
                self.release()
                raise BusyError(
                    f"{self._text} is in use by another process of this harness ({self._standing})",
                    hint="wait for it with --hil-wait SECONDS, or name another board",
                )
            key = re.sub(r"since \d+ s", "", self._standing)
            if on_wait and (key != told or now_s - told_s > TOLD_EVERY_S):
                told, told_s = key, now_s
                on_wait(f"waiting for {self._text}: {self._standing}")
            time.sleep(min(pause_s, max(0.0, end_s - now_s)))
            pause_s = min(2 * pause_s, POLL_S)
        return self

    def release(self) -> None:
        """Give the boards back, or leave the queue; releasing twice does nothing."""
        file, self._file = self._file, None
        self.held = ()
        if file is not None:
            with contextlib.suppress(OSError, ConfigError):
                self._path.unlink(missing_ok=True)
            os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _take(self) -> bool:
        """Join the queue if that has not been done; take the boards if it is this one's turn."""
        with guarded(self._folder):
            entries = live_claims(self._folder)
            if self._file is None:
                self._join()
            number = int(self._path.stem)
            others = [entry for entry in entries if entry.number != number]
            taken = frozenset[str]().union(
                *(e.holds or e.wants for e in others if e.holds or e.number < number)
            )
            self.held = _assign(self._slots, taken)
            if self.held:
                self._write(holds=self.held)
                return True
        holders = [entry for entry in others if entry.holds & self._wants]
        ahead = [e for e in others if e.number < number and not e.holds and e.wants & self._wants]
        who = str((holders or ahead)[0]) if holders or ahead else "nobody"
        self._standing = f"held by {who}, {len(ahead)} ahead"
        return False

    def _join(self) -> None:
        numbers = [int(p.stem) for p in self._folder.glob("*.claim") if p.stem.isdecimal()]
        self._path = self._folder / f"{1 + max(numbers, default=0):010d}.claim"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with _using(self._path):
            file = os.open(self._path, flags, READABLE)
            os.fchmod(file, READABLE)
            fcntl.flock(file, fcntl.LOCK_EX)
        self._file = file
        self._write(holds=())

    def _write(self, *, holds: Sequence[Candidate]) -> None:
        """Say in the file what is wanted and held."""
        said: dict[str, Any] = {
            "pid": os.getpid(),
            "user": _user(),
            "since": round(time.time(), 3),
            "wants": sorted(self._wants),
            "holds": sorted(_names(holds)),
        }
        assert self._file is not None
        data = json.dumps(said).encode()
        with _using(self._path):
            os.pwrite(self._file, data, 0)
            os.ftruncate(self._file, len(data))

    def forget(self) -> None:
        """In a forked child, which is not the holder: do not keep the lock alive."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _names(candidates: Iterable[Candidate]) -> frozenset[str]:
    return frozenset(name for candidate in candidates for name in candidate.names)


def _assign(slots: Sequence[Sequence[Candidate]], taken: frozenset[str]) -> tuple[Candidate, ...]:
    """A free board for each slot, none twice; nothing if that cannot be."""
    if not slots:
        return ()
    for candidate in slots[0]:
        if not candidate.names & taken:
            rest = _assign(slots[1:], taken | candidate.names)
            if rest or len(slots) == 1:
                return (candidate, *rest)
    return ()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a name for it
        return str(os.getuid())


_claims: weakref.WeakSet[Claim] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for claim in tuple(_claims):
        claim.forget()


os.register_at_fork(after_in_child=_leave_to_parent)
