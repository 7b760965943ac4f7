"""The process that imports torch and the exporter once, and forks a worker for each recipe.

::

    pytest ──socket──▶ zygote ──fork──▶ worker (one recipe, then gone)
                          │     fork──▶ worker
                          ▼
                     {"id", "status"}   one JSON object a line, both ways

Forking keeps each recipe in fresh exporter state (the exporter holds module-level tables
that a failed export leaves dirty) without paying two seconds of imports each time. When
the socket closes, for whatever reason, the zygote kills its workers and ends; when the
zygote is killed, the kernel kills its workers.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import selectors
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from espdl_hil.quantize.artifacts import LOG

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LINE_BYTES = 1 << 16


def main(descriptor: int, parent: int) -> None:
    """Serve requests until the socket closes.

    Args:
        descriptor: The inherited end of a socket pair.
        parent: Process that started this one; it may have ended already.
    """
    die_with_parent(parent)
    with socket.socket(fileno=descriptor) as channel:
        try:
            _import_everything()
        except BaseException as error:  # noqa: BLE001 - said to the parent, whatever it is
            _send(channel, {"failed": f"{type(error).__name__}: {error}"})
            return
        _send(channel, {"ready": os.getpid()})
        _serve(channel)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; Linux only, elsewhere a no-op."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)


def _import_everything() -> None:
    from espdl_hil.quantize import worker

    with tempfile.TemporaryDirectory() as scratch:
        worker.warm_up(Path(scratch))
    gc.collect()
    gc.freeze()  # what was imported is never garbage: esp-ppq collects often


def _serve(channel: socket.socket) -> None:
    workers: dict[int, str] = {}  # process id to request id
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    received = b""
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        selector.register(wake_read, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj == wake_read:
                    os.read(wake_read, LINE_BYTES)
                    _reap(channel, workers)
                    continue
                data = channel.recv(LINE_BYTES)
                if not data:
                    _kill(workers)
                    return
                *lines, received = (received + data).split(b"\n")
                for line in lines:
                    _handle(channel, workers, json.loads(line))


def _handle(channel: socket.socket, workers: dict[int, str], message: dict[str, Any]) -> None:
    if "kill" in message:
        for process in [process for process, name in workers.items() if name == message["kill"]]:
            os.kill(process, signal.SIGKILL)
        return
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    process = os.fork()
    if process == 0:
        _become_worker(channel, parent, message)
    workers[process] = message["id"]


def _become_worker(channel: socket.socket, parent: int, message: dict[str, Any]) -> NoReturn:
    """Run one recipe in this fresh child; never returns into the zygote's loop."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        die_with_parent(parent)
        channel.close()
        directory = Path(message["directory"])
        log = os.open(directory / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        from espdl_hil.quantize import worker

        worker.run(message["request"], directory)
        code = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _reap(channel: socket.socket, workers: dict[int, str]) -> None:
    for process in list(workers):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            _send(
                channel,
                {"id": workers.pop(process), "status": os.waitstatus_to_exitcode(status)},
            )


def _kill(workers: dict[int, str]) -> None:
    for process in workers:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _send(channel: socket.socket, message: dict[str, Any]) -> None:
    channel.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
