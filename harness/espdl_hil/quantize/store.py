"""The content-addressed store of traces and artifacts. Knows files and hashes, not what is in them.

::

    ROOT/entries/<key>/<variant>/…  published; manifest.json names every file's hash. Variants
                                    differ in what else the model file read
    ROOT/work/<key>/…               being made by whoever holds the lock of <key>
    ROOT/failed/<key>/exporter.log  what the last failed attempt said
    ROOT/locks/<key>.lock           an advisory lock; the kernel frees it when its holder dies
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from platformdirs import user_cache_path

from espdl_hil.errors import ConfigError
from espdl_hil.quantize.artifacts import LOG
from espdl_hil.quantize.recipe import hash_file, hash_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from espdl_hil.quantize.recipe import Keyed

SCHEMA = 1
KEEP_DAYS = 30
MANIFEST = "manifest.json"


def default_root() -> Path:
    """Return where artifacts are kept unless the user says otherwise."""
    return user_cache_path("espdl-hil") / "artifacts"


class Store:
    """Artifacts by content key.

    An entry appears whole or not at all: it is made in a folder beside and renamed into
    place. Every file is hashed again when an entry is read; one that does not match is
    discarded, said in ``discarded``, and made anew. Deleting the folder is always safe.
    Writing (``begin`` to ``publish`` or ``fail``) needs the item's ``lock``, and raises
    ConfigError when the file system refuses.

    Args:
        root: The store's folder, made when needed; None means the user's cache.

    Attributes:
        discarded: What was found damaged since this object was made, one sentence each.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = default_root() if root is None else root
        self.discarded: list[str] = []

    def get(self, item: Keyed) -> Path | None:
        """Return the folder of a verified entry, or None when there is none to use.

        None also when what the model file looked for (a helper module, trained weights, the names
        in a folder, a file that was not there) has changed since. Deletes nothing: only the holder
        of the lock may.
        """
        for entry in self._variants(item):
            manifest, damage = _inspect(entry)
            if damage is not None:
                message = (
                    f"stored artifact of {item.label} discarded and made anew: {damage} ({entry})"
                )
                if message not in self.discarded:
                    self.discarded.append(message)
            elif _is_current(item, manifest["dependencies"]):
                with suppress(OSError):  # a store that is read only does as well
                    os.utime(entry / MANIFEST)  # in use: not for pruning
                return entry
        return None

    def lock(self, item: Keyed) -> FileLock:
        """Return the lock that its maker holds from ``begin`` to ``publish`` or ``fail``."""
        folder = self.root / "locks"
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{item.key}.lock", thread_local=False)

    def begin(self, item: Keyed) -> Path:
        """Return an empty folder to make the entry in; damaged and killed attempts are gone."""
        for entry in self._variants(item):
            if _inspect(entry)[1] is not None:
                _remove(entry)
        work = self.root / "work" / item.key
        _remove(work)
        with self._writing():
            work.mkdir(parents=True)
        return work

    def publish(self, item: Keyed, dependencies: Mapping[str, str]) -> Path:
        """Move the finished work folder into place.

        Args:
            item: What ``begin`` was called with.
            dependencies: Path relative to the model file's folder, to ``hash_path``, of all else
                that the model file read, listed or looked for.
        """
        work = self.root / "work" / item.key
        files = {path.name: hash_file(path) for path in sorted(work.iterdir())}
        manifest = {
            "schema": SCHEMA,
            "made_of": item.to_json(),
            "files": files,
            "dependencies": dict(dependencies),
        }
        variant = hashlib.sha256(json.dumps(dict(dependencies), sort_keys=True).encode())
        entry = self._entries(item) / variant.hexdigest()[:16]
        with self._writing():
            (work / MANIFEST).write_text(json.dumps(manifest, indent=1))
            entry.parent.mkdir(parents=True, exist_ok=True)
            _remove(entry)
            work.replace(entry)
        _remove(self.root / "failed" / item.key)
        return entry

    def fail(self, item: Keyed) -> Path | None:
        """Give up the work folder; return where the exporter's log was kept, if it wrote one."""
        work = self.root / "work" / item.key
        kept = self.root / "failed" / item.key
        _remove(kept)
        log = work / LOG
        if log.exists() and log.stat().st_size:
            with self._writing():
                kept.mkdir(parents=True)
                log.replace(kept / LOG)
        _remove(work)
        return kept / LOG if kept.exists() else None

    def prune(self, unused_days: float = KEEP_DAYS) -> int:
        """Remove entries that nothing has asked for since; return how many.

        What killed runs were making goes, too.
        """
        for work in self.root.glob("work/*"):
            lock = FileLock(self.root / "locks" / f"{work.name}.lock", thread_local=False)
            with suppress(OSError), lock.acquire(blocking=False):  # else somebody is at it
                _remove(work)
        oldest = time.time() - unused_days * 86400
        stale = [
            path.parent
            for path in self.root.glob(f"entries/*/*/{MANIFEST}")
            if path.stat().st_mtime < oldest
        ]
        for entry in stale:
            _remove(entry)
        return len(stale)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what the file system refuses into advice."""
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"the artifact store {self.root} cannot be written: {error.strerror or error}",
                hint="name another folder with --hil-store DIR",
            ) from error

    def _entries(self, item: Keyed) -> Path:
        return self.root / "entries" / item.key

    def _variants(self, item: Keyed) -> list[Path]:
        return sorted(self._entries(item).glob("*"))


def _inspect(entry: Path) -> tuple[dict[str, Any], str | None]:
    """Return the manifest of an entry, and what is wrong with the entry or None."""
    try:
        manifest: dict[str, Any] = json.loads((entry / MANIFEST).read_text())
        if manifest["schema"] != SCHEMA:
            return manifest, f"its schema is {manifest['schema']}, expected {SCHEMA}"
        for name, expected in manifest["files"].items():
            path = entry / name
            if not path.is_file():
                return manifest, f"{name} is missing"
            if hash_file(path) != expected:
                return manifest, f"{name} does not have the hash that was stored"
        manifest["dependencies"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, f"its manifest is unreadable ({type(error).__name__})"
    return manifest, None


def _is_current(item: Keyed, dependencies: Mapping[str, str]) -> bool:
    folder = item.source.parent
    return all(hash_path(folder / name) == expected for name, expected in dependencies.items())


def _remove(path: Path) -> None:
    """Remove a folder; another process may be doing the same."""
    shutil.rmtree(path, ignore_errors=True)
