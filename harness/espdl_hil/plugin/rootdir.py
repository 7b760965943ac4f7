"""Keeping pytest's root folder where the user stands.

pytest looks for its root and its configuration before any plugin has named its options.
At that moment the value in ``--hil-models ../mine`` looks like a test path, and pytest
takes a folder above it as the root: pytest.ini, and with it the project's settings, would be
ignored. ``--hil-models=../mine`` has no such effect, so that is what pytest is restarted with.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

PATH_OPTIONS = ("--hil-models", "--hil-report", "--hil-store", "--hil-build-dir")


def join_path_options(arguments: list[str]) -> list[str]:
    """Write ``--option PATH`` as ``--option=PATH`` where pytest would misread the path.

    Args:
        arguments: A command line.

    Returns:
        The same command line, with fewer words where a path that exists was joined.

    >>> join_path_options(["-q", "--hil-report", "/", "--hil-report", "/no/such"])
    ['-q', '--hil-report=/', '--hil-report', '/no/such']
    """
    joined: list[str] = []
    for word in arguments:
        if joined and joined[-1] in PATH_OPTIONS and Path(word).exists():
            joined[-1] = f"{joined[-1]}={word}"
        else:
            joined.append(word)
    return joined


def restart_if_misread() -> None:
    """Replace this process by a pytest that reads the same options rightly.

    Does nothing where pytest was called as a function: its caller chose root and arguments.
    """
    called = Path(sys.argv[0])
    is_command = called.stem in ("pytest", "py.test") or called.parts[-2:] == (
        "pytest",
        "__main__.py",
    )
    words = join_path_options(sys.orig_argv)
    if is_command and words != sys.orig_argv and hasattr(os, "execv"):
        sys.stdout.flush()
        os.execv(sys.executable, words)  # noqa: S606 - the very command that was given
