"""Runs a command that cannot outlive the process that started it.

``python -m espdl_hil.device.launcher FOLDER COMMAND…``. Its standard input is a pipe that the
parent holds open: when that closes the command is killed. A parent that only wants it stopped
says so in the pipe; one that was killed cannot, and then the folder is removed, too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading


def main() -> None:
    """Run the command; its exit code is ours. When this process has ended, so has the command."""
    folder, *arguments = sys.argv[1:]
    command = subprocess.Popen(arguments, stdin=subprocess.DEVNULL)
    orphaned = threading.Event()
    threading.Thread(target=_end_with_parent, args=(command, orphaned), daemon=True).start()
    code = command.wait()
    if orphaned.is_set():
        shutil.rmtree(folder, ignore_errors=True)
    raise SystemExit(code)


def _end_with_parent(command: subprocess.Popen[bytes], orphaned: threading.Event) -> None:
    said = b""
    while data := os.read(0, 4096):  # not sys.stdin: its lock must be free at the end
        said += data
    if not said:
        orphaned.set()
    command.kill()


if __name__ == "__main__":
    main()
