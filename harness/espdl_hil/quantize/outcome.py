"""How a worker tells its parent what became of a recipe. Knows errors and JSON."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from espdl_hil import errors
from espdl_hil.errors import HarnessError, QuantizeError

if TYPE_CHECKING:
    from pathlib import Path

OUTCOME = "outcome.json"
STAGE_MARK = "--- stage "  # in the log: tells a crashed worker's parent how far it came


@dataclass(frozen=True)
class Outcome:
    """The end of one recipe.

    Attributes:
        error: What went wrong; None when the files are complete.
        dependencies: Path relative to the model file's folder, to SHA-256, of every other file
            that the model file read.
    """

    error: HarnessError | None = None
    dependencies: dict[str, str] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        """Leave the outcome in the worker's folder."""
        error = None
        if self.error is not None:
            error = {"type": type(self.error).__name__, "state": vars(self.error)}
        data = {"error": error, "dependencies": self.dependencies}
        part = directory / f"{OUTCOME}.part"
        part.write_text(json.dumps(data))
        part.replace(directory / OUTCOME)  # whole or not at all

    @classmethod
    def take(cls, directory: Path) -> Outcome | None:
        """Read and remove the outcome; None when the worker left none."""
        path = directory / OUTCOME
        if not path.exists():
            return None
        data = json.loads(path.read_text())
        path.unlink()
        return cls(_revive(data["error"]), data["dependencies"])


def _revive(data: dict[str, object] | None) -> HarnessError | None:
    if data is None:
        return None
    kind = getattr(errors, str(data["type"]), None)
    if not (isinstance(kind, type) and issubclass(kind, HarnessError)):
        kind = HarnessError
    state = data["state"]
    assert isinstance(state, dict)
    error = kind.__new__(kind, state["message"])  # the constructors add to the message
    vars(error).update(state)
    return error


def crash_error(status: int, log: str, *, timeout_s: float | None = None) -> QuantizeError:
    """Describe a worker that ended without an outcome.

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
