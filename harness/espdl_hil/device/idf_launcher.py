"""Runs a build in a process of its own that cannot outlive the one that started it.

``python -m espdl_hil.device.idf_launcher ARGUMENTS``: of ``idf-build-apps``; or ``idf.py``, the
path of that script, and its arguments. Its standard input is a
pipe that the parent holds open: when that closes, because the build is over, was
interrupted or the parent was killed, the whole process group ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

IDF_PY: Final = "idf.py"


def main() -> None:
    """Build with the Python of the ESP-IDF environment, which has what ``idf.py`` needs."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    environment = os.environ.get("IDF_PYTHON_ENV_PATH")
    if environment and (python := Path(environment) / "bin/python").is_file():
        sys.executable = str(python)  # idf-build-apps runs idf.py with it
    if sys.argv[1:2] == [IDF_PY]:
        sys.exit(subprocess.call([sys.executable, *sys.argv[2:]]))
    from idf_build_apps.main import main as build

    build()


def _end_with_parent() -> None:
    while os.read(0, 4096):  # not sys.stdin: its lock must be free when the interpreter ends
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
