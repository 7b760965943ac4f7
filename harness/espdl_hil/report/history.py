"""All runs in one SQLite file: appended by many processes at once, read for trends."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import filelock
from platformdirs import user_cache_path

from espdl_hil.errors import ConfigError
from espdl_hil.report.matrix import cause_of
from espdl_hil.report.results import Results
from espdl_hil.report.schema import SILICON

if TYPE_CHECKING:
    from collections.abc import Sequence

    from espdl_hil.report.row import Row

VERSION = 2  # of the tables, in SQLite's user_version
BUSY_S = 60.0  # other processes append in milliseconds; a network drive may take longer
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_TABLES = """
CREATE TABLE runs (
  id INTEGER PRIMARY KEY, date TEXT NOT NULL, duration_s REAL NOT NULL, command TEXT NOT NULL,
  models_at TEXT NOT NULL, environment TEXT NOT NULL, results BLOB NOT NULL);
CREATE TABLE rows (
  run INTEGER NOT NULL REFERENCES runs(id), id TEXT NOT NULL, model TEXT NOT NULL,
  target TEXT NOT NULL, bits INTEGER NOT NULL, chunk_frames INTEGER, board TEXT NOT NULL,
  outcome TEXT NOT NULL, cause TEXT NOT NULL, sqnr_db REAL, differing INTEGER NOT NULL,
  latency_us REAL, artifacts TEXT NOT NULL, outputs TEXT NOT NULL,
  internal_peak_bytes INTEGER, psram_peak_bytes INTEGER,
  PRIMARY KEY (run, id)) WITHOUT ROWID;
