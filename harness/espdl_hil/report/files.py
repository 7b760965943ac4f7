"""The files of a report: cleared at the start of a run, written at its end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil.errors import ConfigError
from espdl_hil.report.html import render_html
from espdl_hil.report.schema import validate_results

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from espdl_hil.report.results import Results

DATA, PAGE = "results.json", "report.html"
_ROOM_BYTES = 1 << 16
LOGS = "logs"
_LEFT_BEHIND = (DATA, PAGE, "repro")


def write_report(results: Results, directory: Path) -> Path:
    """Write ``results.json`` and ``report.html``, both whole or neither.

    Args:
        results: What the run found.
        directory: Created if absent; other files in it are left alone.

    Returns:
        Path of ``results.json``.

    Raises:
        ResultsError: the results break the schema; nothing is written.
        OSError: the directory cannot be written; what was there stays.
    """
    content = results.to_json()
    validate_results(content)
    page = render_html(results)
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    directory.mkdir(parents=True, exist_ok=True)
    write_together({directory / PAGE: page.encode(), directory / DATA: text.encode()})
    return directory / DATA


def start_report(directory: Path, workers: Iterable[str] = ()) -> None:
    """Make the report's folder and clear it of what an earlier run left there.

    Called before the first test, so that a report that cannot be written is said at once, and
    that a run which ends early leaves no older verdict in its name.

    Args:
        directory: Created if absent; files that no report writes are left alone.
        workers: Of pytest-xdist, by name: each clears its own logs, and may write them by now.

    Raises:
        ConfigError: it cannot be made, or takes no files.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        killed = (path for name in (DATA, PAGE) for path in directory.glob(f".{name}.*"))
        logs, theirs = [directory / LOGS], tuple(f"-{name}.log" for name in workers)
        if theirs:
            logs = [log for log in logs[0].glob("*") if not log.name.endswith(theirs)]
        for path in (*killed, *logs, *(directory / name for name in _LEFT_BEHIND)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:  # a full disk takes names, not bytes
            file.write(bytes(_ROOM_BYTES))
            file.flush()
    except OSError as error:
        raise ConfigError(
            f"the report's folder {directory} cannot be written: {error.strerror or error}",
            hint="name another folder with --hil-report DIR",
        ) from None


def clear_logs(directory: Path, worker: str) -> None:
    """Remove what a worker of the same name left in an earlier run; what cannot be, stays."""
    for log in (directory / LOGS).glob(f"*-{worker}.log"):
        with contextlib.suppress(OSError):  # the controller has found out, or will
            log.unlink()


def safe_name(text: str) -> str:
    """*text* with what a file name cannot hold replaced."""
    return re.sub(r"[^\w.=-]+", "_", text)


def write_atomically(path: Path, data: bytes) -> Path:
    """Write a file so that a reader sees the old or the new one, never a part."""
    write_together({path: data})
    return path


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write all files beside their places, and move them there once all are whole.

    A run that is killed in between leaves hidden files, which ``start_report`` removes.
    """
    finished: dict[Path, Path] = {}
    try:
        for path, data in files.items():
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            finished[path] = Path(name)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            finished[path].chmod(0o644)  # mkstemp gives 0600
        for path, new in finished.items():
            new.replace(path)
    except BaseException:
        for new in finished.values():
            new.unlink(missing_ok=True)
        raise
