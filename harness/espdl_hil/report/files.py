"""The files of a report: cleared at the start of a run, written at its end."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil.errors import ConfigError
from espdl_hil.report.html import render_html
from espdl_hil.report.schema import validate_results

if TYPE_CHECKING:
    from espdl_hil.report.results import Results

DATA, PAGE = "results.json", "report.html"
_LEFT_BEHIND = (DATA, PAGE, "repro", "logs")


def write_report(results: Results, directory: Path) -> Path:
    """Write ``results.json`` and ``report.html``, each whole or not at all.

    Args:
        results: What the run found.
        directory: Created if absent; other files in it are left alone.

    Returns:
        Path of ``results.json``.

    Raises:
        ResultsError: the results break the schema; nothing is written.
        OSError: the directory cannot be written.
    """
    content = results.to_json()
    validate_results(content)
    page = render_html(results)
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / PAGE, page.encode())
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    return write_atomically(directory / DATA, text.encode())


def start_report(directory: Path) -> None:
    """Make the report's folder and clear it of what an earlier run left there.

    Called before the first test, so that a report that cannot be written is said at once, and
    that a run which ends early leaves no older verdict in its name.

    Args:
        directory: Created if absent; files that no report writes are left alone.

    Raises:
        ConfigError: it cannot be made, or takes no files.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
        for path in (directory / name for name in _LEFT_BEHIND):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the report's folder {directory} cannot be written: {error.strerror or error}",
            hint="name another folder with --hil-report DIR",
        ) from None


def write_atomically(path: Path, data: bytes) -> Path:
    """Write a file so that a reader sees the old or the new one, never a part."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).chmod(0o644)  # mkstemp gives 0600
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path
