"""What a worker leaves behind, and what became of one that left nothing. Knows errors and JSON."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from espdl_hil import errors
from espdl_hil.errors import HarnessError, QuantizeError

if TYPE_CHECKING:
    from pathlib import Path

RESULT = "result.json"
STAGE_MARK = "--- stage "  # in the log: tells who reads a crashed worker's how far it came


@dataclass(frozen=True)
class WorkerResult:
    """The end of one worker.

    Attributes:
        error: What went wrong; None when the files are complete.
        dependencies: Path relative to the model file's folder, to ``hash_path``, of all else that
            the model file read, listed or looked for.
    """

    error: HarnessError | None = None
    dependencies: dict[str, str] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        """Leave the result in the worker's folder."""
        error = None if self.error is None else error_to_json(self.error)
        part = directory / f"{RESULT}.part"
        part.write_text(json.dumps({"error": error, "dependencies": self.dependencies}))
        part.replace(directory / RESULT)  # whole or not at all

    @classmethod
    def take(cls, directory: Path) -> WorkerResult | None:
        """Read and remove the result; None when the worker left none."""
        path = directory / RESULT
        if not path.exists():
            return None
        data = json.loads(path.read_text())
        path.unlink()
        error = None if data["error"] is None else error_from_json(data["error"])
        return cls(error, data["dependencies"])


def error_to_json(error: HarnessError) -> dict[str, Any]:
    """Return an error as plain data: its constructor adds to the message, so pickling cannot."""
    return {"type": type(error).__name__, "state": vars(error)}


def error_from_json(data: dict[str, Any]) -> HarnessError:
    """Return the error that ``error_to_json`` gave; of the base type when its own is unknown."""
    kind = getattr(errors, data["type"], None)
    if not (isinstance(kind, type) and issubclass(kind, HarnessError)):
        kind = HarnessError
    error = kind.__new__(kind, data["state"]["message"])
    vars(error).update(data["state"])
    return error


def crash_error(status: int, log: str, *, timeout_s: float | None = None) -> QuantizeError:
    """Describe a worker that ended without a result.

    Args:
        status: Its exit code, or the negative number of the signal that killed it.
        log: What it had written.
        timeout_s: The time that it was given, when it was killed for taking longer.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    stages = [line[len(STAGE_MARK) :] for line in lines if line.startswith(STAGE_MARK)]
    said = [line for line in lines if not line.startswith(STAGE_MARK)][-1:]
    hint = None
    if timeout_s is not None:
        how = f"took longer than {timeout_s:g} s"
    elif status < 0:
        how = f"was killed by {signal.Signals(-status).name}"
        if -status == signal.SIGKILL:
            hint = "the kernel kills so when memory runs out: try --hil-jobs 1"
    else:
        how = f"ended with status {status} and no result"
    return QuantizeError(
        f"the worker {how}" + (f"; its last words: {said[0]}" if said else ""),
        stage=stages[-1] if stages else "build",
        hint=hint,
    )
