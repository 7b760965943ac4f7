"""The client of the zygote: starts it, hands it requests, hears how the workers ended."""

from __future__ import annotations

import json
import math
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from espdl_hil.errors import QuantizeError

if TYPE_CHECKING:
    from types import TracebackType

START_TIMEOUT_S = 120.0  # importing torch from a cold disk
STOP_TIMEOUT_S = 5.0
RECEIVE_BYTES = 1 << 16
WORKER_ENVIRONMENT = {
    # One thread a worker: workers run side by side, and small networks are quicker so.
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "PYTHONHASHSEED": "0",  # esp-ppq writes constants in the order of a set
}


class WorkerPool:
    """Workers for the length of a ``with`` block; the first request waits for the imports.

    Raises:
        QuantizeError: stage ``build``; the zygote did not start or ended early.
    """

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair()
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._received = b""
        self._ready = False
        # What this process can import, the workers can.
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        try:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "espdl_hil.quantize.zygote"),
                    *(str(theirs.fileno()), str(os.getpid())),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                env={**os.environ, **WORKER_ENVIRONMENT, "PYTHONPATH": path},
                start_new_session=True,  # a Ctrl-C is ours to handle
            )
        except BaseException:
            self._channel.close()
            self._output.close()
            raise
        finally:
            theirs.close()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.close()  # the zygote kills its workers and ends
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:  # still importing
            self._process.kill()
            self._process.wait()
        self._output.close()

    def submit(self, name: str, request: dict[str, Any], directory: Path) -> None:
        """Start a worker.

        Args:
            name: Returned by ``wait`` when the worker has ended.
            request: What ``worker.run`` takes, plain data.
            directory: Where the worker writes its files and its log.
        """
        self._wait_until_ready()
        self._send({"id": name, "request": request, "directory": str(directory)})

    def kill(self, name: str) -> None:
        """Kill a worker; ``wait`` will return it as any other."""
        self._send({"kill": name})

    def wait(self, timeout_s: float) -> list[tuple[str, int]]:
        """Wait until a worker ends.

        Args:
            timeout_s: How long to wait; infinity means until one ends.

        Returns:
            Name and exit status of the workers that ended: 0, a positive exit code, or a
            negative signal number; empty at the timeout.
        """
        return [(message["id"], message["status"]) for message in self._receive(timeout_s)]

    def _wait_until_ready(self) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not self._ready:
            remaining_s = deadline_s - time.monotonic()
            if remaining_s < 0:
                raise self._broken(f"did not start within {START_TIMEOUT_S:.0f} s")
            self._receive(remaining_s)

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._channel.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise self._broken(f"does not listen ({error})") from error

    def _receive(self, timeout_s: float) -> list[dict[str, Any]]:
        patience_s = None if math.isinf(timeout_s) else max(timeout_s, 0)
        readable, _, _ = select.select([self._channel], [], [], patience_s)
        if not readable:
            return []
        data = self._channel.recv(RECEIVE_BYTES)
        if not data:
            status = self._process.wait()
            raise self._broken(f"ended with status {status}")
        *lines, self._received = (self._received + data).split(b"\n")
        messages = [json.loads(line) for line in lines]
        if not self._ready and messages:
            first = messages.pop(0)
            if "failed" in first:
                raise self._broken(f"did not start: {first['failed']}")
            self._ready = True
        return messages

    def _broken(self, what: str) -> QuantizeError:
        self._output.seek(0)
        tail = self._output.read().decode(errors="replace").strip().splitlines()[-3:]
        said = f"; it said: {' | '.join(tail)}" if tail else ""
        return QuantizeError(
            f"the quantize process {what}{said}",
            stage="build",
            hint="check that 'python -c \"import torch, esp_ppq\"' works in this environment",
        )
