"""Runs a command that cannot outlive the process that started it.

``python -m espdl_hil.device.launcher FOLDER COMMAND…``. Its standard input is a pipe that the
parent holds open: when that closes the command is killed. A parent that only wants it stopped
says so in the pipe; one that was killed cannot, and then the folder is removed, too. If this
process itself is killed, Linux ends the command.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Run the command; its exit code is ours. When this process has ended, so has the command."""
    folder, *arguments = sys.argv[1:]
    ends_with_us = _end_with_launcher if sys.platform == "linux" else None
    command = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, preexec_fn=ends_with_us)
    orphaned = threading.Event()
    threading.Thread(target=_end_with_parent, args=(command, orphaned), daemon=True).start()
    code = command.wait()
    if orphaned.is_set():
        shutil.rmtree(folder, ignore_errors=True)
    raise SystemExit(code)


def _end_with_launcher() -> None:
    """In the child, before it becomes the command."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_with_parent(command: subprocess.Popen[bytes], orphaned: threading.Event) -> None:
    said = b""
    while data := os.read(0, 4096):  # not sys.stdin: its lock must be free at the end
        said += data
    if not said:
        orphaned.set()
    command.kill()


if __name__ == "__main__":
    main()