CREATE INDEX rows_by_model ON rows (model, id, run);
PRAGMA user_version = 2;
"""
_FROM_1 = """
ALTER TABLE rows ADD COLUMN internal_peak_bytes INTEGER;
ALTER TABLE rows ADD COLUMN psram_peak_bytes INTEGER;
PRAGMA user_version = 2;
"""


def default_history() -> Path:
    """The history of this user."""
    return user_cache_path("espdl-hil") / "history.sqlite3"


class History:
    """A store of runs; a context manager.

    Args:
        path: The file; made, with its folder, when it is absent. One that is damaged is moved
            aside and begun anew.

    Attributes:
        path: As given.
        set_aside: Where a damaged file went; None if it was well.

    Raises:
        ConfigError: it cannot be opened, or a newer release has written it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set_aside: Path | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(path.with_name(path.name + ".lock"), timeout=BUSY_S):
                self._file = self._opened()
        except (OSError, sqlite3.Error, filelock.Timeout) as error:
            raise ConfigError(
                f"the history {path} cannot be opened: {error}",
                hint="name another file with --hil-history FILE, or off",
            ) from None

    def _opened(self) -> sqlite3.Connection:
        try:
            return self._connected()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in _DAMAGED:
                raise
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists():
            number += 1
        for ending in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.path}{ending}").rename(f"{aside}{ending}")
        self.set_aside = aside
        return self._connected()

    def _connected(self) -> sqlite3.Connection:
        file = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
        try:
            self._migrate(file)
        except BaseException:
            file.close()
            raise
        return file

    def _migrate(self, file: sqlite3.Connection) -> None:
        """Make the tables in a new file, extend older ones; refuse those of a newer release."""
        version = file.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise ConfigError(
                f"the history {self.path} is of version {version}, this release knows {VERSION}",
                hint="update espdl-hil, or name another file with --hil-history FILE",
            )
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        if version == 0:
            file.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
        elif version == 1:
            file.executescript(f"BEGIN IMMEDIATE; {_FROM_1} COMMIT;")
        file.execute("SELECT count(*) FROM rows WHERE run = 0").fetchone()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, results: Results) -> int:
        """Keep a run, whole or not at all.

        Args:
            results: What it found; pictures are left out.

        Returns:
            The run's number.

        Raises:
            sqlite3.Error: it cannot be written.
        """
        slim = replace(results, rows=tuple(map(_slim, results.rows)))
        content = zlib.compress(json.dumps(slim.to_json()).encode())
        commit = results.commit
        models_at = commit.id + ("+" if commit.dirty else "") if commit else ""
        self._file.execute("BEGIN IMMEDIATE")
        try:
            cursor = self._file.execute(
                "INSERT INTO runs (date, duration_s, command, models_at, environment, results) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (
                    *(results.date, results.duration_s, results.command, models_at),
                    *(json.dumps(dict(results.environment), sort_keys=True), content),
                ),
            )
            run = cursor.lastrowid
            assert run is not None
            values = [(run, *_values(row, results)) for row in results.rows]
            self._file.executemany(f"INSERT INTO rows VALUES ({','.join('?' * 16)})", values)  # noqa: S608
            self._file.execute("COMMIT")
        except BaseException:
            self._file.execute("ROLLBACK")
            raise
        return run

    def run(self, number: int) -> Results:
        """A run as it was kept.

        Raises:
            ConfigError: there is none of this number.
        """
        found = self._file.execute("SELECT results FROM runs WHERE id = ?", (number,)).fetchone()
        if found is None:
            raise ConfigError(f"the history {self.path} has no run {number}")
        return Results.from_json(json.loads(zlib.decompress(found[0])))

    def runs(self, last: int) -> list[dict[str, Any]]:
        """The last runs, oldest first: ``id``, ``date``, ``command``, rows and how many passed."""
        return self._select(
            "SELECT runs.id, date, command, count(rows.id) AS total, "
            "coalesce(sum(outcome = 'passed'), 0) AS passed FROM (SELECT * FROM runs ORDER BY id "
            "DESC LIMIT ?) AS runs LEFT JOIN rows ON rows.run = runs.id GROUP BY runs.id",
            last,
        )

    def rows(self, model: str, last: int) -> list[dict[str, Any]]:
        """The rows of a model in its last runs, by id, oldest first, beside facts of their runs."""
        return self._select(
            "SELECT rows.*, runs.date, runs.models_at, runs.environment FROM rows JOIN runs "
            "ON runs.id = rows.run WHERE model = ?1 AND run IN (SELECT DISTINCT run FROM rows "
            "WHERE model = ?1 ORDER BY run DESC LIMIT ?2) ORDER BY rows.id, run",
            model,
            last,
        )

    def before(self, results: Results) -> Results | None:
        """What was kept last of each row of *results*, as one run; None without any."""
        last: dict[int, list[str]] = {}
        for row in results.rows:
            found = self._file.execute(
                "SELECT max(run) FROM rows WHERE model = ? AND id = ?", (row.model, row.id)
            ).fetchone()[0]
            if found is not None:
                last.setdefault(found, []).append(row.id)
        if not last:
            return None
        runs = {number: self.run(number) for number in sorted(last)}
        rows = (row for number in runs for row in runs[number].rows if row.id in last[number])
        return replace(runs[max(runs)], rows=tuple(rows))

    def _select(self, query: str, *values: object) -> list[dict[str, Any]]:
        cursor = self._file.execute(query, values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, found, strict=True)) for found in cursor]


def _slim(row: Row) -> Row:
    """A row without what only its page needs."""
    return replace(row, details=replace(row.details, pictures={}, per_chunk={}))


def board_of(row: Row, results: Results) -> str:
    """On what a row ran, so that runs of one board can be told apart."""
    ports: Sequence[str] = [
        device.port
        for device in results.devices
        if device.target == row.target and device.substrate == SILICON
    ]
    return f"{row.device} {' '.join(ports)}".strip() if row.substrate == SILICON else row.device


def _values(row: Row, results: Results) -> tuple[object, ...]:
    return (
        *(row.id, row.model, row.target, row.bits, row.chunk_frames, board_of(row, results)),
        *(str(row.outcome), cause_of(row), row.sqnr_db, row.differing),
        row.latency_us.median if row.latency_us else None,
        json.dumps(dict(row.artifacts), sort_keys=True),
        json.dumps(dict(row.outputs), sort_keys=True),
        row.resources.internal_peak_bytes if row.resources else None,
        row.resources.psram_peak_bytes if row.resources else None,
    )
