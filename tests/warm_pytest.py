"""Runs pytest in a process of its own that need not import everything first.

Importing takes two thirds of a short run, and there are some hundred: ``multiprocessing``'s fork
server imports once. What a run cannot see is that a module is there already; the plugin itself,
its options and pytest-embedded are loaded by pytest as ever.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from multiprocessing.context import ForkServerContext

PRELOADED = [
    *("pytest", "numpy", "jinja2", "rich.console", "rich.progress", "rich.table"),
    *("espdl_hil.plugin.session", "espdl_hil.device.dut", "espdl_hil.simulator"),
]


@cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def run_pytest(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Do what ``python -m pytest ARGUMENTS`` does in *folder*.

    Raises:
        subprocess.TimeoutExpired: it took too long, and was killed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        paths = [Path(scratch, name) for name in ("stdout", "stderr")]
        process = _server().Process(target=_run, args=(arguments, folder, environment, *paths))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(arguments), timeout_s)
        output, errors = (path.read_text() for path in paths)
        return subprocess.CompletedProcess(arguments, process.exitcode, output, errors)


def _run(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    output: Path,
    errors: Path,
) -> None:
    for path, descriptor in ((output, 1), (errors, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    tempfile.tempdir = None  # it depends on the environment
    ours = str(Path(__file__).parent)
    sys.path[:] = [str(folder), *(entry for entry in sys.path if not entry.startswith(ours))]
    sys.argv = ["pytest", *arguments]
    code = int(pytest.main(list(arguments)))
    atexit._run_exitfuncs()  # multiprocessing leaves them out
    sys.exit(code)
