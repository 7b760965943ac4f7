"""What a worker leaves behind: typed errors survive, and a crash is described."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from espdl_hil.errors import (
    ArtifactError,
    ConfigError,
    DeviceError,
    HarnessError,
    QuantizeError,
    StreamingError,
    UnsupportedOpError,
)
from espdl_hil.quantize.worker_result import RESULT, WorkerResult, crash_error

if TYPE_CHECKING:
    from pathlib import Path

ERRORS: list[HarnessError] = [
    HarnessError("message"),
    ConfigError("message", hint="hint"),
    QuantizeError("message", stage="export", hint="hint"),
    StreamingError("message", rule="S105", node="/c/Conv", hint="pad on the left"),
    ArtifactError("message", path="x.espdl", offset=16),
    UnsupportedOpError("message"),
    DeviceError("message", port="p"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_the_process_boundary(tmp_path: Path, error: HarnessError) -> None:
    WorkerResult(error, {"_blocks.py": "00"}).write(tmp_path)
    taken = WorkerResult.take(tmp_path)
    assert taken is not None
    assert type(taken.error) is type(error)
    assert str(taken.error) == str(error)
    assert vars(taken.error) == vars(error)
    assert taken.dependencies == {"_blocks.py": "00"}


def test_success_has_no_error_and_is_taken_once(tmp_path: Path) -> None:
    WorkerResult().write(tmp_path)
    assert WorkerResult.take(tmp_path) == WorkerResult()
    assert WorkerResult.take(tmp_path) is None


def test_an_unknown_error_type_is_still_an_error(tmp_path: Path) -> None:
    (tmp_path / RESULT).write_text(
        '{"error": {"type": "Path", "state": {"message": "m", "hint": null}}, "dependencies": {}}'
    )
    taken = WorkerResult.take(tmp_path)
    assert taken is not None
    assert type(taken.error) is HarnessError


LOG = "--- stage build\n--- stage calibrate\nCalibration 50%\n\nlast words\n"


def test_a_killed_worker_is_described_by_signal_and_stage() -> None:
    error = crash_error(-signal.SIGSEGV, LOG)
    assert str(error) == (
        "quantize (calibrate): the worker was killed by SIGSEGV; its last words: last words"
    )


def test_an_out_of_memory_kill_has_advice() -> None:
    assert "--hil-jobs 1" in str(crash_error(-signal.SIGKILL, LOG))


def test_a_silent_exit_is_described() -> None:
    assert str(crash_error(3, "")) == (
        "quantize (build): the worker ended with status 3 and no result"
    )


def test_a_timeout_is_not_taken_for_a_lack_of_memory() -> None:
    error = crash_error(-signal.SIGKILL, LOG, timeout_s=2.5)
    assert "the worker took longer than 2.5 s" in str(error)
    assert error.hint is None
