"""The scheduler as a guest: nothing survives its parent, and nothing of the user's is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from written_models import COUNTED, GOOD, write

from espdl_hil.errors import QuantizeError
from espdl_hil.quantize import Recipe, Store, prepare

if TYPE_CHECKING:
    from espdl_hil.model import StreamingModel

RUNNER = """
import signal
import sys
from pathlib import Path
from espdl_hil.model import load_model
from espdl_hil.quantize import Recipe, Store, prepare
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
recipe = Recipe.of(load_model(sys.argv[1]), "esp32s3", 8)
print("started", flush=True)
(result,) = prepare([recipe], Store(Path(sys.argv[2]))).values()
print(type(result).__name__, flush=True)
"""


def runner(model: StreamingModel, root: Path, script: str = RUNNER) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(model.source), str(root)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_make_an_entry_once(tmp_path: Path) -> None:
    model = write(tmp_path, "counted", COUNTED)
    running = [runner(model, tmp_path / "store") for _ in range(2)]
    said = [process.communicate(timeout=60)[0].split() for process in running]
    assert said == [["started", "Artifacts"]] * 2
    assert (tmp_path / "made.txt").read_text() == "x"


def hanging(pid: Path) -> str:
    """A model whose build writes its process id and then waits for ever."""
    return (
        "def build():\n"
        f"    open({str(pid)!r}, 'w').write(str(os.getpid()))\n"
        "    signal.pause()\n"
        "MODEL = declare(build)\n"
    )


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_ending_the_parent_leaves_no_process_and_no_lock(tmp_path: Path, how: int) -> None:
    pid = tmp_path / "worker.pid"
    model = write(tmp_path, "hanging", hanging(pid))
    process = runner(model, tmp_path / "store")
    wait_for(lambda: pid.exists() and pid.read_text() != "")
    worker = int(pid.read_text())
    scheduler = parent_of(worker)
    assert scheduler != process.pid
    process.send_signal(how)
    process.communicate(timeout=30)
    wait_for(lambda: not alive(worker) and not alive(scheduler))
    recipe = Recipe.of(model, "esp32s3", 8)
    Store(tmp_path / "store").lock(recipe.trace).acquire(timeout=1).lock.release()


FORKER = """
import os, signal, threading, time
def fork_when_it_works():
    while not os.path.exists(PID):
        time.sleep(0.02)
    child = os.fork()
    if child == 0:
        signal.pause()
    open(PID + ".fork", "w").write(str(child))
threading.Thread(target=fork_when_it_works).start()
"""


def test_a_parent_killed_during_the_imports_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    pid = tmp_path / "scheduler.pid"
    (tmp_path / "torch" / "__init__.py").write_text(
        f"import os, signal\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\nsignal.pause()\n"
    )
    model = write(tmp_path, "good", GOOD)
    script = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n" + RUNNER
    process = runner(model, tmp_path / "store", script)
    wait_for(lambda: pid.exists() and pid.read_text() != "")
    with process:
        process.kill()
    wait_for(lambda: not alive(int(pid.read_text())))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the pipe alone tells")
def test_a_process_that_the_parent_forked_keeps_nothing_alive(tmp_path: Path) -> None:
    pid = tmp_path / "worker.pid"
    model = write(tmp_path, "hanging", hanging(pid))
    process = runner(model, tmp_path / "store", f"PID = {str(pid)!r}" + FORKER + RUNNER)
    forked = tmp_path / "worker.pid.fork"
    wait_for(lambda: forked.exists() and forked.read_text() != "")
    worker, child = int(pid.read_text()), int(forked.read_text())
    scheduler = parent_of(worker)
    with process:  # closes our end: the forked process holds the other
        process.kill()
    try:
        wait_for(lambda: not alive(worker) and not alive(scheduler))
        assert alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


GUEST = (
    """
import multiprocessing, multiprocessing.forkserver, os
before = dict(os.environ)
"""
    + RUNNER
    + """
print(os.environ == before, multiprocessing.get_start_method(allow_none=True),
      multiprocessing.forkserver._forkserver._forkserver_pid, multiprocessing.active_children())
"""
)


@pytest.mark.parametrize("how", ["script", pytest.param("standard input", marks=pytest.mark.slow)])
def test_a_script_without_a_guard_runs_once_and_keeps_its_settings(
    tmp_path: Path, how: str
) -> None:
    model = write(tmp_path, "good", GOOD)
    (tmp_path / "script.py").write_text(GUEST)
    run = subprocess.run(
        [
            *(sys.executable, "script.py" if how == "script" else "-"),
            *(str(model.source), str(tmp_path / "store")),
        ],
        cwd=tmp_path,
        input=GUEST,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert run.stdout.splitlines() == ["started", "Artifacts", "True None None []"]
    assert run.stderr == ""


def parent_of(process: int) -> int:
    stat = Path(f"/proc/{process}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for(condition: Any, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def test_requests_share_a_process_that_is_replaced_when_it_has_died(
    tmp_path: Path, scheduler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "def build():\n"
        f"    open({str(tmp_path / 'seen')!r}, 'w').write(\n"
        "        f'{os.getppid()} {os.getcwd()} {os.environ.get(\"WHERE\")} {sys.path[1]}'\n"
        "    )\n"
        "    from torch import nn\n    return nn.Conv1d(4, 4, 1)\n"
        "MODEL = declare(build)\n"
    )

    def seen(name: str) -> list[str]:
        """Parent, folder, variable of a worker, and its import path behind the model's folder."""
        recipe = Recipe.of(write(tmp_path, name, f"import sys\n{text}"), "esp32s3", 8)
        result = prepare([recipe], Store(tmp_path / f"store {name}"))[recipe.key]
        assert not isinstance(result, Exception), result
        return (tmp_path / "seen").read_text().split()

    first = seen("first")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.setenv("WHERE", "there")
    monkeypatch.syspath_prepend(str(tmp_path / "below"))
    second = seen("second")
    assert second == [first[0], str(tmp_path / "below"), "there", str(tmp_path / "below")]
    os.kill(int(first[0]), signal.SIGKILL)
    wait_for(lambda: scheduler._process.poll() is not None)  # all its threads
    assert seen("third")[0] != first[0]


def test_a_worker_process_that_does_not_start_is_said_for_every_recipe(
    tmp_path: Path, scheduler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler.close()  # another will be started
    (tmp_path / "path" / "torch").mkdir(parents=True)
    (tmp_path / "path" / "torch" / "__init__.py").write_text("raise OSError('disk is full')")
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    model = write(tmp_path, "any", GOOD)
    recipes = [Recipe.of(model, "esp32s3", bits) for bits in (8, 16)]
    found = prepare(recipes, Store(tmp_path / "store"), jobs=1)
    for error in found.values():
        assert isinstance(error, QuantizeError)
        assert "the quantize process did not start: OSError: disk is full" in str(error)
    for recipe in (*recipes, recipes[0].trace):
        Store(tmp_path / "store").lock(recipe).acquire(blocking=False).lock.release()


def test_a_scheduler_ended_by_a_signal_is_an_error_not_a_hang(tmp_path: Path) -> None:
    text = (
        "def build():\n"
        f"    open({str(tmp_path / 'worker.pid')!r}, 'w').write(str(os.getpid()))\n"
        "    os.kill(os.getppid(), signal.SIGKILL)\n"
        "    signal.pause()\n"
        "MODEL = declare(build)\n"
    )
    recipe = Recipe.of(write(tmp_path, "patricide", text), "esp32s3", 8)
    error = prepare([recipe], Store(tmp_path / "store"))[recipe.key]
    assert isinstance(error, QuantizeError)
    assert f"the quantize process ended with status {-signal.SIGKILL}" in str(error)
    worker = int((tmp_path / "worker.pid").read_text())
    wait_for(lambda: not alive(worker))
    Store(tmp_path / "store").lock(recipe.trace).acquire(timeout=1).lock.release()
